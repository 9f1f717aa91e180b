"""Plots of a run, of a report and of a comparison, as PNG files; labels may be in Hangul."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from models.report_comparison import Comparison
from models.report_figures import FIGURE_TITLES
from models.reports import CalibrationBin, Confusion, Curve, Estimate
from training.scenes_common import find_fonts

BLUE, ORANGE = "#0072B2", "#D55E00"  # from Okabe and Ito's colour-blind safe palette
PALETTE = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")
HANGUL = "NanumGothic"
DPI = 120


def _new_figure(width: float = 5.0, height: float = 4.0) -> Figure:
    # Not pyplot: its figures are global and would pile up in a long-lived process.
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_loss_curve(history: Sequence[dict[str, Any]], path: Path, *, kept_step: int | None = None) -> None:
    """Training and validation loss over optimiser steps; each evaluation is a point.

    Args:
        history: entries of the Trainer's log with ``step`` and ``loss`` or ``eval_loss``.
        path: PNG file to write.
        kept_step: the step whose weights are kept, if training went on beyond it.
    """
    figure = _new_figure(6.0, 3.5)
    axes = figure.add_subplot()
    series: dict[str, list[tuple[int, float]]] = {
        key: sorted({entry["step"]: entry[key] for entry in history if key in entry}.items())
        for key in ("loss", "eval_loss")
    }
    for key, label, colour, marker in (("loss", "training", BLUE, ""), ("eval_loss", "validation", ORANGE, "o")):
        if points := series[key]:
            alone = "." if len(points) == 1 else ""  # a line of one point is invisible
            axes.plot(*zip(*points, strict=True), label=label, color=colour, marker=marker or alone)
    if kept_step is not None:
        axes.axvline(kept_step, color="0.4", linestyle="--", linewidth=1, label=f"kept: step {kept_step}")
    values = [value for points in series.values() for _, value in points if value > 0]
    if values and max(values) > 20 * min(values):
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss (cross-entropy)")
    axes.grid(color="0.9")
    if values:
        axes.legend()
    figure.savefig(path, dpi=120)


@contextmanager
def _drawing(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure, its size in inches, that is written when the block ends well."""
    if HANGUL not in font_manager.get_font_names():
        font_manager.fontManager.addfont(find_fonts("ko")[0])
    # Letters that one font lacks come from the next; a label is no formula, whatever signs are in it.
    with mpl.rc_context({"font.family": ["DejaVu Sans", HANGUL], "text.parse_math": False}):
        figure = _new_figure(width, height)
        yield figure
        figure.savefig(path, dpi=DPI)


def save_figures(figures: Mapping[str, Estimate | None], path: Path) -> None:
    """Each figure in [0, 1] as a point with its 95 % interval.

    Args:
        figures: of a report; what is not defined, and BLEU (in [0, 100]), is left out.
        path: PNG file to write.
    """
    shown = {name: one for name, one in figures.items() if one and name != "bleu"}
    with _drawing(path, 6.0, 0.9 + 0.35 * len(shown)) as figure:
        axes = figure.add_subplot()
        for place, one in enumerate(shown.values()):
            axes.plot([one.low, one.high], [place, place], color=BLUE, linewidth=2)
            axes.plot(one.value, place, "o", color=BLUE)
        axes.set_yticks(range(len(shown)), [FIGURE_TITLES.get(name, name) for name in shown])
        axes.set_xlim(-0.02, 1.02)
        axes.invert_yaxis()
        axes.grid(axis="x", color="0.9")
        axes.set_xlabel("figure with its 95 % interval")


def save_confusion(confusion: Confusion, path: Path) -> None:
    """Confusion matrix with counts, rows true and columns predicted, the last column without answer.

    Args:
        confusion: of a report.
        path: PNG file to write.
    """
    columns, truths = confusion.labels, confusion.labels[:-1]
    counts = confusion.counts[:-1]
    longest = max(map(len, columns))
    with _drawing(path, 1.8 + 0.08 * longest + 0.9 * len(columns), 1.2 + 0.08 * longest + 0.7 * len(truths)) as figure:
        axes = figure.add_subplot()
        axes.imshow(counts, cmap="Blues", vmin=0, aspect="auto")
        largest = max(max(row) for row in counts)
        for row, cells in enumerate(counts):
            for column, count in enumerate(cells):
                colour = "white" if count > 0.6 * largest else "black"
                axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour)
        axes.set_xticks(
            range(len(columns)), columns, rotation=30 if longest > 8 else 0, ha="right" if longest > 8 else "center"
        )
        axes.set_yticks(range(len(truths)), truths)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")


def save_curves(curves: Mapping[str, Curve], path: Path, *, axes: tuple[str, str]) -> None:
    """ROC or precision-recall curves, one per label against all others.

    Args:
        curves: by label.
        path: PNG file to write.
        axes: what x and y are.
    """
    with _drawing(path, 4.6, 4.2) as figure:
        plot = figure.add_subplot()
        for place, (label, curve) in enumerate(curves.items()):
            colour, line = PALETTE[place % len(PALETTE)], LINES[place // len(PALETTE) % len(LINES)]
            plot.plot(curve.x, curve.y, line, color=colour, label=f"{label} ({curve.area:.3f})")
        plot.set_xlim(-0.02, 1.02)
        plot.set_ylim(-0.02, 1.02)
        plot.set_xlabel(axes[0])
        plot.set_ylabel(axes[1])
        plot.set_aspect("equal")
        plot.grid(color="0.9")
        plot.legend(title="label (area)", fontsize=8)


def save_reliability(bins: Sequence[CalibrationBin], path: Path) -> None:
    """Reliability diagram: accuracy over confidence, the size of a point showing its share of the pictures.

    Args:
        bins: of a report.
        path: PNG file to write.
    """
    with _drawing(path, 4.2, 4.0) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--")
        _draw_bins(axes, bins, BLUE)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        axes.set_aspect("equal")


def _draw_bins(axes: Any, bins: Sequence[CalibrationBin], colour: str) -> None:  # noqa: ANN401 - matplotlib's axes
    total = sum(one.count for one in bins)
    confidence, accuracy = [one.confidence for one in bins], [one.accuracy for one in bins]
    axes.plot(confidence, accuracy, color=colour)
    axes.scatter(confidence, accuracy, s=[20 + 400 * one.count / total for one in bins], color=colour, alpha=0.6)


def save_sides(comparison: Comparison, path: Path) -> None:
    """The figures of all sides beside each other, each with its 95 % interval.

    Args:
        comparison: of two or more reports.
        path: PNG file to write.
    """
    sides = comparison.sides
    names = [name for name in sides[0].figures if name != "bleu" and any(side.figures.get(name) for side in sides)]
    step = 0.8 / len(sides)
    with _drawing(path, 7.0, 1.2 + 0.25 * len(sides) * len(names)) as figure:
        axes = figure.add_subplot()
        for number, side in enumerate(sides):
            colour = PALETTE[number % len(PALETTE)]
            found = [(place, side.figures[name]) for place, name in enumerate(names) if side.figures.get(name)]
            heights = [place + (number - (len(sides) - 1) / 2) * step for place, _ in found]
            for height, (_, one) in zip(heights, found, strict=True):
                if one:
                    axes.plot([one.low, one.high], [height, height], color=colour, linewidth=2)
            axes.plot([one.value for _, one in found if one], heights, "o", color=colour, label=side.name)
        axes.set_yticks(range(len(names)), [FIGURE_TITLES.get(name, name) for name in names])
        axes.set_xlim(-0.02, 1.02)
        axes.invert_yaxis()
        axes.grid(axis="x", color="0.9")
        axes.set_xlabel("figure with its 95 % interval")
        figure.legend(loc="outside upper center", ncols=min(len(sides), 3), fontsize=8)
