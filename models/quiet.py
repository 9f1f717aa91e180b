"""What every loader of the transformers library needs: silence, and one line of an error that has many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as library_log

__all__ = ["first_line", "quiet"]


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bar for a file that is already here, and no report of what our own loaders check and say."""
    shown, level = library_log.is_progress_bar_enabled(), library_log.get_verbosity()
    library_log.disable_progress_bar()
    library_log.set_verbosity_error()
    try:
        yield
    finally:
        library_log.set_verbosity(level)
        if shown:
            library_log.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """The first line of an error that says anything."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
