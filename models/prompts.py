"""Prompt styles as data: what is put around a question before a family writes it in its own form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from models.errors import ExhibitError

__all__ = ["STYLES", "PromptStyle", "get_style"]

_SLOT = re.compile(r"\{(question|hint|description)\}")


@dataclass(frozen=True)
class PromptStyle:
    """One way to ask.

    Attributes:
        template: the full question, from ``{question}``, ``{hint}`` (of the zoo entry) and ``{description}``.
        describe: what the model is asked first, to get ``{description}``; ``None`` where it need not look twice.
        max_new_tokens: tokens that the description may have.
        note: what people read.
    """

    template: str
    describe: str | None = None
    max_new_tokens: int = 48
    note: str = ""

    def write(self, question: str, *, hint: str = "", description: str = "") -> str:
        """The full question."""
        parts = {"question": question, "hint": hint, "description": description}
        # One sweep: a question may itself hold braces.
        return _SLOT.sub(lambda slot: parts[slot[1]], self.template).strip()


STYLES: Mapping[str, PromptStyle] = MappingProxyType(
    {
        "plain": PromptStyle("{question}", note="the question as it stands"),
        "informed": PromptStyle("{hint} {question}", note="the entry's hint goes before the question"),
        "captioned": PromptStyle(
            "{description} {question}",
            describe="Describe this image.",
            note="the model first describes the image; the description goes before the question",
        ),
    }
)
"""Name to style; zoo entries, the page and the commands name them so."""


def get_style(name: str) -> PromptStyle:
    """The style of that name.

    Raises:
        ExhibitError: there is none; the message lists those there are.
    """
    if name not in STYLES:
        raise ExhibitError(f"no prompt style is called {name!r}; known are: {', '.join(STYLES)}")
    return STYLES[name]
