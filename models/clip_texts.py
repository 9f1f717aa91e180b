"""Texts longer than a text tower reads: split where people pause, embedded piece by piece, pooled.

Tokenizers cut such texts off without a word, and what stood at the end then counts for nothing although the score looks
like any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["split_text"]

# From the best place to part a text to the worst: after a sentence, after a clause, between words.
_PLACES = tuple(
    map(
        re.compile,
        (r"(?<=[.!?\u2026])\s+|\n+|(?<=[\u3002\uff01\uff1f])", r"(?<=[,;:])\s+|(?<=[\u3001\uff0c\uff1b])", r"\s+"),
    )
)


def split_text(text: str, count: Callable[[str], int], most: int) -> tuple[str, ...]:
    """A text as pieces that each fit, in order; halved again and again, so that the pieces are of similar length.

    Args:
        text: any text.
        count: tokens of a text, with the special ones.
        most: tokens that a piece may have.

    Returns:
        One piece when the text fits. No word is lost: only white space between pieces is.

    Raises:
        ValueError: not even one character fits.
    """
    stripped = text.strip()
    if count(stripped) <= most:
        return (stripped,)
    if len(stripped) < 2:
        raise ValueError(f"{most} tokens are too few for the text {stripped!r}")
    left, right = _halve(stripped)
    return tuple(piece for half in (left, right) for piece in split_text(half, count, most))


def _halve(text: str) -> tuple[str, str]:
    """Two parts, neither empty, parted near the middle at the best kind of place that lies in the middle half."""
    middle = len(text) / 2
    for place in _PLACES:
        found = [one for one in place.finditer(text) if len(text) / 4 <= one.end() <= 3 * len(text) / 4]
        if found:
            best = min(found, key=lambda one: abs(one.end() - middle))
            return text[: best.start()], text[best.end() :]
    return text[: len(text) // 2], text[len(text) // 2 :]
