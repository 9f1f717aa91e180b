"""Retrieved text as data: quoted where it cannot be taken for a turn, a token or an order.

What stands in a document may have been written to steer whoever reads it. Three things are done before a model sees
it: no bracket that could close the quotation or make a special token is left, each passage is one line, and sentences
that give a model orders are taken out. None of them is a proof against a model that obeys what it quotes, which is why
claims are checked against the picture afterwards, where no text has a say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag.schema import Evidence
from rag.sentences import split_sentences

__all__ = ["LEFT_OUT", "is_order", "neutralise", "quote_evidence", "sentences_of"]

LEFT_OUT = "(…)"
"""Stands where a sentence was taken out."""

_BRACKETS = str.maketrans({"<": "‹", ">": "›", "`": "'"})
# [INST] and the like are plain text to a person and a turn to some models; {{ }} and {% %} are templates.
_MARKS = re.compile(r"\[/?[A-Z_]{3,}\]|\{[{%#]|[}%#]\}")
_ORDERS = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b.{0,60}\b(?:instruction|prompt|rule|above|previous|prior|earlier)"
    r"|^\W*(?:system|assistant|developer|user|instruction)s?\s*:"
    r"|\byou\s+(?:must|shall|should|will|are\s+now|have\s+to)\b.{0,40}"
    r"\b(?:answer|say|reply|respond|write|output|print|pretend|obey|an?\s)"
    r"|^\W*(?:please\s+|now\s+|instead\s*,?\s+)?(?:answer|reply|respond|output|print|say|pretend|act|repeat)\b"
    r"|\b(?:do\s+not|don't|never)\s+(?:answer|mention|reveal|tell|follow|quote|cite)\b"
    r"|\b(?:zignoruj|ignoruj|pomiń|zapomnij)\b.{0,60}(?:instrukcj|polece|powyżs|poprzedn|wcześniejs)"
    r"|^\W*(?:teraz\s+)?(?:odpowiedz|napisz|powiedz|wypisz)\b"
    r"|(?:지시|명령|프롬프트|위\s*내용).{0,20}(?:무시|잊)"
    r"|(?:대답|답변|답|출력|말)(?:해라|하라|하세요|하십시오|해\s*주세요)",
    re.IGNORECASE,
)


def is_order(sentence: str) -> bool:
    """Whether a sentence tells a model what to do, as documents that are only documents do not."""
    return _ORDERS.search(neutralise(sentence)) is not None


def neutralise(text: str) -> str:
    """A text in one line, without what models or templates take for marks."""
    return " ".join(_MARKS.sub(" ", text.translate(_BRACKETS)).split())


def sentences_of(text: str) -> list[str]:
    """The sentences of a passage that may be quoted: orders are left out; each line of captions by itself."""
    found = [line[start:end] for line in text.split("\n") for start, end in split_sentences(line)]
    return [sentence for sentence in found if not is_order(sentence)]


def quote_evidence(evidence: Sequence[Evidence], most_characters: int) -> str:
    """Evidence as a model is shown it: numbered from 1, a line each, between marks that no text can forge.

    Args:
        evidence: in the order in which it is cited.
        most_characters: of all passages; what goes beyond is left out, the last first.
    """
    lines: list[str] = []
    room = most_characters
    for number, one in enumerate(evidence, 1):
        where = one.chunk.source.id + (f", page {one.chunk.page}" if one.chunk.page else "")
        passage = neutralise(_without_orders(one.chunk.text)) or "(a picture without words)"
        line = f"[{number}] {neutralise(where)}: {passage}"
        if len(line) > room:
            break
        room -= len(line)
        lines.append(line)
    return "<evidence>\n" + "\n".join(lines) + "\n</evidence>"


def _without_orders(text: str) -> str:
    kept = []
    for start, end in split_sentences(text):
        kept.append(LEFT_OUT if is_order(text[start:end]) else text[start:end])
    return " ".join(kept)
