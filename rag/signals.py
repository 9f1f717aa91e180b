"""The signals about one claim, each a number with a meaning of its own; what they are worth is fusion's business.

A signal that cannot be measured is absent, never 0: no detector, no object that it knows, no word that can be swapped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from models.schema import Box
from rag.foils import FoilText, content_words, load_words, make_foils, stated_number
from rag.looks import Look
from rag.reading import NOT_FOUND, Found, named_language, quotes_of
from rag.schema import Foil

__all__ = ["SIGNALS", "ClaimTexts", "Signals", "claim_texts", "measure_signals", "object_forms"]

SIGNALS: Mapping[str, str] = MappingProxyType(
    {
        "whole": "cosine of the picture and the claim",
        "strangers": "the same, less what picture and claim have with captions and pictures of others",
        "words": "mean cosine of the claim's words, each with the region that fits it best",
        "weakest_word": "the least of these cosines",
        "region": "cosine of the claim and the region that fits it best",
        "foils": "cosine of the picture and the claim, less that of the best foil",
        "foils_mean": "the same, less the mean of all foils",
        "region_foils": "best region's cosine with the claim, less the best that any region has with any foil",
        "detector": "confidence of the least certain object that the claim names and the detector knows",
        "count": "how far the detector's count is from the stated number, negative",
        "vqa": "log-odds of yes by a vision-language model asked whether the figure shows the claim",
        "quotes": "share of the claim's quotation that stands in the text read in the picture",
        "language": "log-odds that this text is in the language that the claim names",
        "captions": "cosine of the claim and the retrieved caption nearest to it",
        "probe": "log-odds of the head trained for this kind of picture",
    }
)
"""Name of every signal to what it measures."""


@dataclass(frozen=True)
class ClaimTexts:
    """The texts that a claim is checked with.

    Attributes:
        claim: the claim itself.
        words: its content words.
        foils: the claim with one word swapped.
    """

    claim: str
    words: tuple[str, ...]
    foils: tuple[FoilText, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Claim, words and foils in one row, as they are embedded."""
        return (self.claim, *self.words, *(foil.text for foil in self.foils))


@dataclass(frozen=True)
class Signals:
    """What was measured of one claim.

    Attributes:
        values: name to value, of ``SIGNALS``; absent where it could not be measured.
        region_xyxy: the region whose vector fits the claim best.
        foils: counter-claims with their cosine, the best fitting first.
        words: content words with the best cosine that any region has with them.
        read: the text that stands in the picture where a quotation of the claim would; empty where none was sought.
    """

    values: Mapping[str, float]
    region_xyxy: Box | None = None
    foils: tuple[Foil, ...] = ()
    words: Mapping[str, float] = field(default_factory=dict)
    read: str = ""


def claim_texts(claim: str) -> ClaimTexts:
    """The texts that a claim is checked with; white space at its ends is dropped."""
    text = claim.strip()
    return ClaimTexts(text, content_words(text), make_foils(text))


def measure_signals(look: Look, texts: ClaimTexts, vectors: NDArray[np.float32]) -> Signals:
    """Every signal that needs nothing but vectors and detections.

    Args:
        look: the picture.
        texts: of the claim.
        vectors: float32 (n, d), the vectors of ``texts.all`` in that order, of length 1.
    """
    whole = vectors @ look.whole
    best = np.vstack([whole, look.regions @ vectors.T]).max(0)
    words = slice(1, 1 + len(texts.words))
    foils = slice(1 + len(texts.words), None)
    values = {"whole": float(whole[0])}
    region = None
    if len(look.boxes):
        own = look.regions @ vectors[0]
        values["region"] = float(own.max())
        region = look.boxes[int(own.argmax())]
    if texts.words:
        values |= {"words": float(best[words].mean()), "weakest_word": float(best[words].min())}
    if texts.foils:
        values["foils"] = float(whole[0] - whole[foils].max())
        values["foils_mean"] = float(whole[0] - whole[foils].mean())
        values["region_foils"] = float(best[0] - best[foils].max())
    values |= _detected(look, texts.claim)
    written, line = _read(look, texts.claim)
    values |= written
    ranked = sorted(zip(texts.foils, whole[foils].tolist(), strict=True), key=lambda pair: -pair[1])
    return Signals(
        values,
        line.box_xyxy or region,
        tuple(Foil(foil.text, float(score)) for foil, score in ranked),
        dict(zip(texts.words, best[words].tolist(), strict=True)),
        line.text,
    )


def object_forms(name: str) -> tuple[str, ...]:
    """What a class of the detector may be called in a sentence: its name, the plural, and what people say instead."""
    plural = (
        name[:-1] + "ies" if name.endswith("y") else name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")
    )
    return (name, plural, *load_words().called.get(name, ()))


def _detected(look: Look, claim: str) -> dict[str, float]:
    """Presence and count of the objects that the claim names, by the detector."""
    if look.detections is None or not look.names:
        return {}
    lowered = f" {' '.join(_letters(claim))} "
    present: list[float] = []
    astray: list[int] = []
    for name in look.names:
        forms = object_forms(name)
        if not any(f" {form} " in lowered for form in forms):
            continue
        found = [
            float(confidence)
            for label, confidence in zip(look.detections.labels, look.detections.confidence, strict=True)
            if label == name
        ]
        present.append(max(found, default=0.0))
        number = stated_number(claim, forms)
        if number is not None and number > 1:  # "a dog" is said of pictures with several, too
            astray.append(abs(number - len(found)))
    values = {"detector": min(present)} if present else {}
    return values | ({"count": -float(max(astray))} if astray else {})


def _read(look: Look, claim: str) -> tuple[dict[str, float], Found]:
    """How well the text in the picture fits a claim about it, and where the quotation that fits worst would stand."""
    if look.reading is None:
        return {}, NOT_FOUND
    values: dict[str, float] = {}
    found = min((look.reading.find(quote) for quote in quotes_of(claim)), key=lambda one: one.share, default=None)
    if found is not None:
        values["quotes"] = found.share
    language = named_language(claim)
    odds = look.reading.language_odds(language) if language else None
    return values | ({} if odds is None else {"language": odds}), found or NOT_FOUND


def _letters(text: str) -> Sequence[str]:
    return "".join(letter.lower() if letter.isalnum() or letter == "-" else " " for letter in text).split()
