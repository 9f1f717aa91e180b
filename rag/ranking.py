"""What searches have in common: words as they are compared, and rankings joined into one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

__all__ = ["fuse_rankings", "normalise_words"]

RANK_OFFSET = 60
"""``k`` of reciprocal-rank fusion, as in the paper."""

Item = TypeVar("Item", bound=Hashable)
_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")
# Letters that are no base letter with a mark.
_PLAIN = str.maketrans("łŁøØđĐßæÆœŒ", "lLoOdDsaAoO")
# Words that say nothing of what is asked; a question is mostly made of them.
_SMALL_WORDS = """
    a an and are as at be been by can could do does did for from had has have how i in is it its me no not of on or
    that the their them there these they this those to was were what when where which who whose why will with would
    you your show shows picture image photo
    ale co czy dla do gdzie go i ich ile jak jaki jaka jakie jest kto ktory ktora ktore lub ma na nie o od oraz po
    pod przez przy sa sie ten ta te to tu tym u w we z za ze zdjeciu
"""
_EMPTY = frozenset(_SMALL_WORDS.split())


def normalise_words(text: str) -> str:
    """A text as words to compare, parted by spaces: no case, no accents, no small words.

    Scripts that are written together or glue endings to words (Korean) become single letters and pairs, so that a
    noun is found whatever particle follows it.
    """
    plain = unicodedata.normalize("NFKD", text.translate(_PLAIN).casefold())
    plain = unicodedata.normalize("NFC", "".join(each for each in plain if not unicodedata.combining(each)))
    words: list[str] = []
    for word in _WORD.findall(plain):
        if _UNSPACED.search(word):
            words += [*word, *(word[at : at + 2] for at in range(len(word) - 1))]
        elif word not in _EMPTY:
            words.append(word)
    return " ".join(words)


def fuse_rankings(rankings: Mapping[str, Sequence[Item]]) -> dict[Item, tuple[float, tuple[str, ...]]]:
    """Several rankings as one, by the sum of 1 / (60 + rank) (reciprocal-rank fusion, Cormack et al. 2009).

    Args:
        rankings: name of a search to what it found, the best first.

    Returns:
        Each item's score and the searches that found it, the best first; equal ones in the order of the rankings.
    """
    scores: dict[Item, float] = {}
    found_by: dict[Item, tuple[str, ...]] = {}
    for name, ranking in rankings.items():
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + 1 / (RANK_OFFSET + rank)
            found_by[item] = (*found_by.get(item, ()), name)
    return {item: (score, found_by[item]) for item, score in sorted(scores.items(), key=lambda one: -one[1])}
