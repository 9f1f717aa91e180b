"""Where sentences begin and end, in English, Polish and Korean, by rules: no model, and the same spans every time.

What looks like an end and is none is the work here: abbreviations, initials, decimals, Polish ordinals, list numbers,
ellipses. A citation such as ``[1]`` behind a full stop belongs to the sentence before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["LIST_MARK", "Span", "split_sentences"]

Span = tuple[int, int]
"""Offsets of the first character and behind the last."""

LIST_MARK = re.compile(r"[ \t>]*(?:[-*+•‣–·]|\(?\d{1,3}[.)]|\(?[A-Za-z][)])[ \t]+|[ \t>]*#{1,6}[ \t]+")
"""What may stand before a list item or a heading, where a line begins."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Never the end of a sentence: something belongs behind them.
_OPEN = _words(
    "dr mr mrs ms prof st rev gen col sgt capt lt hon fig figs eq eqs vol vs cf approx ca dept est e.g i.e viz resp "
    "ul al pl os tel nr str godz im św ks inż mgr hab gen płk kpt por wg np m.in tj tzn tzw zob s.c poz ust lek"
)
# The end of a sentence where a capital letter follows.
_CLOSING = _words(
    "etc a.m p.m u.s u.k u.s.a e.u jr sr inc ltd co corp itp itd in tys mln mld zł gr r w p.n.e n.e jan feb mar apr "
    "jun jul aug sept sep oct nov dec mon tue wed thu fri sat sun min max hr hrs ft lb lbs oz"
)
# Never the end where a number follows.
_NUMBERED = _words("no nos art ok pt p pp ch sec")
_END = re.compile(r"(?P<mark>\.{2,}|…|[.!?]+|[。！？]+)(?P<close>[\"'”’»)\]*_]*)(?P<cited>(?:\s*\[\d{1,3}\])*)")
_WORD_BEFORE = re.compile(r"[^\s\"'“”‘’„«»(\[]+$")


def split_sentences(text: str) -> list[Span]:
    """The sentences of a text, list items and headings each by themselves, with no white space at their ends.

    Args:
        text: any text; a single line break within a paragraph counts as a space.

    Returns:
        Spans in order, not overlapping; all that lies between them is white space.
    """
    return [
        span for block in _blocks(text) for start, end in _ends(text, *block) if (span := _trimmed(text, start, end))
    ]


def _blocks(text: str) -> Iterator[Span]:
    """Paragraphs, and within them list items and headings; a heading's own line is one."""
    start = at = 0
    heading = False
    for line in text.splitlines(keepends=True):
        mark = LIST_MARK.match(line)
        if heading or mark or not line.strip():
            yield start, at
            start = at
        heading = bool(mark and "#" in mark.group())
        at += len(line)
    yield start, at


def _ends(text: str, start: int, end: int) -> Iterator[Span]:
    mark = LIST_MARK.match(text, start, end)
    begin = start
    for found in _END.finditer(text, mark.end() if mark else start, end):
        if found.start() >= begin and _is_end(text, found, begin, end):
            yield begin, found.end()
            begin = found.end()
    yield begin, end


def _is_end(text: str, found: re.Match[str], start: int, end: int) -> bool:
    """Whether a sentence stops at punctuation, by the word before it and what follows."""
    mark, behind = found["mark"], found.end()
    after = text[behind:end].lstrip()
    if not after:
        return True
    if mark[0] in "。！？":
        return True
    if behind < end and not text[behind].isspace():
        # Korean is often written without the space: 있다.그리고
        return mark == "." and not found["close"] and _hangul(text[found.start() - 1 : found.start()] + after[0])
    first = after.lstrip("\"'“”‘’„«»([*_")[:1]
    if mark != ".":
        return not (first.islower() and mark[0] in ".…")
    before = _WORD_BEFORE.search(text, start, found.start())
    word = before.group().strip("*_").lower() if before else ""
    if word in _OPEN or (word in _NUMBERED and first.isdigit()) or _is_initial(text, found.start(), start):
        return False
    if word in _CLOSING:
        return not first.islower() and not first.isdigit()
    return not (word[-1:].isdigit() and first.islower())


def _is_initial(text: str, dot: int, start: int) -> bool:
    """A capital letter by itself, as in ``J. Kowalski``."""
    return dot > start and text[dot - 1].isupper() and (dot - 1 == start or not text[dot - 2].isalnum())


def _hangul(pair: str) -> bool:
    return len(pair) == 2 and all("가" <= letter <= "힣" for letter in pair)


def _trimmed(text: str, start: int, end: int) -> Span | None:
    """The span without white space at its ends; nothing where nothing is left."""
    part = text[start:end]
    begin = start + len(part) - len(part.lstrip())
    stop = begin + len(part.strip())
    return (begin, stop) if stop > begin else None
