"""The endpoints ``examine`` and ``heatmap`` for programs: what the Examine tab finds, as JSON and as files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import gradio as gr

from explain import render
from explain.catalog import CATALOG
from explain.examination import Examination
from models.errors import ExhibitError
from models.families.base import Stage
from models.prompts import STYLES
from models.schema import Precision
from ui import pictures
from ui.api_describe import Json, describe, describe_heatmap, describe_prediction
from ui.api_parts import list_ids, name_choice, name_file
from ui.faithfulness import measure_all, unmeasured_models
from ui.services import BOTH, DETECTION, TUNED, Asking, Services, pack_bundle

HEATMAP_SIDE_PX = 2048
# Whose heatmaps ``examine`` measures.
BUNDLED, ALL, NONE = MEASURED = ("bundled", "all", "none")


class ExamineEndpoints:
    """The endpoints over the shared services.

    Args:
        services: whose models answer.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    def examine(  # noqa: D417 - ``progress`` is Gradio's own; the docstring is what callers read
        self,
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
            heatmap, problems, timings; in `image` also its content credentials, `null` where it carries none; of
            vision-language models also the question as it was asked, `words`: what each word of it did for the answer,
            above 0 in favour, and with `compare_base` also `base_predictions` and `differences`: maps of the fine-tuned
            model minus those of its base; in `faithfulness` how far to believe each measured heatmap: figures, curves
            and a badge held against random maps; in `stability` what the models say of the picture compressed, shrunk,
            blurred and cropped, and how alike their heatmaps stay). A verdict that is not `confident` is of a picture
            unlike those the models learned from. Further, the overlays as PNG files named MODEL--METHOD.png, and the
            evidence bundle as one zip file with manifest.json.
        """
        services = self._services
        if faithfulness not in MEASURED:
            raise ExhibitError(f"`faithfulness` is {faithfulness!r}; send one of {', '.join(MEASURED)}.")
        chosen = services.default_detector() if not detector else None if detector == "none" else detector
        asking = Asking(question, style, BOTH if compare_base else TUNED, precision, layer)
        settings = services.settings(task, tuple(models or ()), tuple(methods or ()), target, chosen, asking)
        for examination in services.examine(services.read(*name_file(image)), settings):
            progress(examination.done, desc=examination.stage)
            yield from self._answers(examination, faithfulness, bundle=bundle)

    def _answers(
        self, examination: Examination, faithfulness: str, *, bundle: bool
    ) -> Iterator[tuple[Json, list[str], str | None]]:
        """What is told of one step; of the last, when it is measured, with the files."""
        left = _unmeasured(examination, faithfulness)
        if left or not examination.complete:  # measuring holds up neither the verdict nor the maps
            yield describe(examination), [], None
        if not examination.complete:
            return
        measured = measure_all(self._services, examination, left)
        if not bundle:
            yield describe(measured), [], None
            return
        packed = pack_bundle(measured)
        yield describe(measured), [str(path) for path in packed.overlays], str(packed.archive)

    def heatmap(self, image: str, model: str, method: str = "gradcampp", target: str = "") -> tuple[str, Json]:
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
        task = self._services.zoo.get(model).task
        settings = self._services.settings(task, (model,), (method,), target, None)
        *_, examination = self._services.examine(self._services.read(*name_file(image)), settings)
        found = examination.heatmap(model, method)
        if found is None:
            reasons = " ".join(problem.message for problem in examination.problems)
            raise ExhibitError(reasons or f"{model} gives no map by {method}; choose another method.")
        drawn = render.draw_heatmap(render.fit(examination.source.rgb, HEATMAP_SIDE_PX), found)
        path = pictures.write_png(drawn, f"{model}--{method}.png")
        return str(path), describe_heatmap(found) | {"prediction": describe_prediction(examination.predictions[0])}


def _unmeasured(examination: Examination, whose: str) -> tuple[str, ...]:
    """The models whose maps are still to be measured; none before the last map is there."""
    if whose == NONE or not examination.complete:
        return ()
    return unmeasured_models(examination, small=whose == BUNDLED)


def create_examine_inputs(services: Services) -> list[gr.components.Component]:
    """The parameters of ``examine``, in its order."""
    return [
        gr.File(label="image", type="filepath"),
        name_choice("task", services.tasks, services.tasks[0]),
        name_choice("models", list_ids(services, services.tasks), []),
        name_choice("methods", CATALOG, []),
        gr.Textbox("", label="target"),
        name_choice("detector", ("", "none", *list_ids(services, (DETECTION,))), ""),
        gr.Checkbox(value=True, label="bundle"),
        gr.Textbox("", label="question"),
        name_choice("style", ("", *STYLES), ""),
        gr.Checkbox(value=False, label="compare_base"),
        name_choice("precision", get_args(Precision), "auto"),
        name_choice("layer", get_args(Stage), "tower"),
        name_choice("faithfulness", MEASURED, BUNDLED),
    ]


def create_heatmap_inputs(services: Services) -> list[gr.components.Component]:
    """The parameters of ``heatmap``, in its order."""
    return [
        gr.File(label="image", type="filepath"),
        name_choice("model", list_ids(services, services.tasks)),
        name_choice("method", CATALOG, "gradcampp"),
        gr.Textbox("", label="target"),
    ]
