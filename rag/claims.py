"""An answer as atomic claims, each with the span of the answer it was read from.

Rules do it offline; an endpoint may split finer (``rag.generator``), and the rules are what it falls back on.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from typing import Any

from models.errors import ExhibitError
from rag.clauses import detect_language, split_clauses
from rag.schema import Claim
from rag.sentences import LIST_MARK, Span, split_sentences

__all__ = ["SPLIT_PROMPT", "split_claims", "split_finer"]

_LOG = logging.getLogger(__name__)
_CITED = re.compile(r"(?:\s*\[\d{1,3}\])+")
_AROUND_START = " \t\r\n\"'“”‘’„«»*_`>(["
_AROUND_END = " \t\r\n\"'“”‘’«»*_`)]"
# What an answer says of itself or of its reader is nothing a picture could support.
_NO_CLAIM = re.compile(
    r"(?:sure|certainly|of course|yes|no|ok(?:ay)?|tak|nie|oczywiście|네|아니요|물론입니다)[.,!]*$"
    r"|(?:i'm sorry|i am sorry|i cannot|i can't|i don't know|as an ai|przykro mi|nie wiem|nie mogę|죄송)"
    r"|(?:let me know|i hope this|please )",
    re.IGNORECASE,
)

SPLIT_PROMPT = (
    "Split the answer below into atomic claims: each states one fact that can be checked by itself, with pronouns "
    "replaced by what they stand for, in the answer's own language. Add nothing. Reply with JSON only: a list of "
    'objects {"claim": "...", "quote": "..."} where `quote` is the exact part of the answer that says it.'
)


def split_claims(answer: str) -> tuple[Claim, ...]:
    """The checkable statements of an answer, in order.

    Questions, courtesies, citations, list marks and lines that only introduce a list are no claims.

    Args:
        answer: in English, Polish or Korean; Markdown lists and ``[1]`` citations are understood.
    """
    claims: list[Claim] = []
    for sentence in split_sentences(answer):
        start, end = _core(answer, sentence)
        core = answer[start:end]
        if not _is_claim(core, answer[end : sentence[1]]):
            continue
        for text, begin, stop in split_clauses(answer, (start, end), detect_language(core)):
            claims.append(Claim(_one_line(text), begin, stop))
    return tuple(claims)


def split_finer(answer: str, ask: Callable[[str], str]) -> tuple[Claim, ...]:
    """Claims as a language model splits them; as the rules do where it fails or makes something up.

    Args:
        answer: the text.
        ask: a prompt to a language model's whole reply.
    """
    try:
        return _parse_claims(answer, ask(f"{SPLIT_PROMPT}\n\n{answer}"))
    except (ExhibitError, ValueError) as error:
        _LOG.info("Split by rules: %s", error)
        return split_claims(answer)


def _parse_claims(answer: str, reply: str) -> tuple[Claim, ...]:
    found = re.search(r"\[.*\]", reply, re.DOTALL)
    if found is None:
        raise ValueError("the reply holds no list of claims")
    entries: Any = json.loads(found.group())
    claims = []
    for entry in entries:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("claim", "quote")):
            raise ValueError("a claim of the reply lacks its words or its quote")
        start = answer.find(entry["quote"]) if entry["quote"].strip() else -1
        if start < 0:
            raise ValueError("the reply quotes what the answer does not say")
        claims.append(Claim(_one_line(entry["claim"]), start, start + len(entry["quote"])))
    if not claims:
        raise ValueError("the reply holds no claim")
    return tuple(sorted(claims, key=lambda one: (one.start, one.end)))


def _core(answer: str, sentence: Span) -> Span:
    """The sentence without its list mark, its citations and the quotes or emphasis around it."""
    start, end = sentence
    mark = LIST_MARK.match(answer, start, end)
    start = mark.end() if mark else start
    cited = list(_CITED.finditer(answer, start, end))
    if cited and cited[-1].end() == end:
        end = cited[-1].start()
    while start < end and answer[start] in _AROUND_START:
        start += 1
    while end > start and answer[end - 1] in _AROUND_END:
        end -= 1
    return start, end


def _is_claim(core: str, behind: str) -> bool:
    if not re.search(r"[^\W\d_]", core) or core.endswith((":", "?", "？")) or behind.startswith("?"):
        return False
    return _NO_CLAIM.match(core) is None


def _one_line(text: str) -> str:
    """Without line breaks, and without emphasis that began or ended inside."""
    return " ".join(re.sub(r"\*\*|__|`", "", text).split())
