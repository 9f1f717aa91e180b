"""Image classifiers of the transformers library as live models: network, processor and labels are one object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from threading import RLock
from time import perf_counter
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from models.anatomy import Anatomy, trace
from models.doubt import Doubt, answer
from models.errors import ModelUnavailableError
from models.framing import seen_box
from models.quiet import first_line, quiet
from models.schema import Inputs, LayerPreset, ModelSpec, ModelStatus, Prediction, TokenGrid, TokenLayout

__all__ = ["ImageClassifier", "load_classifier", "task_labels"]

_BATCH = 16
_BROKEN = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)


class ImageClassifier:
    """One loaded image classifier; implements ``models.schema.LiveModel``.

    Attributes:
        spec: the entry that was asked for.
        status: what stands behind the answers.
        module: the network, in evaluation mode, its weights frozen.
        processor: the saved image processor.
        labels: the task's labels in the order of the logits.
        lock: held around every forward pass.
        doubt: what was measured of these weights, by which probabilities are calibrated; ``None`` for nothing.
    """

    def __init__(
        self,
        spec: ModelSpec,
        status: ModelStatus,
        module: nn.Module,
        processor: BaseImageProcessor,
        labels: tuple[str, ...],
    ) -> None:
        self.spec = spec
        self.status = status
        self.module = module.eval().requires_grad_(requires_grad=False)
        self.processor = processor
        self.labels = labels
        self.lock = RLock()
        self.doubt: Doubt | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.module.parameters()).device

    @cached_property
    def anatomy(self) -> Anatomy:
        """Layers and token grid, found by one pass over noise when first needed.

        Raises:
            IncompatibleMethodError: the network has no layer that can be explained.
        """
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        pixels = self.prepare([Image.fromarray(noise)])["pixel_values"]
        config = self.module.config
        patch = getattr(getattr(config, "vision_config", config), "patch_size", None)
        sides = {patch} if isinstance(patch, int) else set(patch or ())
        side = int(sides.pop()) if len(sides) == 1 else None
        with self.lock:
            return trace(self.module, lambda values: self.forward({"pixel_values": values}), pixels, side)

    @property
    def target_layer(self) -> str:
        """Dotted name, within ``module``, of the layer explained by default."""
        return self.layers[0].name

    @property
    def layers(self) -> Sequence[LayerPreset]:
        """Layers whose gradients are alive, the default first."""
        return self.anatomy.layers

    def batches(self, images: Sequence[Image.Image]) -> Iterator[Sequence[Image.Image]]:
        """Images that the processor can stack: a batch of them where it makes one size, else one at a time."""
        size = getattr(self.processor, "size", None) or {}
        one_size = getattr(self.processor, "do_center_crop", None) or "height" in dict(size)
        step = _BATCH if one_size else 1
        for start in range(0, len(images), step):
            yield images[start : start + step]

    def prepare(self, images: Sequence[Image.Image]) -> Inputs:
        """RGB images to ``pixel_values`` (n, 3, height, width), contiguous, on the model's device and in its dtype."""
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        dtype = next(self.module.parameters()).dtype
        return {"pixel_values": pixels.to(self.device, dtype).contiguous()}

    def forward(self, inputs: Inputs) -> Any:  # noqa: ANN401 - each architecture has its own output class
        """One pass over prepared inputs; gradients stay as the caller set them."""
        return self.module(**inputs)

    def split(self, activation: Tensor, inputs: Inputs, layer: str) -> list[Tensor]:  # noqa: ARG002 - any layer
        """One tensor per image, (c, h, w) or (tokens, c): images lie along the first axis of every layer."""
        return list(activation.unbind())

    def layout(
        self,
        inputs: Inputs,
        sizes_wh: Sequence[tuple[int, int]],
        layer: str | None = None,  # noqa: ARG002 - a channels-first map's own rows and columns are the grid
    ) -> list[TokenLayout]:
        """Where each image's cells lie: one grid over the part of the image that the processor showed the model.

        Raises:
            IncompatibleMethodError: that part cannot be told, or the network has no layer to explain.
        """
        height, width = inputs["pixel_values"].shape[-2:]
        layouts = []
        for size_wh in sizes_wh:
            x0, y0, x1, y1 = seen_box(self.processor, size_wh)
            tokens = None
            if self.anatomy.cell_px is not None:
                tokens = self.anatomy.tokens(height, width)
                if self.anatomy.floors:
                    rows, cols = tokens.shape
                    x1 = x0 + (x1 - x0) * cols * self.anatomy.cell_px / width
                    y1 = y0 + (y1 - y0) * rows * self.anatomy.cell_px / height
            layouts.append(TokenLayout(size_wh, (TokenGrid((x0, y0, x1, y1), tokens),)))
        return layouts

    def predict(self, images: Sequence[Image.Image]) -> list[Prediction]:
        """Predictions for RGB images, in their order.

        Raises:
            ModelUnavailableError: the network answers with numbers that are not finite.
        """
        predictions: list[Prediction] = []
        for part in self.batches(images):
            inputs = self.prepare(part)
            begin = perf_counter()
            with self.lock, torch.no_grad():
                outputs = self.forward(inputs)
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
            predictions += self.read(outputs, perf_counter() - begin)
        return predictions

    def read(self, outputs: Any, latency_s: float) -> list[Prediction]:  # noqa: ANN401
        """Predictions from the outputs of ``forward``.

        Args:
            outputs: object with ``logits`` (n, labels).
            latency_s: seconds of the whole pass; each image gets an equal share.

        Raises:
            ModelUnavailableError: a logit is not finite.
        """
        logits: Tensor = outputs.logits.detach().double().cpu()
        if not bool(torch.isfinite(logits).all()):
            raise ModelUnavailableError(
                f"{self.spec.id}: the model answers with numbers that are not finite on {self.device}; "
                "run it on the CPU, or replace its weights"
            )
        shares = latency_s / max(len(logits), 1)
        return [
            Prediction(
                model_id=self.spec.id,
                latency_s=shares,
                status=self.status,
                **answer(row, self.labels, self.doubt),
            )
            for row in logits.tolist()
        ]


def task_labels(own: Mapping[int, str], renames: Mapping[str, str], model_id: str) -> tuple[str, ...]:
    """The task's labels in logit order.

    Args:
        own: the network's ``id2label``.
        renames: own label, in any case, to the task's label; a label not named keeps its own name.
        model_id: named in errors.

    Raises:
        ModelUnavailableError: fewer than two labels, a rename of a label the network lacks, or two labels in one name.
    """
    names = [str(own[index]) for index in sorted(own)]
    if len(names) < 2:
        raise ModelUnavailableError(f"{model_id}: the model has {len(names)} label; a classifier needs at least two")
    wanted = {name.casefold(): label for name, label in renames.items()}
    unknown = [name for name in renames if name.casefold() not in {known.casefold() for known in names}]
    if unknown:
        raise ModelUnavailableError(
            f"{model_id}: the zoo renames {', '.join(map(repr, unknown))}, but the model's labels are "
            f"{', '.join(map(repr, names))}; correct `labels` of this entry"
        )
    labels = tuple(wanted.get(name.casefold(), name) for name in names)
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ModelUnavailableError(
            f"{model_id}: several labels of the model would be called {', '.join(map(repr, twice))}; "
            "correct `labels` of this entry"
        )
    return labels


def load_classifier(
    spec: ModelSpec, folder: Path, status: ModelStatus, *, renames: Mapping[str, str], device: torch.device
) -> ImageClassifier:
    """The classifier in ``folder``; nothing but safetensors and JSON is read, and no code of the folder is run.

    Args:
        spec: the entry that was asked for.
        folder: config.json, preprocessor_config.json and safetensors.
        status: what to say about these weights.
        renames: the labels to rename, those of the entry that the folder belongs to.
        device: where to put the weights; float32 on a CPU, half precision elsewhere.

    Raises:
        ModelUnavailableError: the folder is incomplete, damaged, or not an image classifier.
    """
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            processor = AutoImageProcessor.from_pretrained(folder, **options)
            # float32 first: the library sets the default dtype of the whole process while it builds a network.
            module, report = AutoModelForImageClassification.from_pretrained(
                folder, **options, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
    except _BROKEN as error:
        raise ModelUnavailableError(
            f"{spec.id}: {folder} cannot be loaded as an image classifier ({first_line(error)}); "
            "copy or download the folder again"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        # The library fills such weights with random numbers; the answers would be noise that looks like answers.
        raise ModelUnavailableError(
            f"{spec.id}: {folder} lacks {len(missing)} of the network's weights ({missing[0]} ...), so it is not a "
            "trained classifier; choose a fine-tuned one"
        )
    labels = task_labels(module.config.id2label, renames, spec.id)
    half = torch.float32 if device.type == "cpu" else torch.float16
    return ImageClassifier(spec, status, module.to(device=device, dtype=half), processor, labels)
