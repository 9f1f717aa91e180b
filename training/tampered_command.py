"""``python -m training tampered``: faces with one changed region, to learn from and to measure heatmaps on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse does not name the type of its sub-parsers
    """Add ``tampered`` to the commands of this room.

    Args:
        commands: what ``ArgumentParser.add_subparsers`` gave.
    """
    parser = commands.add_parser("tampered", help="change one region of faces, and keep its mask")
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="labelled sets with faces that no one has changed")
    parser.add_argument("--out", type=Path, required=True, help="folder to create")
    parser.add_argument("--count", type=int, required=True, metavar="N", help="faces; each gives two pictures")
    parser.add_argument("--seed", type=int, default=0, help="another seed changes other regions")
    parser.add_argument("--label", default="real", help="what the sources call a face that no one has changed")
    parser.add_argument("--size", type=int, default=256, metavar="PX", help="side of the pictures")
    parser.add_argument("--close", action="store_true", help="cut each pair down to the surroundings of its region")
    parser.add_argument("--name", default="tampered", help="of the two files; fine-tuning reads `train`")
    parser.add_argument("--json", action="store_true", help="result as JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from training.tampered import write_tampered

    summary = write_tampered(
        options.sources,
        options.out,
        options.count,
        options.seed,
        label=options.label,
        size=options.size,
        close=options.close,
        name=options.name,
    )
    kinds = ", ".join(f"{count} {kind}" for kind, count in summary["kinds"].items())
    return summary, f"{2 * summary['faces']} pictures of {summary['faces']} faces ({kinds}) in {options.out}"
