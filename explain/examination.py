"""One image, the whole story: predict, explain, detect, and keep it together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from explain.attribution import attribute_label
from explain.cam import Explanation, MapProblem
from explain.catalog import DEFAULT_METHODS, get_method
from explain.difference import DifferenceMap
from explain.faithfulness import FaithfulnessMeter
from explain.faithfulness_probe import fixed_target
from explain.faithfulness_sanity import RandomisationCheck
from explain.faithfulness_schema import FaithfulnessSettings, MapFaithfulness
from explain.maps import explain_picture
from explain.schema import Heatmap, WordAttribution
from explain.stability import Stability
from explain.targets import Target, default_target, same_margin
from models.detector import Detector
from models.doubt import Doubt, assess, expect_verdict
from models.ensemble import combine
from models.errors import ExhibitError
from models.families.base import Stage
from models.imaging import SourceImage
from models.loading import BASE_SUFFIX, ModelLoader
from models.prompts import get_style
from models.schema import Detections, LiveModel, LoadState, Precision, Prediction, Verdict
from models.vlm import VisionLanguageModel

LOGGER = logging.getLogger(__name__)
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


def examine(source: SourceImage, settings: Settings, loader: ModelLoader) -> Examination:
    """The complete examination of one image.

    Raises:
        ExhibitError: if the settings name unknown models, methods or tasks.
    """
    *_, last = examine_steps(source, settings, loader)
    return last


def examine_steps(source: SourceImage, settings: Settings, loader: ModelLoader) -> Iterator[Examination]:
    """Examine one image step by step; each value is more complete than the one before.

    A model that cannot answer becomes a ``Problem`` and the others go on: losing one opinion must not lose the rest.

    Raises:
        ExhibitError: if the settings name unknown models, methods or tasks.
    """
    _check(settings, loader)
    state = Examination(source, settings, created_utc=datetime.now(UTC).isoformat(timespec="seconds"))
    steps = len(settings.models) + (settings.detector is not None)
    doubts: dict[str, Doubt | None] = {}
    for index, model_id in enumerate(settings.models):
        yield replace(state, stage=f"examining with {model_id}", done=index / steps)
        state = _with_model(state, model_id, loader, doubts)
        state = replace(state, done=(index + 1) / steps)
    if settings.detector is not None:
        yield replace(state, stage=f"detecting objects with {settings.detector}", done=(steps - 1) / steps)
        state = _with_detections(state, settings.detector, loader)
    yield replace(state, stage="done", done=1.0)


def measure_faithfulness(
    examination: Examination,
    loader: ModelLoader,
    meter: FaithfulnessMeter,
    settings: FaithfulnessSettings | None = None,
    told: Callable[[float], None] | None = None,
) -> Examination:
    """The examination with figures and badges of its maps; for when the maps are shown already, since it takes longer.

    Args:
        examination: with heatmaps. Maps of base models are left out: they have no part in the verdict.
        loader: as it was examined with.
        meter: remembers what was measured before.
        settings: how.
        told: hears of each model's share done, in [0, 1]; what it raises ends the measuring.

    Returns:
        The same with ``faithfulness``; a model that cannot be measured becomes a problem and the others go on.
    """
    found: list[MapFaithfulness] = []
    problems: list[Problem] = []
    started = time.perf_counter()
    for model_id in examination.settings.models:
        maps = [heatmap for heatmap in examination.heatmaps if heatmap.model_id == model_id]
        aware = [heatmap for heatmap in maps if get_method(heatmap.method).class_aware]
        try:
            live = load_explainable(loader, model_id, examination.settings)
            asked = default_target(live, examination.settings.target)
            target = fixed_target(aware[0].target, live.labels) if aware else asked
            found += meter.measure(live, examination.source.rgb, maps, target, settings, told) if maps else []
        except ExhibitError as error:
            LOGGER.warning("faithfulness of %s: %s", model_id, error)
            problems.append(Problem(f"faithfulness {model_id}", str(error)))
    return replace(
        examination,
        faithfulness=tuple(found),
        problems=(*examination.problems, *problems),
        timings_s={**examination.timings_s, "faithfulness": time.perf_counter() - started},
    )


def _check(settings: Settings, loader: ModelLoader) -> None:
    """Refuse what cannot be meant before any model is loaded."""
    if not settings.models:
        raise ExhibitError(f"no model is chosen for the task {settings.task}; choose at least one.")
    for model_id in settings.models:
        spec = loader.zoo.get(model_id.removesuffix(BASE_SUFFIX))
        if spec.task != settings.task:
            raise ExhibitError(f"{model_id} answers the task {spec.task}, not {settings.task}; choose another model.")
        if settings.compare_base and model_id != spec.id:
            raise ExhibitError(f"{model_id} is examined with {spec.id} when bases are compared; leave it out.")
    if settings.detector is not None and loader.zoo.get(settings.detector).kind != "detector":
        raise ExhibitError(f"{settings.detector} is not a detector; choose one of kind detector.")
    for name in settings.methods:
        get_method(name)
    if settings.style is not None:
        get_style(settings.style)
    for what, value, known in (
        ("precision", settings.precision, get_args(Precision)),
        ("layer", settings.layer, get_args(Stage)),
    ):
        if value is not None and value not in known:
            raise ExhibitError(f"there is no {what} {value!r}; choose one of {', '.join(known)}.")


def _with_model(state: Examination, model_id: str, loader: ModelLoader, doubts: dict[str, Doubt | None]) -> Examination:
    """The state with one more model's prediction and maps, from one pass, and its base model's if asked for.

    ``doubts`` takes what was measured of the models so far, and is given that of this one.
    """
    timings = dict(state.timings_s)
    started = time.perf_counter()
    try:
        live = load_explainable(loader, model_id, state.settings)
        timings[f"load:{model_id}"] = time.perf_counter() - started
        started = time.perf_counter()
        answer = _explain(live, state, default_target(live, state.settings.target))
        answer = replace(answer, prediction=assess(live, [state.source.rgb], [answer.prediction])[0])
    except ExhibitError as error:
        LOGGER.warning("%s: %s", model_id, error)
        return replace(state, problems=(*state.problems, Problem(model_id, str(error))))
    timings[f"explain:{model_id}"] = time.perf_counter() - started
    state = replace(_with_answer(state, live, answer), timings_s=timings)
    predictions, verdict = (*state.predictions, answer.prediction), None
    doubts[model_id] = getattr(live, "doubt", None)
    try:
        verdict = combine(predictions, {spec.id: spec.accuracy for spec in loader.zoo.specs.values()})
        verdict = expect_verdict(verdict, doubts)
    except ExhibitError as error:  # models of one task that use different labels
        state = replace(state, problems=(*state.problems, Problem("verdict", str(error))))
    state = replace(state, predictions=predictions, verdict=verdict)
    if state.settings.compare_base and isinstance(live, VisionLanguageModel):
        return _with_base(state, live, answer.prediction, loader)
    return state


def _with_base(state: Examination, live: VisionLanguageModel, tuned: Prediction, loader: ModelLoader) -> Examination:
    """The state with what the base model says, its maps for the very same target, and what fine-tuning changed."""
    started = time.perf_counter()
    base_id = f"{live.spec.id}{BASE_SUFFIX}"
    try:
        base = _load_base(loader, live, state.settings)
        answer = _explain(base, state, same_margin(tuned, state.settings.target))
    except ExhibitError as error:
        LOGGER.warning("%s: %s", base_id, error)
        return replace(state, problems=(*state.problems, Problem(base_id, str(error))))
    state = _with_answer(state, base, answer)
    differences, problems = [], []
    for method in state.settings.methods:
        ours, theirs = state.heatmap(live.spec.id, method), state.heatmap(base_id, method)
        try:
            differences += [DifferenceMap(ours, theirs)] if ours and theirs else []
        except ExhibitError as error:
            problems.append(Problem(f"{base_id} {method}", str(error)))
    return replace(
        state,
        base_predictions=(*state.base_predictions, answer.prediction),
        differences=(*state.differences, *differences),
        problems=(*state.problems, *problems),
        timings_s={**state.timings_s, f"explain:{base_id}": time.perf_counter() - started},
    )


def _with_answer(state: Examination, live: LiveModel, answer: Explanation) -> Examination:
    """The state with the maps, words and problems of one pass."""
    problems = (Problem(f"{live.spec.id} {problem.method}", problem.message) for problem in answer.problems)
    heatmaps = (replace(heatmap, image_sha256=state.source.sha256) for heatmap in answer.heatmaps)
    return replace(
        state,
        heatmaps=(*state.heatmaps, *heatmaps),
        words=(*state.words, *answer.words),
        asked=(*state.asked, *([_asked(live)] if isinstance(live, VisionLanguageModel) else [])),
        problems=(*state.problems, *problems),
    )


def _explain(live: LiveModel, state: Examination, target: Target) -> Explanation:
    """Prediction, maps and words of one model; a method that does not fit it is a problem, not an error."""
    unfit = {name: get_method(name).compatible(live) for name in state.settings.methods}
    problems = tuple(MapProblem(name, "none", "", why) for name, why in unfit.items() if why is not None)
    fitting = [name for name, why in unfit.items() if why is None]
    asked = isinstance(live, VisionLanguageModel)
    if not fitting and not asked:
        return Explanation(live.predict([state.source.rgb])[0], (), problems)
    stage = state.settings.layer
    layers = [_layer_at(live, stage)] if stage and isinstance(live, VisionLanguageModel) else None
    answer = explain_picture(live, state.source.rgb, methods=fitting, target=target, layers=layers, words=asked)
    if live.spec.kind == "clip":
        answer = _with_text_words(live, state, answer)
    return replace(answer, problems=(*problems, *answer.problems))


def _with_text_words(live: LiveModel, state: Examination, answer: Explanation) -> Explanation:
    """The explanation of an image-text model with what the words of its label's text did, or why that is not known."""
    from models.clip import ImageTextModel  # its libraries are here once such a model is, and slow to import before

    if not isinstance(live, ImageTextModel):
        return answer
    label = state.settings.target or answer.prediction.label
    try:
        words = attribute_label(live, state.source.rgb, label)
    except ExhibitError as error:
        return replace(answer, problems=(*answer.problems, MapProblem("words", label, "", str(error))))
    return replace(answer, words=(words,))


def _with_detections(state: Examination, detector_id: str, loader: ModelLoader) -> Examination:
    started = time.perf_counter()
    try:
        detections = _load_detector(loader, detector_id).detect([state.source.rgb])[0]
    except ExhibitError as error:
        LOGGER.warning("%s: %s", detector_id, error)
        return replace(state, problems=(*state.problems, Problem(detector_id, str(error))))
    timings = {**state.timings_s, "detect": time.perf_counter() - started}
    return replace(state, detections=detections, timings_s=timings)


def load_explainable(loader: ModelLoader, model_id: str, settings: Settings) -> LiveModel:
    """The model, asked what the settings ask if it reads a question.

    Raises:
        ExhibitError: it cannot be had, or gives no verdict.
    """
    live = loader.load(model_id, precision=settings.precision)
    # By its class: a protocol check would ask for the target layer, which some models cannot name.
    if isinstance(live, Detector):
        raise ExhibitError(f"{model_id} gives no verdict that could be explained; choose a classifier.")
    if isinstance(live, VisionLanguageModel):
        return live.asking(question=settings.question, style=settings.style)
    return live


def _load_base(loader: ModelLoader, live: VisionLanguageModel, settings: Settings) -> VisionLanguageModel:
    """The base of a fine-tuned model, asked the same: its network without the adapter, or a network of its own."""
    if live.status.state is LoadState.BASE:
        raise ExhibitError(
            f"{live.spec.id} is answered by its base model already; there is nothing to compare it with."
        )
    if live.adapter is not None:
        return live.without_adapter()
    base = loader.load(f"{live.spec.id}{BASE_SUFFIX}", precision=settings.precision)
    if not isinstance(base, VisionLanguageModel):
        raise ExhibitError(f"the base of {live.spec.id} is no vision-language model; correct `base` of this entry.")
    return base.asking(question=live.question, style=live.style, answers=live.answers)


def _asked(live: VisionLanguageModel) -> Asked:
    adapter = (live.adapter or "").rpartition("#")[2]  # before it stands a folder of this machine
    return Asked(live.spec.id, live.question, live.style, live.core.precision, adapter)


def _layer_at(live: VisionLanguageModel, stage: Stage) -> str:
    """The first layer worth explaining at that stage of the network."""
    for layer in live.layers:
        if live.core.family.stage(live.module, layer.name) == stage:
            return layer.name
    raise ExhibitError(f"{live.spec.id} has no layer in its {stage} that could be explained; choose another.")


def _load_detector(loader: ModelLoader, model_id: str) -> Detector:
    detector = loader.load(model_id)
    if not isinstance(detector, Detector):
        raise ExhibitError(f"{model_id} is not a detector; choose one of kind detector.")
    return detector
