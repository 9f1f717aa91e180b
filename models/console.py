"""What the commands of the rooms share: results to standard output, progress and errors to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from models.errors import ExhibitError

__all__ = ["run_command", "show_progress", "write_json"]


def run_command(run: Callable[[], int]) -> int:
    """The exit code of a command; what its user can mend is one line, and 2.

    Args:
        run: the command; returns its exit code.
    """
    try:
        return run()
    except ExhibitError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def write_json(value: object) -> None:
    """A result for machines."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def show_progress(model_id: str, share: float | None, text: str) -> None:
    """News of a model that is being loaded; what ``ModelLoader`` calls.

    Args:
        model_id: whose.
        share: done, in [0, 1]; None where it is not known.
        text: a few words.
    """
    done = "" if share is None else f" {share:4.0%}"
    sys.stderr.write(f"[{model_id}]{done} {text}\n")
