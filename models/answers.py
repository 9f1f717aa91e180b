"""Free text to a label, English and Korean: only what is said plainly counts, and doubt is ``None``, never a guess."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["parse_label"]

_ANSWER = re.compile(r"(?:\b(?:the )?(?:final |correct )?answer(?: is\b|\s*:)|정답\s*(?:은|:)|답변?\s*(?:은|:))\s*")
_CLAUSE = re.compile(
    r"[.;:,!?\n()\[\]]+(?!\d)|\b(?:but|and|or|because|since|so|however|although|though|while|yet|instead(?! of))\b"
)
_QUESTION = re.compile(r"[^.!\n]*\?")
_EMPHASIS = re.compile(r"\b(?:without (?:a |any )?doubt|no doubt|no question|not only|not just)\b|의심할 여지\s?없이")
_BEFORE = re.compile(
    r"\b(?:not|no|never|neither|nor|none|nothing|hardly|barely|unlikely|without|cannot|\w+n't|rather than|instead of"
    r"|far from|anything but|rul(?:e|es|ed|ing) out|whether|if|unsure|unclear|impossible)\b"
)
_AFTER = re.compile(r"^\W*(?:\w+\W+){0,3}?(?:not|never|unlikely|\w+n't|cannot|ruled out)\b")
_AFTER_KOREAN = re.compile(r"아니|아닌|아닙|아닐|않|없|못|모르|모르겠|불분명|불확실|인지|의심스럽")
_REACH_KOREAN = 16
"""Letters behind a Korean word in which its negation stands: 진짜라고 할 수 없습니다."""
_HANGUL = re.compile(r"[가-힣]")


@dataclass(frozen=True)
class _Mention:
    start: int
    end: int
    labels: frozenset[str]


def parse_label(text: str, labels: Sequence[str], synonyms: Mapping[str, Sequence[str]]) -> str | None:
    """The one label that a text affirms.

    A label counts where it is named and neither denied, doubted nor asked about in the same clause; if the text
    announces its answer ("the answer is", "정답은"), only what follows the last announcement counts.

    Args:
        text: what a model wrote.
        labels: those to choose from.
        synonyms: label to further ways of saying it; a code such as ``1`` is one too.

    Returns:
        The label, or ``None`` when none or several are affirmed, or one is affirmed and denied.
    """
    plain = _plain(text)
    announced = list(_ANSWER.finditer(plain))
    if announced:
        plain = plain[announced[-1].end() :]
    phrases: dict[str, set[str]] = {}
    for label in labels:
        for phrase in (label, *synonyms.get(label, ())):
            phrases.setdefault(_plain(phrase), set()).add(label)
    phrases.pop("", None)
    whole = plain.strip(" .,!:;\"'*`()[]")
    if whole in phrases:
        return _only(phrases[whole])
    affirmed: set[str] = set()
    denied: set[str] = set()
    for start, end, mentions in _clauses(plain, phrases):
        asked = bool(_QUESTION.match(plain, end))
        for mention in mentions:
            doubted = asked or _is_denied(plain, start, end, mention, mentions)
            (denied if doubted else affirmed).update(mention.labels)
    return None if affirmed & denied else _only(affirmed)


def _plain(text: str) -> str:
    """Lower case, one kind of apostrophe and space, no emphasis marks."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    text = re.sub(r"[*_`\"“”‘]+", "", text)
    return re.sub(r"[ \t\r\f\v]+", " ", text).strip()


def _only(labels: set[str]) -> str | None:
    return next(iter(labels)) if len(labels) == 1 else None


def _clauses(plain: str, phrases: Mapping[str, set[str]]) -> Iterator[tuple[int, int, list[_Mention]]]:
    """Start, end and mentions of every clause; a comma or a conjunction within a phrase does not end one."""
    mentions = _mentions(plain, phrases)
    breaks = [
        found.span()
        for found in _CLAUSE.finditer(plain)
        if not any(mention.start < found.end() and found.start() < mention.end for mention in mentions)
    ]
    starts = [0, *(end for _, end in breaks)]
    ends = [*(start for start, _ in breaks), len(plain)]
    for start, end in zip(starts, ends, strict=True):
        yield start, end, [mention for mention in mentions if start <= mention.start < end]


def _mentions(plain: str, phrases: Mapping[str, set[str]]) -> list[_Mention]:
    """Where labels are named, the longest name first, none within another."""
    found: list[_Mention] = []
    for phrase in sorted(phrases, key=len, reverse=True):
        for match in _pattern(phrase).finditer(plain):
            if not any(match.start() < other.end and other.start < match.end() for other in found):
                found.append(_Mention(*match.span(), frozenset(phrases[phrase])))
    return sorted(found, key=lambda mention: mention.start)


def _pattern(phrase: str) -> re.Pattern[str]:
    """The phrase as a word of its own; Korean words carry their endings, numbers are no part of larger ones."""
    words = r"[\s-]+".join(map(re.escape, re.split(r"[\s-]+", phrase)))
    behind = "" if _HANGUL.match(phrase[-1]) else r"(?!\w)"
    if phrase[-1].isdigit():
        behind = r"(?![\da-z]|[.,]\d|\s?%)"
    return re.compile(rf"(?<![\w])(?<!\d[.,]){words}{behind}")


def _is_denied(plain: str, start: int, end: int, mention: _Mention, mentions: Sequence[_Mention]) -> bool:
    # Labels may hold words of denial themselves ("not AI"), so all mentions are blanked out first.
    clause = plain[start:end]
    for other in mentions:
        clause = clause[: other.start - start] + "_" * (other.end - other.start) + clause[other.end - start :]
    clause = _EMPHASIS.sub(lambda found: " " * len(found[0]), clause)
    following = next((other.start for other in mentions if other.start >= mention.end), end)
    before, after = clause[: mention.start - start], clause[mention.end - start : following - start]
    return bool(_BEFORE.search(before) or _AFTER.search(after) or _AFTER_KOREAN.search(after[:_REACH_KOREAN]))
