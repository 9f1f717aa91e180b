"""What is asked of one image, and everything found out about it so far: the values of ``explain.examination``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from explain.catalog import DEFAULT_METHODS
from explain.difference import DifferenceMap
from explain.faithfulness_sanity import RandomisationCheck
from explain.faithfulness_schema import MapFaithfulness
from explain.schema import Heatmap, WordAttribution
from explain.stability import Stability
from models.credentials import Credentials
from models.families.base import Stage
from models.imaging import SourceImage
from models.schema import Detections, Precision, Prediction, Verdict

if TYPE_CHECKING:
    from rag.schema import ClaimVerdict

__all__ = ["DEFAULT_DETECTOR", "Asked", "CheckedClaims", "Examination", "Problem", "Settings"]

DEFAULT_DETECTOR = "bundled-yolov8n"


@dataclass(frozen=True)
class Settings:
    """What to examine and how; written into the manifest.

    Attributes:
        task: the question, e.g. ``deepfake``.
        models: zoo ids, in the order shown; ``ID@base`` is the base model of a vision-language entry, asked the same.
        methods: catalog names of the heatmap methods; may be empty.
        target: label that every map explains; ``None`` explains each model's own answer.
        detector: zoo id, or ``None`` for no detection.
        question: what vision-language models are asked; ``None`` asks each its own question.
        style: prompt style of the question; ``None`` is each model's own.
        precision: how weights of vision-language models are kept; ``None`` is as the zoo says.
        layer: where vision-language models are looked into; ``None`` is the vision tower.
        compare_base: examine also each vision-language model without its adapter, as ``ID@base``.
    """

    task: str
    models: tuple[str, ...]
    methods: tuple[str, ...] = DEFAULT_METHODS
    target: str | None = None
    detector: str | None = DEFAULT_DETECTOR
    question: str | None = None
    style: str | None = None
    precision: Precision | None = None
    layer: Stage | None = None
    compare_base: bool = False


@dataclass(frozen=True)
class Problem:
    """Something that could not be done, while the rest went on.

    Attributes:
        subject: model id, or model id and method.
        message: one line with the reason and the remedy.
    """

    subject: str
    message: str


@dataclass(frozen=True)
class Asked:
    """How a vision-language model was asked.

    Attributes:
        model_id: zoo id, or ``ID@base``.
        question: before the style was applied; the prediction has the whole.
        style: prompt style.
        precision: how its weights were kept, never ``auto``.
        adapter_sha256: hex SHA-256 of the adapter that took part; empty without one.
    """

    model_id: str
    question: str
    style: str
    precision: str
    adapter_sha256: str


@dataclass(frozen=True)
class CheckedClaims:
    """Statements that were held against the picture.

    Attributes:
        model_id: the image-text model's zoo id.
        weights_sha256: of its weights.
        domain: kind of picture that the verifier was calibrated for.
        text: the claims, a line each; what the verdicts' spans are of.
        verdicts: one for each claim, in their order.
        note: why nothing is settled, where that is so.
    """

    model_id: str
    weights_sha256: str
    domain: str
    text: str
    verdicts: tuple[ClaimVerdict, ...]
    note: str = ""


@dataclass(frozen=True)
class Examination:
    """Everything found out about one image so far.

    Attributes:
        source: the image.
        settings: what was asked.
        predictions: one per model that answered, in the settings' order.
        verdict: what they say together; ``None`` while no model has answered.
        base_predictions: what base models say, for comparison; they have no part in the verdict.
        heatmaps: model by model, in the settings' order of methods; a base model's come after its fine-tuned one's.
        differences: fine-tuned minus base, where both have a map.
        words: what the words of the question did, for models that read one.
        asked: how those models were asked.
        detections: objects found; ``None`` when not asked for, not done yet, or not possible.
        faithfulness: how far to believe the maps, in the order of ``heatmaps``; empty until ``measure_faithfulness``.
        stability: what small changes of the picture do to each model's answer and maps; empty until measured.
        checks: maps held against those of random weights; empty until asked for.
        credentials: what the picture's content credentials (C2PA) say; ``None`` where it carries none.
        claims: statements held against the picture; ``None`` until asked for.
        problems: what could not be done.
        timings_s: seconds by step (``load:ID``, ``explain:ID``, ``detect``).
        created_utc: ISO 8601 time of the start.
        stage: what is being done now, in words.
        done: part of the work done, in [0, 1].
    """

    source: SourceImage
    settings: Settings
    predictions: tuple[Prediction, ...] = ()
    verdict: Verdict | None = None
    base_predictions: tuple[Prediction, ...] = ()
    heatmaps: tuple[Heatmap, ...] = ()
    differences: tuple[DifferenceMap, ...] = ()
    words: tuple[WordAttribution, ...] = ()
    asked: tuple[Asked, ...] = ()
    detections: Detections | None = None
    faithfulness: tuple[MapFaithfulness, ...] = ()
    stability: tuple[Stability, ...] = ()
    checks: tuple[RandomisationCheck, ...] = ()
    credentials: Credentials | None = None
    claims: CheckedClaims | None = None
    problems: tuple[Problem, ...] = ()
    timings_s: dict[str, float] = field(default_factory=dict)
    created_utc: str = ""
    stage: str = ""
    done: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.done >= 1.0

    def heatmap(self, model_id: str, method: str) -> Heatmap | None:
        """The map of one model by one method, or ``None`` when there is none."""
        return next((h for h in self.heatmaps if (h.model_id, h.method) == (model_id, method)), None)

    def difference(self, model_id: str, method: str) -> DifferenceMap | None:
        """What fine-tuning changed in the map of one model by one method, or ``None`` when that is not known."""
        wanted = (model_id, method)
        return next((d for d in self.differences if (d.tuned.model_id, d.tuned.method) == wanted), None)

    def save(self, directory: Path, *, include_original: bool = True) -> Path:
        """Write the evidence bundle; see ``explain.bundle.write_bundle``."""
        from explain.bundle import write_bundle

        return write_bundle(self, directory, include_original=include_original)
