"""``python -m training charts``: make charts with questions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse does not name the type of its sub-parsers
    """Add ``charts`` to the commands of this room.

    Args:
        commands: what ``ArgumentParser.add_subparsers`` gave.
    """
    parser = commands.add_parser("charts", help="make charts with questions, exact answers and boxes, from a seed")
    parser.add_argument("--out", type=Path, required=True, help="folder to create")
    parser.add_argument("--count", type=int, required=True, help="pictures")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other charts, for a held-out set")
    parser.add_argument("--questions", type=int, default=6, help="at most so many per picture")
    parser.add_argument("--ask", nargs="+", default=(), metavar="WHAT", help="only these questions, such as rise shown")
    parser.add_argument("--shapes", action="store_true", help="labels and masks instead of questions, to teach a tower")
    parser.add_argument("--workers", type=int, default=1, help="processes; the file does not depend on it")
    parser.add_argument("--json", action="store_true", help="result as JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from training.chart_shapes import write_shapes
    from training.charts import write_charts
    from training.errors import DataError

    if options.shapes and options.ask:
        raise DataError("--shapes asks nothing; leave out --ask, or --shapes.")
    if options.shapes:
        drawn = write_shapes(options.out, options.count, options.seed, workers=options.workers)
        return drawn, f"{drawn['pictures']} charts of {len(drawn['shapes'])} shapes in {options.out}"
    summary = write_charts(
        options.out,
        options.count,
        options.seed,
        questions=options.questions,
        ask=options.ask,
        workers=options.workers,
    )
    kinds = ", ".join(f"{count} {kind}" for kind, count in summary["chart_kinds"].items())
    asked = ", ".join(f"{count} {kind}" for kind, count in summary["question_kinds"].items())
    text = f"{summary['pictures']} charts ({kinds}), {summary['questions']} questions ({asked}) in {options.out}"
    return summary, text
