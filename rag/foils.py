"""Hard foils: what a claim would say if one word of it were another, so that its score has something to beat.

A cosine by itself says little: "a dog runs" scores well on a picture of a cat that runs. Sentences that differ in one
object, attribute, action, number or relation are what image-text models confuse most (Yuksekgonul et al. 2023,
arXiv:2210.01936), and the margin over them is what a claim's own words add. English only, as the models read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random

import yaml

__all__ = [
    "KINDS",
    "QUOTED",
    "FoilText",
    "FoilWords",
    "content_words",
    "is_english",
    "load_words",
    "make_foils",
    "stated_number",
]

KINDS = ("object", "attribute", "action", "number", "relation")
_DATA = Path(__file__).with_name("foil_words.yaml")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
QUOTED = re.compile(r"“[^”]*”|\"[^\"]*\"|„[^”]*”|「[^」]*」")
"""What stands between quotation marks, and the marks."""
_FOREIGN = re.compile(r"[ąćęłńóśźżĄĆĘŁŃÓŚŹŻ]|[^\W\d_a-zA-Z\u00c0-\u024f]")


@dataclass(frozen=True)
class FoilText:
    """A claim with one word swapped.

    Attributes:
        text: the changed claim.
        kind: one of ``KINDS``.
        removed: the word that stood in the claim.
        put: the word that stands there now.
    """

    text: str
    kind: str
    removed: str
    put: str


@dataclass(frozen=True)
class FoilWords:
    """The word lists, ready to look up.

    Attributes:
        swaps: a form of a word in lower case to its kind and the same form of the words it may become.
        stopwords: words that no picture shows.
        pattern: finds every form, the longest first.
        called: a detector's class to what people call it besides its own name.
    """

    swaps: Mapping[str, tuple[str, tuple[str, ...]]]
    stopwords: frozenset[str]
    pattern: re.Pattern[str]
    called: Mapping[str, tuple[str, ...]]


@lru_cache(maxsize=4)
def load_words(file: Path = _DATA) -> FoilWords:
    """The word lists of a YAML file: for each of ``KINDS`` groups of words, and ``stopwords``."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    swaps: dict[str, tuple[str, tuple[str, ...]]] = {}
    for kind in KINDS:
        for group in content.get(kind, ()):
            forms = [word.split("|") for word in group]
            for own in forms:
                for place, form in enumerate(own):
                    others = tuple(other[min(place, len(other) - 1)] for other in forms if other is not own)
                    swaps.setdefault(form.lower(), (kind, others))
    longest_first = sorted(swaps, key=lambda form: (-len(form), form))
    pattern = re.compile(r"(?<![\w-])(?:" + "|".join(map(re.escape, longest_first)) + r")(?![\w-])", re.IGNORECASE)
    called = {name: tuple(others.split()) for name, others in content.get("called", {}).items()}
    return FoilWords(swaps, frozenset(content["stopwords"].split()), pattern, called)


def make_foils(claim: str, *, most: int = 8, words: FoilWords | None = None) -> tuple[FoilText, ...]:
    """Claims that differ from this one in one word, spread evenly over the words that can be swapped.

    Args:
        claim: an English sentence; what stands in quotation marks is left as it is.
        most: foils at most.
        words: the word lists; those of Exhibit when not given.

    Returns:
        The same foils for the same claim every time; none if no word of it is in the lists.
    """
    lists = words or load_words()
    queues = []
    for match in _swappable(claim, lists):
        kind, others = lists.swaps[match[0].lower()]
        shuffled = list(others)
        Random(f"{claim} {match.start()}").shuffle(shuffled)  # noqa: S311 - picks words, guards nothing
        queues.append([_swap(claim, match, kind, other) for other in shuffled])
    rounds = max(map(len, queues), default=0)
    in_turn = [queue[turn] for turn in range(rounds) for queue in queues if turn < len(queue)]
    return tuple(in_turn[:most])


def content_words(claim: str, *, most: int = 8, words: FoilWords | None = None) -> tuple[str, ...]:
    """The words of a claim that a picture could show, each once, in lower case and in order; quotations left out."""
    stopwords = (words or load_words()).stopwords
    found = (match[0].lower() for match in _WORD.finditer(QUOTED.sub(" ", claim)))
    return tuple(dict.fromkeys(word for word in found if len(word) > 2 and word not in stopwords))[:most]


def is_english(claim: str) -> bool:
    """Whether nothing outside quotation marks is written with letters that English does not have.

    Polish without diacritics passes: the test keeps out what is plainly unreadable to an English model.
    """
    return not _FOREIGN.search(QUOTED.sub(" ", claim))


def stated_number(claim: str, noun_forms: Sequence[str], *, words: FoilWords | None = None) -> int | None:
    """How many of a thing a claim states: "two brown dogs", "a dog", "3 dogs"; None where it leaves it open.

    Args:
        claim: an English sentence.
        noun_forms: the forms of the thing's name, such as ``("dog", "dogs")``.
        words: the word lists; those of Exhibit when not given.
    """
    lists = words or load_words()
    numbers = ("zero", "one", *_numbers(lists))
    counted = "|".join([*numbers, "an?", r"\d{1,2}"])
    names = "|".join(sorted(map(re.escape, noun_forms), key=len, reverse=True))
    # At most two words between, and none that is counted itself: "two large brown dogs", not "two men with dogs".
    for match in re.finditer(rf"\b({counted})\s+((?:[a-z-]+\s+){{0,2}}?)(?:{names})\b", claim, re.IGNORECASE):
        between = match[2].lower().split()
        if any(word in lists.stopwords or lists.swaps.get(word, ("",))[0] in ("object", "action") for word in between):
            continue
        said = match[1].lower()
        if said.isdigit():
            return int(said)
        return 1 if said in ("a", "an") else numbers.index(said)
    return None


def _numbers(words: FoilWords) -> tuple[str, ...]:
    kind, others = words.swaps.get("two", ("", ()))
    return ("two", *others) if kind == "number" else ("two",)


def _swappable(claim: str, words: FoilWords) -> Iterator[re.Match[str]]:
    quoted = [match.span() for match in QUOTED.finditer(claim)]
    for match in words.pattern.finditer(claim):
        if not any(start <= match.start() < end for start, end in quoted):
            yield match


def _swap(claim: str, match: re.Match[str], kind: str, other: str) -> FoilText:
    removed = match[0]
    put = other[0].upper() + other[1:] if removed[0].isupper() else other
    before, after = claim[: match.start()], claim[match.end() :]
    article = "an" if put[0].lower() in "aeiou" else "a"
    before = re.sub(r"\b([Aa])n?(\s+)$", lambda found: found[1] + article[1:] + found[2], before)
    return FoilText(before + put + after, kind, removed, put)
