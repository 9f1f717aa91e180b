"""The page's actions for programs: stable endpoints for HTTP and ``gradio_client``, and the tools of ``--mcp``.

Their docstrings are what a program, or a language model, reads about them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from explain import render
from explain.catalog import CATALOG
from explain.difference import DifferenceMap
from explain.examination import Examination
from explain.faithfulness_sanity import describe_check
from explain.faithfulness_schema import describe_faithfulness
from explain.schema import Heatmap, WordAttribution
from explain.stability import describe_stability
from explain.whatif import FILLS
from models.errors import ExhibitError
from models.families.base import Stage
from models.prompts import STYLES
from models.schema import ModelStatus, Precision, Prediction
from ui import pictures
from ui.compare import COMPARING_AT_ONCE, COMPARING_QUEUE
from ui.compare_api import CompareEndpoint
from ui.errors import explain_error
from ui.faithfulness import measure_all, unmeasured_models
from ui.inventory import Holding, take_inventory
from ui.services import BOTH, DETECTION, MODELS_AT_ONCE, MODELS_QUEUE, TUNED, Asking, Services, pack_bundle
from ui.text import DEFAULT_LANGUAGE
from ui.triage_api import TRIAGE_QUEUE, TriageEndpoint, create_triage_parts
from ui.verify_api import VerifyEndpoints, create_verify_inputs
from ui.verify_desk import VerifyDesk
from ui.whatif_api import WhatIfEndpoint

HEATMAP_SIDE_PX = 2048
# Enough for the ends and the mean of a map of some dozen cells a side.
DIFFERENCE_SIDE_PX = 256
# Whose heatmaps ``examine`` measures.
BUNDLED, ALL, NONE = MEASURED = ("bundled", "all", "none")
Json = dict[str, Any]


def add_endpoints(services: Services, desk: VerifyDesk) -> None:
    """The public endpoints, inside the Blocks: each is named as its function below."""
    with gr.Column(visible=False):
        _add_examine(services)
        _add_heatmap(services)
        _add_models(services)
        _add_compare(services)
        _add_whatif(services)
        _add_triage(services)
        _add_verify(desk)


def _add_examine(services: Services) -> None:
    def examine(  # noqa: D417 - ``progress`` is Gradio's own; the docstring is what callers read
        image: str,
        task: str = "deepfake",
        models: list[str] | None = None,
        methods: list[str] | None = None,
        target: str = "",
        detector: str | None = None,
        bundle: bool = True,
        question: str = "",
        style: str = "",
        compare_base: bool = False,
        precision: Precision = "auto",
        layer: Stage = "tower",
        faithfulness: str = BUNDLED,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio asks for it
    ) -> Iterator[tuple[Json, list[str], str | None]]:
        """Ask several vision models one question about a picture and get the pixels that each of them used.

        Answers step by step, each answer more complete than the last; the last holds the files. Nothing leaves the
        machine that serves this.

        Args:
            image: The picture file: JPEG, PNG, WebP, BMP, GIF, TIFF, HEIC or AVIF.
            task: The question, one of the tasks that the endpoint `models` lists, e.g. "deepfake".
            models: Ids from the endpoint `models`; empty for the ones that are ready on this machine.
            methods: Heatmap methods, e.g. "gradcampp", "layercam"; empty for those that share one pass. The signed ones
                ("integrated_gradients", "occlusion", "gradient_shap") take dozens of passes.
            target: Label that every heatmap explains, e.g. "fake"; empty for each model's own answer.
            detector: Id of an object detector; empty for the one that is ready, "none" for none.
            bundle: Whether to return the overlays and the evidence bundle with the last answer.
            question: What vision-language models (kind "vlm") are asked; empty for each model's own question.
            style: How the question is put: "plain", "informed" (after the model's hint) or "captioned" (after a
                description that the model writes first); empty for each model's own way.
            compare_base: Whether each fine-tuned vision-language model is compared with its base model.
            precision: How the weights of vision-language models are kept: "auto", "fp32", "bf16", "int8" or "nf4".
            layer: Where vision-language models are looked into: "tower" (vision), "projector" or "language".
            faithfulness: Whose heatmaps are measured: "bundled" (small models, seconds), "all" (minutes) or "none".

        Returns:
            The findings (verdict with its disagreement, each model's probabilities, detected objects, raw range of each
            heatmap, problems, timings; of vision-language models also the question as it was asked, `words`: what each
            word of it did for the answer, above 0 in favour, and with `compare_base` also `base_predictions` and
            `differences`: maps of the fine-tuned model minus those of its base; in `faithfulness` how far to believe
            each measured heatmap: figures, curves and a badge held against random maps; in `stability` what the models
            say of the picture compressed, shrunk, blurred and cropped, and how alike their heatmaps stay). A verdict
            that is not `confident` is of a picture unlike those the models learned from. Further, the overlays as PNG
            files named MODEL--METHOD.png, and the evidence bundle as one zip file with manifest.json.
        """
        chosen = services.default_detector() if not detector else None if detector == "none" else detector
        asking = Asking(question, style, BOTH if compare_base else TUNED, precision, layer)
        settings = services.settings(task, tuple(models or ()), tuple(methods or ()), target, chosen, asking)
        if faithfulness not in MEASURED:
            raise ExhibitError(f"`faithfulness` is {faithfulness!r}; send one of {', '.join(MEASURED)}.")
        source = services.read(*_file(image))
        for examination in services.examine(source, settings):
            progress(examination.done, desc=examination.stage)
            left = _unmeasured(examination, faithfulness)
            if left or not examination.complete:  # measuring holds up neither the verdict nor the maps
                yield describe(examination), [], None
            if not examination.complete:
                continue
            measured = measure_all(services, examination, left)
            if not bundle:
                yield describe(measured), [], None
                return
            packed = pack_bundle(measured)
            yield describe(measured), [str(path) for path in packed.overlays], str(packed.archive)

    gr.Button().click(
        _speak_plainly(examine),
        _examine_inputs(services),
        [gr.JSON(label="findings"), gr.File(label="overlays", file_count="multiple"), gr.File(label="bundle")],
        api_name="examine",
        concurrency_id=MODELS_QUEUE,
        concurrency_limit=MODELS_AT_ONCE,
    )


def _unmeasured(examination: Examination, whose: str) -> tuple[str, ...]:
    """The models whose maps are still to be measured; none before the last map is there."""
    if whose == NONE or not examination.complete:
        return ()
    return unmeasured_models(examination, small=whose == BUNDLED)


def _examine_inputs(services: Services) -> list[gr.components.Component]:
    """The parameters of ``examine``, in its order."""
    return [
        gr.File(label="image", type="filepath"),
        _names("task", services.tasks, services.tasks[0]),
        _names("models", _ids(services, services.tasks), []),
        _names("methods", CATALOG, []),
        gr.Textbox("", label="target"),
        _names("detector", ("", "none", *_ids(services, (DETECTION,))), ""),
        gr.Checkbox(value=True, label="bundle"),
        gr.Textbox("", label="question"),
        _names("style", ("", *STYLES), ""),
        gr.Checkbox(value=False, label="compare_base"),
        _names("precision", get_args(Precision), "auto"),
        _names("layer", get_args(Stage), "tower"),
        _names("faithfulness", MEASURED, BUNDLED),
    ]


def _add_heatmap(services: Services) -> None:
    def heatmap(image: str, model: str, method: str = "gradcampp", target: str = "") -> tuple[str, Json]:
        """Show which pixels of a picture one model used, by one method.

        Args:
            image: The picture file.
            model: Id from the endpoint `models`, e.g. "bundled-resnet".
            method: Heatmap method, e.g. "gradcam", "gradcampp", "layercam", "eigencam".
            target: Label to explain, e.g. "fake"; empty for the model's own answer.

        Returns:
            The picture under its heat as a PNG of at most 2048 px, and what the map is: raw values at the ends of its
            scale, rows and columns of its true resolution, layer and target, with the model's prediction.
        """
        task = services.zoo.get(model).task
        settings = services.settings(task, (model,), (method,), target, None)
        *_, examination = services.examine(services.read(*_file(image)), settings)
        found = examination.heatmap(model, method)
        if found is None:
            reasons = " ".join(problem.message for problem in examination.problems)
            raise ExhibitError(reasons or f"{model} gives no map by {method}; choose another method.")
        drawn = render.draw_heatmap(render.fit(examination.source.rgb, HEATMAP_SIDE_PX), found)
        path = pictures.write_png(drawn, f"{model}--{method}.png")
        return str(path), _describe_heatmap(found) | {"prediction": _describe_prediction(examination.predictions[0])}

    gr.Button().click(
        _speak_plainly(heatmap),
        [
            gr.File(label="image", type="filepath"),
            _names("model", _ids(services, services.tasks)),
            _names("method", CATALOG, "gradcampp"),
            gr.Textbox("", label="target"),
        ],
        [gr.Image(label="overlay", format="png"), gr.JSON(label="map")],
        api_name="heatmap",
        concurrency_id=MODELS_QUEUE,
        concurrency_limit=MODELS_AT_ONCE,
    )


def _add_models(services: Services) -> None:
    def models() -> list[Json]:
        """List the models, the question that each answers, and what would serve for it on this machine.

        Returns:
            One entry per model: id, name, task, kind and family, licence, access (public, gated or private), what it
            was trained on, measured accuracy, a vision-language model's own question, megabytes to download and in
            memory, whether it is loaded, and its status (fine-tuned, base, bundled or unavailable) with the reason, the
            remedy and, once loaded, the SHA-256 of its weights.
        """
        holdings = take_inventory(services).holdings
        # Detectors last: a caller needs one of the questions.
        ordered = sorted(holdings, key=lambda task: task == DETECTION)
        return [_describe_holding(holding) for task in ordered for holding in holdings[task]]

    gr.Button().click(_speak_plainly(models), [], [gr.JSON(label="models")], api_name="models", queue=False)


def _add_compare(services: Services) -> None:
    gr.Button().click(
        _speak_plainly(CompareEndpoint(services).compare),
        [
            _names("reports", [saved.key for saved in services.reports.list_saved()], []),
            gr.File(None, label="files", file_count="multiple", type="filepath"),
        ],
        [gr.JSON(label="comparison")],
        api_name="compare",
        concurrency_id=COMPARING_QUEUE,
        concurrency_limit=COMPARING_AT_ONCE,
    )


def _add_whatif(services: Services) -> None:
    gr.Button().click(
        _speak_plainly(WhatIfEndpoint(services).whatif),
        [
            gr.File(label="image", type="filepath"),
            _names("task", services.tasks, services.tasks[0]),
            _names("models", _ids(services, services.tasks), []),
            gr.JSON(label="box"),
            gr.Number(0.1, label="hottest"),
            _names("model", ("", *_ids(services, services.tasks)), ""),
            _names("method", CATALOG, "gradcampp"),
            _names("fill", FILLS, "blur"),
            gr.Checkbox(value=False, label="evidence"),
        ],
        [gr.JSON(label="changes"), gr.File(label="pictures", file_count="multiple")],
        api_name="whatif",
        concurrency_id=MODELS_QUEUE,
        concurrency_limit=MODELS_AT_ONCE,
    )


def _add_triage(services: Services) -> None:
    answer, (inputs, outputs) = _speak_plainly(TriageEndpoint(services).triage), create_triage_parts(services)
    gr.Button().click(answer, inputs, outputs, api_name="triage", concurrency_id=TRIAGE_QUEUE, concurrency_limit=1)


def _add_verify(desk: VerifyDesk) -> None:
    endpoints = VerifyEndpoints(desk)
    running: dict[str, Any] = {"concurrency_id": MODELS_QUEUE, "concurrency_limit": MODELS_AT_ONCE}
    asked, claimed = create_verify_inputs(desk)
    gr.Button().click(_speak_plainly(endpoints.ask), asked, [gr.JSON(label="answer")], api_name="ask", **running)
    outputs = [gr.JSON(label="claims"), gr.File(label="pictures", file_count="multiple")]
    gr.Button().click(_speak_plainly(endpoints.verify), claimed, outputs, api_name="verify", **running)


def _names(label: str, known: Iterable[str], value: str | list[str] | None = None) -> gr.Dropdown:
    """A parameter whose description lists the names it takes; others come through to be refused in our words."""
    several = isinstance(value, list)
    return gr.Dropdown(list(known), value=value, multiselect=several, allow_custom_value=True, label=label)


def _ids(services: Services, tasks: Iterable[str]) -> list[str]:
    return [spec.id for spec in services.zoo.specs.values() if spec.task in tasks]


def describe(examination: Examination) -> Json:
    """An examination as JSON: what the endpoint ``examine`` answers."""
    verdict, found = examination.verdict, examination.detections
    return {
        "image": {
            "name": examination.source.name,
            "sha256": examination.source.sha256,
            "size_wh": list(examination.source.size_wh),
            "notes": list(examination.source.notes),
        },
        "verdict": asdict(verdict) if verdict else None,
        "predictions": [_describe_prediction(prediction) for prediction in examination.predictions],
        "base_predictions": [_describe_prediction(prediction) for prediction in examination.base_predictions],
        "heatmaps": [_describe_heatmap(heatmap) for heatmap in examination.heatmaps],
        "differences": [_describe_difference(difference) for difference in examination.differences],
        "words": [_describe_words(words) for words in examination.words],
        "detections": None
        if found is None
        else [
            {"label": label, "confidence": float(confidence), "box_xyxy": [float(edge) for edge in box]}
            for label, confidence, box in zip(found.labels, found.confidence, found.xyxy, strict=True)
        ],
        "faithfulness": [describe_faithfulness(found) for found in examination.faithfulness],
        "stability": [describe_stability(found) for found in examination.stability],
        "randomisation": [describe_check(found) for found in examination.checks],
        "problems": [asdict(problem) for problem in examination.problems],
        "timings_s": examination.timings_s,
        "stage": examination.stage,
        "done": examination.done,
        "complete": examination.complete,
    }


def _describe_prediction(prediction: Prediction) -> Json:
    return {
        "model": prediction.model_id,
        "label": prediction.label,
        "probabilities": prediction.probabilities,
        "latency_s": prediction.latency_s,
        "status": _describe_status(prediction.status),
        "question": prediction.question,
        "style": prediction.style,
        "temperature": prediction.temperature,
        "raw_probabilities": prediction.raw,
        "expected": asdict(prediction.expected) if prediction.expected else None,
        "novelty": asdict(prediction.novelty) if prediction.novelty else None,
    }


def _describe_heatmap(heatmap: Heatmap) -> Json:
    return {
        "model": heatmap.model_id,
        "method": heatmap.method,
        "target": heatmap.target,
        "layer": heatmap.layer,
        "raw_min": heatmap.raw_min,
        "raw_max": heatmap.raw_max,
        "grid_rc": list(heatmap.grid_rc),
        "signed": heatmap.signed,
        "convergence_delta": heatmap.delta,
    }


def _describe_difference(difference: DifferenceMap) -> Json:
    """Which two maps differ and the raw range that both are scaled by; the change as parts of that range."""
    width, height = difference.tuned.size_wh
    shrink = min(1.0, DIFFERENCE_SIDE_PX / max(width, height))
    values = difference.at((max(1, round(width * shrink)), max(1, round(height * shrink))))
    return {
        "model": difference.tuned.model_id,
        "base": difference.base.model_id,
        "method": difference.tuned.method,
        "target": difference.tuned.target,
        "layer": difference.tuned.layer,
        "scale": list(difference.scale),
        "mean": float(values.mean()),
        "lowest": float(values.min()),
        "highest": float(values.max()),
    }


def _describe_words(words: WordAttribution) -> Json:
    return {
        "model": words.model_id,
        "target": words.target,
        "question": words.question,
        "words": [
            {"word": word, "score": score, "share": share}
            for word, score, share in zip(words.words, words.scores.tolist(), words.shares.tolist(), strict=True)
        ],
    }


def _describe_holding(holding: Holding) -> Json:
    told = ("id", "name", "task", "kind", "family", "licence", "access", "trained_on", "accuracy", "question")
    spec, here = holding.spec, next(iter(holding.needs_mb.values()))
    sizes = {"size_mb": spec.size_mb, "memory_mb": here, "loaded": holding.loaded}
    return spec.model_dump(include=set(told)) | sizes | {"status": _describe_status(holding.status)}


def _describe_status(status: ModelStatus) -> Json:
    return asdict(status) | {"state": status.state.value}


def _file(image: str | None) -> tuple[Path, str]:
    if not image:
        raise ExhibitError("no image was given; send a picture file as `image`.")
    return Path(image), Path(image).name


def _speak_plainly(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """The endpoint with every error as the one line that a caller can act on."""
    if inspect.isgeneratorfunction(endpoint):

        @functools.wraps(endpoint)
        def stepwise(*args: Any, **kwargs: Any) -> Iterator[Any]:  # noqa: ANN401 - any endpoint
            try:
                yield from endpoint(*args, **kwargs)
            except Exception as error:
                raise gr.Error(explain_error(error, DEFAULT_LANGUAGE), print_exception=False) from error

        return stepwise

    @functools.wraps(endpoint)
    def at_once(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - any endpoint
        try:
            return endpoint(*args, **kwargs)
        except Exception as error:
            raise gr.Error(explain_error(error, DEFAULT_LANGUAGE), print_exception=False) from error

    return at_once
