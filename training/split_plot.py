"""How a split's labels are spread, as a picture and as text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from training.scenes_common import find_fonts

# Of Okabe and Ito's colour-blind safe palette, by column of the counts.
COLOURS = {"all": "#999999", "train": "#0072B2", "validation": "#E69F00", "test": "#009E73"}
ADDED = "added to train"
LAST_LATIN = "\u024f"  # what lies beyond is not in every font

Counts = Mapping[str, Mapping[str, int]]
"""Label to column (``all``, ``train``, ``validation``, ``test``, ``added to train``) to pictures."""


def save_counts(counts: Counts, path: Path) -> None:
    """Bars per label: all pictures before, and each split after, new pictures hatched upon the train split's own.

    Args:
        counts: pictures by label and column.
        path: PNG file to write.
    """
    columns = [column for column in COLOURS if any(row.get(column) for row in counts.values())]
    figure = Figure(figsize=(2.4 + 1.1 * len(counts), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = 0.8 / len(columns)
    for number, column in enumerate(columns):
        places = [index + (number - (len(columns) - 1) / 2) * width for index in range(len(counts))]
        heights = [row.get(column, 0) for row in counts.values()]
        axes.bar(places, heights, width * 0.92, color=COLOURS[column], label=column)
        added = [row.get(ADDED, 0) for row in counts.values()]
        if column == "train" and any(added):
            axes.bar(
                places,
                added,
                width * 0.92,
                bottom=heights,
                color="white",
                edgecolor=COLOURS[column],
                hatch="///",
                label=ADDED,
            )
    font = FontProperties(fname=str(find_fonts("ko")[0])) if max("".join(counts)) > LAST_LATIN else None
    axes.set_xticks(range(len(counts)), list(counts), fontproperties=font)
    axes.set_ylabel("pictures")
    figure.legend(loc="outside upper center", ncols=len(columns) + 1, fontsize=8)
    figure.savefig(path, dpi=120)


def describe_counts(counts: Counts) -> str:
    """The counts as a table for people."""
    columns = [column for column in (*COLOURS, ADDED) if any(row.get(column) for row in counts.values())]
    first = max(5, *(len(label) for label in counts))
    lines = ["  ".join([f"{'label':<{first}}", *(f"{column:>{max(10, len(column))}}" for column in columns)])]
    for label, row in counts.items():
        numbers = (f"{row.get(column, 0):>{max(10, len(column))}}" for column in columns)
        lines.append("  ".join([f"{label:<{first}}", *numbers]))
    return "\n".join(lines)
