"""``python -m training doubt``: what a model has seen, how sure it may be, and how often it was right."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse does not name the type of its sub-parsers
    """Add ``doubt`` to the commands of this room.

    Args:
        commands: what ``ArgumentParser.add_subparsers`` gave.
    """
    parser = commands.add_parser(
        "doubt", help="calibrate a model and measure which pictures it has not seen; written beside its weights"
    )
    parser.add_argument("--model", required=True, help="id in the zoo, its weights in a folder of this machine")
    parser.add_argument("--recipe", type=Path, required=True, help="YAML file that names the sets")
    parser.add_argument("--out", type=Path, help="folder to write to; that of the model's weights when not given")
    parser.add_argument("--zoo", type=Path, metavar="FILE", help="a zoo file of your own models")
    parser.add_argument("--json", action="store_true", help="result as JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from training.doubt import describe_doubt, measure_doubt
    from training.evaluate_command import describe_command

    command = describe_command(options.arguments)
    found = measure_doubt(options.model, options.recipe, command, options.zoo, options.out)
    return found, describe_doubt(found)
