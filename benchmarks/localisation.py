"""Where we know what decides: which heatmaps lie there, method by method, beside random maps and a blob in the centre.

python -m benchmarks.localisation
python -m benchmarks.localisation --json --save
python -m benchmarks.localisation --only tampered --pictures 40 --sheet docs/screenshots/localisation.png
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from benchmarks.localisation_measure import SCORE, Row, find_winners, measure_sets, read_results
from benchmarks.localisation_sets import SETS
from benchmarks.report import RESULTS, Figure, add_options, report
from explain.catalog import CATALOG
from explain.localisation import FIGURES
from models.loading import ModelLoader
from models.registry import load_zoo

ZOO = Path(__file__).with_name("localisation.zoo.yaml")
PICTURES = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and save if asked."""
    names = [truth.name for truth in SETS]
    parser = argparse.ArgumentParser(description="How well heatmaps lie where it is known what decides.")
    add_options(parser)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="SET", help=", ".join(names))
    parser.add_argument("--pictures", type=int, default=PICTURES, metavar="N", help="at most so many per set and model")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="also draw a sheet, of pictures that may be shown")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    warnings.filterwarnings("ignore")
    loader = ModelLoader(load_zoo(ZOO), offline=True, device="cpu")
    rows, missing = measure_sets(loader, [truth for truth in SETS if truth.name in options.only], options.pictures)
    if options.save:  # sets that were not asked for keep their lines
        kept, lacking = read_results(RESULTS / "localisation.json")
        rows += [row for row in kept if row.set not in options.only]
        rows.sort(key=lambda row: names.index(row.set))
        missing += [one for one in lacking if one["set"] not in options.only]
    taught = [row for row in rows if next(truth.taught for truth in SETS if truth.name == row.set)]
    details = {"rows": [row.to_json() for row in rows], "missing": missing, "winners": find_winners(taught)}
    report("localisation", make_figures(rows), options, details)
    if not options.json:
        sys.stdout.write(draw_table(rows))
    if options.sheet:
        from benchmarks.localisation_sheet import draw_sheet

        draw_sheet(loader, options.sheet)
    return 0


def make_figures(rows: Sequence[Row]) -> list[Figure]:
    """For each set and model the pointing game of its best class-aware method, with everything else in words."""
    figures = []
    for (name, model), group in groupby(rows, key=lambda row: (row.set, row.model)):
        able = [row for row in group if CATALOG[row.method].class_aware]
        best = max(able, key=lambda row: round(row.value(SCORE, "lead"), 4))
        told = "; ".join(
            f"{FIGURES[figure].title} {_interval(best, figure)}, random maps {best.value(figure, 'random'):.2f}, "
            f"blob in the centre {best.value(figure, 'centre'):.2f}"
            for figure in FIGURES
        )
        figures.append(
            Figure(
                f"pointing_{name}_{model.removeprefix('bundled-').replace('-', '_')}",
                best.value("pointing"),
                None,
                "higher",
                f"{CATALOG[best.method].title}, the best of {len(able)} that look at the label, on {best.measured} "
                f"cases ({model} is right on {best.right} of {best.asked}): {told}",
            )
        )
    return figures


def draw_table(rows: Sequence[Row]) -> str:
    """All lines in columns: each figure with its interval, then what random maps and the blob reach."""
    lines = []
    for (name, model), group in groupby(rows, key=lambda row: (row.set, row.model)):
        table = list(group)
        lines += ["", f"{name}, {model}: right on {table[0].right} of {table[0].asked}"]
        lines.append(f"  {'':<14}" + "".join(f"{figure.title:<34}" for figure in FIGURES.values()) + "ahead of random")
        for row in table:
            cells = "".join(
                f"{_interval(row, name):<19}{row.value(name, 'random'):>5.2f}{row.value(name, 'centre'):>5.2f}     "
                for name in FIGURES
            )
            empty = f"  no map: {row.empty}" if row.empty else ""
            lines.append(f"  {row.method:<14}{cells}{_interval(row, SCORE, 'lead', '+.2f')}{empty}")
    return "\n".join(lines) + "\n"


def _interval(row: Row, figure: str, part: str = "own", form: str = ".2f") -> str:
    value, low, high = (format(row.value(figure, part, end), form) for end in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


if __name__ == "__main__":
    sys.exit(main())
