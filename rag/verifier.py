"""Claims against a picture: supported, refuted, or not settled, with the region and the signals that made it so.

A whole-sentence cosine hardly tells a true caption from one with a word swapped (F-CLIPScore, arXiv:2502.20034). The
verifier therefore measures several signals in one batch of pictures and one batch of texts, and weighs them by a model
that was calibrated on claims of known truth for this very image-text model. Without such a calibration it shows the
signals and settles nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from models.clip import ImageTextModel
from models.detector import Detector
from models.errors import ExhibitError
from models.schema import Detections
from rag.foils import is_english
from rag.fusion import Fusion, find_fusion
from rag.looks import Look, look_at
from rag.probe import Probe, load_probe, place_features
from rag.reading import TextReader, asks_to_read, find_reader
from rag.schema import Claim, ClaimVerdict, Evidence
from rag.signals import SIGNALS, ClaimTexts, Signals, claim_texts, measure_signals
from rag.strangers import Strangers, load_strangers

if TYPE_CHECKING:
    from models.loading import ModelLoader
    from models.vlm import VisionLanguageModel
    from rag.embedding import TextEncoder

__all__ = ["DOMAINS", "SignalShare", "Verifier", "explain", "load_verifier"]

DOMAINS = ("photographs", "casework")
"""Kinds of pictures that calibrations are kept for: photographs, and the generated scenes of drug cases."""

VQA_QUESTION = "Does this figure show '{claim}'?"
"""As VQAScore asks (Lin et al. 2024, arXiv:2404.01291)."""

_VQA_ANSWERS = {"Yes": "yes", "No": "no"}
_UNSETTLED = 0.5
_Model = TypeVar("_Model")


@dataclass(frozen=True)
class SignalShare:
    """One signal's part in a verdict.

    Attributes:
        name: of ``rag.signals.SIGNALS``.
        value: what was measured.
        contribution: what it added to the log-odds of the support, 0 where the calibration does not know the signal.
        meaning: what the value is.
    """

    name: str
    value: float
    contribution: float
    meaning: str


class Verifier:
    """Checks claims against pictures with one image-text model and whatever else is at hand.

    Args:
        clip: the image-text model.
        fusion: its calibration; None settles nothing.
        probe: the head of the calibration's kind of pictures.
        strangers: vectors beside which a cosine is seen.
        detector: for presence and counts of the objects it knows.
        reader: reads the text in a picture where a claim speaks of it.
        vlm: asked whether the picture shows each claim; costs a pass of it per few claims.
        sentences: for the agreement of claims with retrieved captions.
        note: why there is no calibration.
    """

    def __init__(
        self,
        clip: ImageTextModel,
        fusion: Fusion | None = None,
        *,
        probe: Probe | None = None,
        strangers: Strangers | None = None,
        detector: Detector | None = None,
        reader: TextReader | None = None,
        vlm: VisionLanguageModel | None = None,
        sentences: TextEncoder | None = None,
        note: str = "",
    ) -> None:
        self.clip, self.fusion, self.probe, self.detector, self.reader = clip, fusion, probe, detector, reader
        self.strangers, self.vlm, self.sentences, self.note = strangers, vlm, sentences, note

    def verify(
        self,
        image: Image.Image,
        claims: Sequence[Claim],
        *,
        evidence: Sequence[Evidence] = (),
        detections: Detections | None = None,
    ) -> list[ClaimVerdict]:
        """What the picture says of each claim, in their order.

        Args:
            image: RGB.
            claims: of one answer. One that is not in English is not settled: the models here read English only.
            evidence: retrieved chunks; the captions among them are one of the signals.
            detections: of this picture, where somebody has them already.

        Raises:
            ModelUnavailableError: a model answers with numbers that are not finite.
        """
        readable = [place for place, claim in enumerate(claims) if is_english(claim.text)]
        measured: dict[int, Signals] = {}
        if readable:
            texts = [claims[place].text for place in readable]
            look = self.look(image, texts, detections=detections)
            measured = dict(
                zip(readable, self.measure(look, texts, image=image, captions=_captions(evidence)), strict=True)
            )
        return [self._judge(claim, measured.get(place), evidence) for place, claim in enumerate(claims)]

    def look(self, image: Image.Image, claims: Sequence[str], *, detections: Detections | None = None) -> Look:
        """A picture's vectors and detections, and its text where one of the claims speaks of it.

        Args:
            image: RGB.
            claims: what is going to be asked.
            detections: of this picture, where somebody has them already.

        Raises:
            ModelUnavailableError: a model answers with numbers that are not finite.
        """
        look = look_at(image, self.clip, self.detector, detections=detections)
        if self.reader is None or not asks_to_read(claims):
            return look
        return replace(look, reading=self.reader.read(image))

    def measure(
        self,
        look: Look,
        claims: Sequence[str],
        *,
        image: Image.Image | None = None,
        captions: Sequence[str] = (),
    ) -> list[Signals]:
        """Every signal that can be had about claims, before they are weighed.

        Args:
            look: a picture's vectors and detections.
            claims: in English.
            image: the picture in RGB, for the vision-language model; without it none is asked.
            captions: of similar pictures.
        """
        prepared = [claim_texts(claim) for claim in claims]
        found = [measure_signals(look, texts, vectors) for texts, vectors in self._embedded(prepared)]
        further: list[dict[str, float]] = [{} for _ in claims]
        asked = {
            "strangers": self._compare(look, [texts.claim for texts in prepared]),
            "vqa": self._ask(image, claims),
            "captions": self._agree(claims, captions),
        }
        for name, values in asked.items():
            for own, value in zip(further, values, strict=False):
                own[name] = value
        found = [replace(one, values={**one.values, **more}) for one, more in zip(found, further, strict=True)]
        return self._probed(look, claims, found)

    def _embedded(self, prepared: Sequence[ClaimTexts]) -> Iterator[tuple[ClaimTexts, np.ndarray]]:
        """Each claim's texts with their vectors, from one batch of all texts."""
        every = [text for texts in prepared for text in texts.all]
        vectors = self.clip.embed_texts(every)
        start = 0
        for texts in prepared:
            yield texts, vectors[start : start + len(texts.all)]
            start += len(texts.all)

    def _compare(self, look: Look, claims: Sequence[str]) -> list[float]:
        if self.strangers is None:
            return []
        beside: list[float] = self.strangers.beside(look.whole, self.clip.embed_texts(claims)).tolist()
        return beside

    def _ask(self, image: Image.Image | None, claims: Sequence[str]) -> list[float]:
        if self.vlm is None or image is None:
            return []
        view = self.vlm.asking(answers=_VQA_ANSWERS)
        answers = view.ask(image, [VQA_QUESTION.format(claim=claim.rstrip(".")) for claim in claims])
        return [answer.logits["yes"] - answer.logits["no"] for answer in answers]

    def _agree(self, claims: Sequence[str], captions: Sequence[str]) -> list[float]:
        if self.sentences is None or not captions:
            return []
        vectors = self.sentences.embed([*claims, *captions])
        nearest: list[float] = (vectors[: len(claims)] @ vectors[len(claims) :].T).max(1).tolist()
        return nearest

    def _probed(self, look: Look, claims: Sequence[str], found: Sequence[Signals]) -> list[Signals]:
        if self.probe is None:
            return list(found)
        odds, attention = self.probe.read(
            look.whole, look.regions, place_features(look.boxes, look.size_wh), self.clip.embed_texts(claims)
        )
        return [
            replace(
                one,
                values={**one.values, "probe": float(odd)},
                # A quotation rests on the line that was read, whatever the head looks at.
                region_xyxy=one.region_xyxy if "quotes" in one.values else look.boxes[int(row.argmax())],
            )
            for one, odd, row in zip(found, odds, attention, strict=True)
        ]

    def _judge(self, claim: Claim, signals: Signals | None, evidence: Sequence[Evidence]) -> ClaimVerdict:
        if signals is None:
            return ClaimVerdict(claim, "not_enough_evidence", _UNSETTLED, evidence=tuple(evidence))
        shown = {
            "signals": signals.values,
            "region_xyxy": signals.region_xyxy,
            "foils": signals.foils,
            "read": signals.read,
            "evidence": tuple(evidence),
        }
        if self.fusion is None:
            return ClaimVerdict(claim, "not_enough_evidence", _UNSETTLED, **shown)  # type: ignore[arg-type]
        support = self.fusion.support(signals.values)
        return ClaimVerdict(
            claim,
            self.fusion.verdict(support),
            support,
            contributions=self.fusion.contributions(signals.values),
            doubts=self.fusion.doubts(signals.values),
            thresholds=(self.fusion.refuted_below, self.fusion.supported_from),
            **shown,  # type: ignore[arg-type]
        )


def explain(verdict: ClaimVerdict) -> tuple[SignalShare, ...]:
    """What each measured signal added to the log-odds of a verdict, the strongest first (``Fusion.contributions``)."""
    shares = [
        SignalShare(name, value, verdict.contributions.get(name, 0.0), SIGNALS.get(name, name))
        for name, value in verdict.signals.items()
    ]
    return tuple(sorted(shares, key=lambda share: -abs(share.contribution)))


def load_verifier(
    loader: ModelLoader,
    *,
    clip: str = "bundled-openclip",
    detector: str | None = "bundled-yolov8n",
    vlm: str | None = None,
    sentences: TextEncoder | None = None,
    domain: str = "photographs",
) -> Verifier:
    """A verifier with the calibration that belongs to its image-text model.

    Args:
        loader: where models come from.
        clip: zoo id of the image-text model.
        detector: zoo id of the detector; None to do without.
        vlm: zoo id of a vision-language model to ask as well; None or empty to do without.
        sentences: a loaded sentence encoder, for retrieved captions.
        domain: one of ``DOMAINS``, the kind of pictures.

    Raises:
        ExhibitError: there is no such domain, an id is of another kind of model, or a model cannot be had.
    """
    if domain not in DOMAINS:
        raise ExhibitError(f"no calibration is called {domain!r}; known are: {', '.join(DOMAINS)}")
    live = _load(loader, clip, "clip", "image-text model", ImageTextModel)
    finder = _load(loader, detector, "detector", "detector", Detector) if detector else None
    asked = _load_vlm(loader, vlm) if vlm else None
    notes = [f"{one.spec.id}: {one.status.reason}" for one in (live, asked) if one is not None and one.status.reason]
    given: dict[str, Any] = {"detector": finder, "vlm": asked, "sentences": sentences}
    found = find_fusion(live.status.weights_sha256, domain)
    if found is None:
        notes.append(f"{clip} has no calibration for {domain}: signals are shown, nothing is settled")
        return Verifier(live, note="; ".join(notes), **given)
    fusion, file = found
    if asked is not None and "vqa" not in fusion.signals:
        notes.append(f"the calibration for {domain} gives no weight to what {vlm} answers: it is shown, not counted")
    if {"quotes", "language"} & set(fusion.signals):
        given["reader"], missing = find_reader()
        notes += [missing] if missing else []
    probe = load_probe(file.with_name(fusion.probe)) if fusion.probe else None
    strangers = load_strangers(file.with_name(fusion.strangers)) if fusion.strangers else None
    return Verifier(live, fusion, probe=probe, strangers=strangers, note="; ".join(notes), **given)


def _load_vlm(loader: ModelLoader, model_id: str) -> VisionLanguageModel:
    from models.vlm import VisionLanguageModel

    return _load(loader, model_id, "vlm", "vision-language model", VisionLanguageModel)


def _load(loader: ModelLoader, model_id: str, kind: str, called: str, expected: type[_Model]) -> _Model:
    """A live model of one kind; an entry of another is refused before anything of it is fetched."""
    live = loader.load(model_id) if loader.zoo.get(model_id.partition("@")[0]).kind == kind else None
    if not isinstance(live, expected):
        raise ExhibitError(f"{model_id} is no {called}; choose one of kind {kind}")
    return live


def _captions(evidence: Sequence[Evidence]) -> list[str]:
    """What stands beside retrieved pictures, a line each."""
    texts: Mapping[str, None] = dict.fromkeys(
        line.strip()
        for one in evidence
        if one.chunk.source.kind == "image"
        for line in one.chunk.text.splitlines()
        if line.strip()
    )
    return list(texts)
