"""One image, the whole story: predict, explain, detect, and keep it together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import get_args

from explain.attribution import attribute_label
from explain.cam import Explanation, MapProblem
from explain.catalog import get_method
from explain.difference import DifferenceMap
from explain.examination_schema import DEFAULT_DETECTOR, Asked, CheckedClaims, Examination, Problem, Settings
from explain.faithfulness import FaithfulnessMeter
from explain.faithfulness_probe import fixed_target
from explain.faithfulness_schema import FaithfulnessSettings, MapFaithfulness
from explain.maps import explain_picture
from explain.targets import Target, default_target, same_margin
from models.credentials import read_credentials
from models.detector import Detector
from models.doubt import Doubt, assess, expect_verdict
from models.ensemble import combine
from models.errors import ExhibitError
from models.families.base import Stage
from models.imaging import SourceImage
from models.loading import BASE_SUFFIX, ModelLoader
from models.prompts import get_style
from models.schema import LiveModel, LoadState, Precision, Prediction
from models.vlm import VisionLanguageModel

__all__ = [
    "DEFAULT_DETECTOR",
    "Asked",
    "CheckedClaims",
    "Examination",
    "Problem",
    "Settings",
    "examine",
    "examine_steps",
    "load_explainable",
    "measure_faithfulness",
]

LOGGER = logging.getLogger(__name__)


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
    state = Examination(
        source,
        settings,
        credentials=read_credentials(source.original, source.format),
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
    )
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
