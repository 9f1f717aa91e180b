"""How far to doubt a model's answers: what was measured of its weights, in two files beside them.

``doubt.json`` has the temperature, the threshold and what was found; ``doubt.safetensors`` has the statistics of the
training pictures and what the model said of held-out ones. Both hold for one set of weights, one way of preparing
pictures and one question, and are ignored for any other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError

from models.calibration import HeldOut, expect, expect_together, soften
from models.errors import IncompatibleMethodError, ModelUnavailableError
from models.novelty import Familiar, describe_pictures, read_features
from models.schema import Expectation, LiveModel, Novelty, Prediction, Verdict

__all__ = [
    "FACTS",
    "STATISTICS",
    "Doubt",
    "DoubtFacts",
    "answer",
    "assess",
    "expect_verdict",
    "hash_processor",
    "predict_assessed",
    "read_doubt",
    "write_doubt",
]

FACTS, STATISTICS = "doubt.json", "doubt.safetensors"


class DoubtFacts(BaseModel):
    """The content of ``doubt.json``.

    Attributes:
        schema_version: of this form.
        weights_sha256: the weights it holds for.
        processor_sha256: how pictures were prepared for them; see ``hash_processor``.
        labels: in the order of the logits.
        question: what a vision-language model was asked; empty for others.
        style: its prompt style; empty for others.
        temperature: fitted on ``sets.held``.
        threshold: distance above which a picture counts as unlike the training ones.
        false_alarm: share of ``sets.held`` above it.
        measured_sha256: of the set behind ``held`` logits.
        sets: file, digest and pictures of each set used.
        figures: what was measured; see the model's card.
        command: that made it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(default=1, ge=1, le=1)
    weights_sha256: str
    processor_sha256: str
    labels: tuple[str, ...]
    question: str = ""
    style: str = ""
    temperature: float = Field(gt=0)
    threshold: float = Field(gt=0)
    false_alarm: float = Field(ge=0, le=1)
    measured_sha256: str
    sets: dict[str, dict[str, Any]]
    figures: dict[str, Any]
    command: str


@dataclass(frozen=True)
class Doubt:
    """What was measured of one model.

    Attributes:
        facts: everything but arrays.
        familiar: what its training pictures are like.
        held: what it said of held-out pictures.
    """

    facts: DoubtFacts
    familiar: Familiar
    held: HeldOut

    def fits(self, labels: Sequence[str], question: str = "", style: str = "") -> bool:
        """Whether it holds for answers of these labels to this question."""
        return (tuple(labels), question, style) == (self.facts.labels, self.facts.question, self.facts.style)

    def judge(self, distance: float) -> Novelty:
        """What a distance means."""
        facts = self.facts
        return Novelty(distance, facts.threshold, facts.false_alarm, unfamiliar=distance > facts.threshold)


def answer(logits: Sequence[float], labels: Sequence[str], doubt: Doubt | None) -> dict[str, Any]:
    """The fields of a ``Prediction`` that follow from one picture's raw scores.

    Args:
        logits: (labels,) raw scores.
        labels: in the same order.
        doubt: what was measured of the model; without it probabilities stay as the network means them.
    """
    scores = np.asarray([logits], np.float64)
    own = soften(scores, 1.0)[0]
    fields: dict[str, Any] = {
        "label": labels[int(own.argmax())],
        "probabilities": dict(zip(labels, own.tolist(), strict=True)),
        "logits": dict(zip(labels, scores[0].tolist(), strict=True)),
    }
    if doubt is None:
        return fields
    shares = soften(scores, doubt.facts.temperature)[0]
    return fields | {
        "probabilities": dict(zip(labels, shares.tolist(), strict=True)),
        "raw": fields["probabilities"],
        "temperature": doubt.facts.temperature,
        "expected": expect(doubt.held, doubt.facts.temperature, float(shares.max())),
    }


def assess(live: LiveModel, images: Sequence[Image.Image], predictions: Sequence[Prediction]) -> list[Prediction]:
    """Predictions of a model with how unlike its training pictures each picture is; one more pass of it.

    Args:
        live: the model.
        images: n RGB pictures.
        predictions: what it said of them.

    Returns:
        The same where nothing was measured of the model, or its layers cannot be looked into.
    """
    doubt: Doubt | None = getattr(live, "doubt", None)
    if doubt is None:
        return list(predictions)
    try:
        distances = doubt.familiar.distances(describe_pictures(live, images))
    except IncompatibleMethodError:
        return list(predictions)
    return [
        replace(one, novelty=doubt.judge(float(distance))) for one, distance in zip(predictions, distances, strict=True)
    ]


def predict_assessed(live: LiveModel, images: Sequence[Image.Image]) -> list[Prediction]:
    """What a model says of RGB pictures and how unlike its training pictures each is, both from one pass.

    Returns:
        What ``assess(live, images, live.predict(images))`` gives, apart from the order of floating-point sums.

    Raises:
        ModelUnavailableError: the network answers with numbers that are not finite.
    """
    doubt: Doubt | None = getattr(live, "doubt", None)
    if doubt is None:
        return live.predict(images)
    predictions: list[Prediction] = []
    try:
        for part in live.batches(images):
            inputs = live.prepare(part)
            begin = perf_counter()
            features, outputs = read_features(live, inputs, [image.size for image in part], answering=True)
            said = live.read(outputs, perf_counter() - begin)
            distances = doubt.familiar.distances(features)
            predictions += [
                replace(one, novelty=doubt.judge(float(far))) for one, far in zip(said, distances, strict=True)
            ]
    except IncompatibleMethodError:
        return live.predict(images)
    return predictions


def expect_verdict(verdict: Verdict, doubts: Mapping[str, Doubt | None]) -> Verdict:
    """A verdict with how often these models together are right when they are as sure as here.

    Args:
        verdict: of one or several models.
        doubts: model id to what was measured of it.
    """
    held = {model_id: (one.held, one.facts.temperature) for model_id, one in doubts.items() if one is not None}
    expected: Expectation | None = expect_together(held, verdict.weights, verdict.probabilities[verdict.label])
    return replace(verdict, expected=expected)


def hash_processor(processor: Any) -> str:  # noqa: ANN401 - classes of the transformers library
    """Hex SHA-256 of how a processor prepares pictures: another size or filter makes other features."""
    part = getattr(processor, "image_processor", processor)
    settings = {name: value for name, value in part.to_dict().items() if not name.startswith("_")}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def read_doubt(folder: Path, weights_sha256: str, processor: Any) -> Doubt | None:  # noqa: ANN401 - as above
    """What was measured of the weights in a folder; ``None`` where nothing was, or it was measured of others.

    Args:
        folder: of the model, or of its adapter.
        weights_sha256: of the weights in use.
        processor: what prepares pictures for them.

    Raises:
        ModelUnavailableError: the files are there but cannot be read.
    """
    file = folder / FACTS
    if not file.is_file():
        return None
    try:
        facts = DoubtFacts.model_validate_json(file.read_bytes())
        if (facts.weights_sha256, facts.processor_sha256) != (weights_sha256, hash_processor(processor)):
            return None
        return _read_arrays(folder / STATISTICS, facts)
    except (OSError, ValidationError, SafetensorError, KeyError, ValueError) as error:
        raise ModelUnavailableError(
            f"{file} or {STATISTICS} beside it is damaged", "remove both, or measure again: python -m training doubt"
        ) from error


def _read_arrays(file: Path, facts: DoubtFacts) -> Doubt:
    from safetensors.numpy import load_file

    arrays = load_file(file)
    familiar = Familiar(arrays["mean"].astype(np.float32), arrays["directions"].astype(np.float32))
    logits, truth = arrays["held_logits"].astype(np.float64), arrays["held_truth"].astype(np.intp)
    if logits.shape != (len(truth), len(facts.labels)) or familiar.directions.shape[1:] != familiar.mean.shape:
        raise ValueError("arrays of other shapes")
    return Doubt(facts, familiar, HeldOut(logits, truth, facts.labels, facts.measured_sha256))


def write_doubt(doubt: Doubt, folder: Path) -> None:
    """Write both files beside the weights, the one with the facts last."""
    from safetensors.numpy import save_file

    familiar, held = doubt.familiar, doubt.held
    arrays = {
        "mean": familiar.mean,
        # Half precision turns a distance by less than a thousandth and halves the file.
        "directions": familiar.directions.astype(np.float16),
        "held_logits": held.logits.astype(np.float32),
        "held_truth": held.truth.astype(np.uint8),
    }
    (folder / FACTS).unlink(missing_ok=True)
    save_file({name: np.ascontiguousarray(one) for name, one in arrays.items()}, folder / STATISTICS)
    (folder / STATISTICS).chmod(0o644)  # the library writes it for its owner alone
    text = json.dumps(doubt.facts.model_dump(mode="json"), indent=2)
    (folder / FACTS).write_text(text + "\n", encoding="utf-8")
