"""``python -m training COMMAND``: make pictures, prepare, fine-tune, evaluate, compare and bundle; see ``--help``."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence

from models.errors import ExhibitError
from training import (
    bundle_command,
    charts_command,
    doubt_command,
    evaluate_command,
    finetune_command,
    prepare_command,
    tampered_command,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 2 the user's input (one clear line). Anything else is a bug and keeps its traceback."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    options = _build_parser().parse_args(arguments)
    options.arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result, text = options.run(options)
    except ExhibitError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write((json.dumps(result, indent=2, ensure_ascii=False) if options.json else text) + "\n")
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    for room in (
        prepare_command,
        charts_command,
        tampered_command,
        finetune_command,
        evaluate_command,
        doubt_command,
        bundle_command,
    ):
        room.add_command(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
