"""One boundary for everything that can go wrong in the page.

An ``ExhibitError`` is written for people and shown as it is; anything else is a bug: its traceback goes to the log and
the visitor reads one line.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any

from models.errors import ExhibitError
from ui.text import say
from ui.updates import Updates

_LOG = logging.getLogger(__name__)


def explain_error(error: Exception, language: str) -> str:
    """The one line a person reads.

    Args:
        error: what was raised; logged with its traceback unless it is an ``ExhibitError``.
        language: of the page.
    """
    if isinstance(error, ExhibitError):
        return " ".join(str(error).split())
    _LOG.error("Unexpected error behind the page", exc_info=error)
    return say(language, "status.unexpected")


def guard(
    listener: Callable[..., Any], fail: Callable[[str], Updates], deliver: Callable[[Updates], Any]
) -> Callable[..., Any]:
    """A listener that ends in one line for the visitor instead of an exception; what the page showed stays.

    Args:
        listener: a function that returns updates, or a generator that yields them; its first argument is the language.
        fail: that line to the updates that show it.
        deliver: updates to what the page understands.
    """
    if inspect.isgeneratorfunction(listener):

        @functools.wraps(listener)
        def stepwise(language: str, *args: Any) -> Iterator[Any]:  # noqa: ANN401 - any listener
            try:
                for updates in listener(language, *args):
                    yield deliver(updates)
            except Exception as error:  # noqa: BLE001 - the boundary; explain_error logs what is unexpected
                yield deliver(fail(explain_error(error, language)))

        return stepwise

    @functools.wraps(listener)
    def at_once(language: str, *args: Any) -> Any:  # noqa: ANN401 - any listener
        try:
            return deliver(listener(language, *args))
        except Exception as error:  # noqa: BLE001 - the boundary; explain_error logs what is unexpected
            return deliver(fail(explain_error(error, language)))

    return at_once
