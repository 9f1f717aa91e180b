"""What joins statements within a sentence, as data for English, Polish and Korean, and the cuts that follow from it.

A cut is made only where the words on both sides are known to make a statement: a claim too coarse is still checked, a
half of one is nonsense with a score.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from rag.sentences import Span

__all__ = ["Statement", "detect_language", "split_clauses"]

Statement = tuple[str, int, int]
"""A statement able to stand alone, and the span of the text it was read from."""


@dataclass(frozen=True)
class _Grammar:
    """The words that cuts hang on.

    Attributes:
        joins: pattern of a conjunction between two statements.
        verbs: finite verbs, lower case, in the third person.
        showing: pattern of a beginning behind which things are listed, up to and with its verb.
        item: pattern of how a listed thing begins.
        last: pattern that joins the last listed thing.
    """

    joins: re.Pattern[str]
    verbs: frozenset[str]
    showing: re.Pattern[str]
    item: re.Pattern[str]
    last: str


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COUNTS = r"(?:an?|one|two|three|four|five|six|seven|eight|nine|ten|several|some|many|another|\d+)\s"
_ENGLISH = _Grammar(
    joins=re.compile(r"\s*;\s+|,?\s+(?:and|but|while|whereas|yet)\s+", re.IGNORECASE),
    verbs=_words(
        "is are was were has have had isn't aren't can cannot will does do did doesn't don't stands stand sits sit "
        "holds hold wears wear runs run walks walk shows show appears appear looks look lies lie hangs hang rides ride "
        "plays play jumps jump carries carry watches watch faces face points reads read says say seems seem contains "
        "contain eats eat drinks drink sleeps sleep flies fly drives drive leans lean smiles smile swims swim covers "
        "cover stood sat held wore ran walked showed appeared lay hung rode played jumped carried"
    ),
    showing=re.compile(
        r"(?:\w[\w' -]{0,40}?\s)?(?:shows?|depicts?|contains?|includes?|features?|there\s+(?:is|are)"
        r"|(?:can|could)\s+be\s+seen|i\s+(?:can\s+)?see)\s+",
        re.IGNORECASE,
    ),
    item=re.compile(_COUNTS, re.IGNORECASE),
    last=r",?\s+and\s+",
)
_POLISH = _Grammar(
    joins=re.compile(r"\s*;\s+|,?\s+(?:i|a|oraz|ale|lecz|natomiast|zaś)\s+", re.IGNORECASE),
    verbs=_words(
        "jest są był była było byli były ma mają miał miała nie stoi stoją leży leżą siedzi siedzą trzyma trzymają "
        "nosi noszą idzie idą biegnie biegną biega wisi wiszą widać pokazuje pokazują przedstawia znajduje znajdują "
        "patrzy patrzą jedzie jadą gra grają je śpi leci rośnie trwa zawiera prowadzi czyta pije skacze płynie "
        "wskazuje wygląda"
    ),
    showing=re.compile(
        r"(?:\w[\w -]{0,40}?\s)?(?:widać|przedstawiają|przedstawia|pokazuje|zawiera|znajduje\s+się|znajdują\s+się"
        r"|jest|są|widnieje)\s+",
        re.IGNORECASE,
    ),
    item=re.compile(r"\w"),
    last=r"\s+(?:i|oraz)\s+",
)
_GRAMMARS: Final = MappingProxyType({"en": _ENGLISH, "pl": _POLISH})

# Korean joins by the ending of the verb. "입고 있다" is one verb form, hence the comma or the copula.
_KOREAN_JOIN = re.compile(
    r"(?P<stem>[가-힣]*(?:있|없|이|하|았|었|였|했))(?:고|으며|며|지만)(?:,\s*|\s+(?!있|싶|나서))"
    r"|(?P<other>[가-힣]+)(?:고|으며|며|지만),\s*"
)
_POLISH_SIGNS = re.compile(r"[ąćęłńśźż]|\b(?:jest|są|nie|się|oraz|na|w|z|i|ma)\b", re.IGNORECASE)
_ENGLISH_SIGNS = re.compile(r"\b(?:the|is|are|an|of|and|with|has)\b", re.IGNORECASE)


def detect_language(text: str) -> str:
    """``ko``, ``pl`` or ``en``, by script and the small words; English where nothing tells."""
    if re.search(r"[가-힣]", text):
        return "ko"
    return "pl" if len(_POLISH_SIGNS.findall(text)) > len(_ENGLISH_SIGNS.findall(text)) else "en"


def split_clauses(text: str, span: Span, language: str) -> list[Statement]:
    """The statements of one sentence.

    Args:
        text: the whole answer.
        span: of the sentence, without marks around it.
        language: ``en``, ``pl`` or ``ko``.

    Returns:
        In order; one, the sentence itself, where nothing is known to part it.
    """
    if language == "ko":
        return _split_korean(text, span)
    grammar = _GRAMMARS[language]
    parts: list[Statement] = []
    for statement in _split_joined(text, span, grammar):
        listed = _split_listed(text, statement, grammar)
        parts += listed or [statement]
    return parts


def _split_joined(text: str, span: Span, grammar: _Grammar) -> list[Statement]:
    """Cut at conjunctions with a verb on both sides; a part that begins with its verb gets the subject before it."""
    start, end = span
    pieces: list[Statement] = []
    begin, subject = start, ""
    for join in grammar.joins.finditer(text, start, end):
        left, right = text[begin : join.start()], text[join.end() : end]
        if join.start() < begin or _verb_at(left, grammar) is None or not _goes_on(right, join.group(), grammar):
            continue
        pieces.append((subject + left, begin, join.start()))
        at = _verb_at(left, grammar) or 0
        own = " ".join(left.split()[:at])
        subject = (own or subject.strip()) + " " if _verb_at(right, grammar) == 0 and (own or subject) else ""
        begin = join.end()
    pieces.append((subject + text[begin:end], begin, end))
    return pieces


def _verb_at(part: str, grammar: _Grammar) -> int | None:
    """Place of the first finite verb among the words."""
    return next((at for at, word in enumerate(_bare(part)) if word in grammar.verbs), None)


def _goes_on(right: str, join: str, grammar: _Grammar) -> bool:
    """Whether what follows a conjunction is a statement: its verb comes before the next conjunction."""
    if ";" in join:
        return bool(right.strip())
    further = grammar.joins.search(right)
    at = _verb_at(right[: further.start()] if further else right, grammar)
    # "and a red bus with" has no verb; one seven words away is likely not this subject's.
    return at is not None and at <= 6


def _bare(part: str) -> list[str]:
    return [word.strip(".,;:!?\"'“”()").lower() for word in part.split()]


def _split_listed(text: str, statement: Statement, grammar: _Grammar) -> list[Statement]:
    """``It shows a car, two men and a dog`` as three statements; nothing where it is no such list."""
    words, start, end = statement
    beginning = grammar.showing.match(words)
    if beginning is None or words != text[start:end]:
        return []
    begin = start + beginning.end()
    body = text[begin:end].rstrip(" .")
    cut = re.compile(rf"{grammar.last}|,\s+")
    places = [0, *(found.end() for found in cut.finditer(body))]
    ends = [*(found.start() for found in cut.finditer(body)), len(body)]
    if len(places) < 2 or (len(places) == 2 and "," in body):
        return []
    items = [(body[one:two], begin + one, begin + two) for one, two in zip(places, ends, strict=True)]
    if not all(grammar.item.match(item) and len(item.split()) <= 8 for item, _, _ in items):
        return []
    if any(_verb_at(item, grammar) is not None for item, _, _ in items):
        return []
    lead = beginning.group()
    return [(lead + item, start if not place else one, two) for place, (item, one, two) in enumerate(items)]


def _split_korean(text: str, span: Span) -> list[Statement]:
    """Cut behind a joining verb ending; what stands before it gets the plain ending ``-다``."""
    start, end = span
    pieces: list[Statement] = []
    begin = start
    for join in _KOREAN_JOIN.finditer(text, start, end):
        if join.end() >= end:
            break
        stop = join.end("stem") if join["stem"] else join.end("other")
        shown = join.start() + len(join.group().rstrip(", "))
        pieces.append((text[begin:stop] + "다", begin, shown))
        begin = join.end()
    pieces.append((text[begin:end], begin, end))
    return pieces
