"""Score a batch of changed pictures for one target: all that measuring faithfulness needs of a model.

A probe holds one picture at the resolution at which the model reads it. Classifiers, PaliGemma and CLIP take their
pixels as one plane, so the prepared plane itself is changed and nothing is prepared again. Models that cut a picture
into tiles or patches get changed pictures through their own processor, which knows how to cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from explain.cam import explain_inputs
from explain.catalog import get_method
from explain.geometry import project
from explain.schema import Heatmap
from explain.targets import ClassLogit, LogitMargin, Target
from models.errors import IncompatibleMethodError
from models.framing import seen_box
from models.schema import Box, Inputs, LiveModel

__all__ = ["FunctionProbe", "ModelProbe", "Probability", "Probe", "fixed_target", "make_probe", "read_probability"]

Forward = Callable[[Inputs], Any]
Score = Callable[[Any], Tensor]

_ON_CPU = 8
"""Variants in a batch: more no longer fit a processor's cache, which costs more than a fuller batch saves."""
_ELSEWHERE = 64

_LONGEST_PX = 1024
"""Longest side of a picture that is changed before it is prepared: no model here reads more."""


class Probe(Protocol):
    """One picture, one model and one target."""

    @property
    def picture(self) -> Tensor:
        """Float (channels, h, w): the picture as it is changed, on the model's device."""

    @property
    def batch(self) -> int:
        """How many variants ``score`` does best with."""

    def score(self, variants: Tensor) -> Tensor:
        """Variants (n, channels, h, w) of the picture to float64 (n,) scores of the target, on the CPU."""

    def place(self, heatmap: Heatmap) -> NDArray[np.float32]:
        """A heatmap of the picture as float32 (h, w) in [0, 1]: its value at each pixel that is changed."""


@dataclass(frozen=True)
class Probability:
    """The probability of what a target explains, instead of its raw score: curves over it compare between models.

    Attributes:
        label: index of the label.
        other: for a margin, the label it is held against: the probability is then the one between these two.
    """

    label: int
    other: int | None = None

    def __call__(self, outputs: Any) -> Tensor:  # noqa: ANN401
        """Outputs with ``logits`` (n, labels) to (n,) in [0, 1]."""
        logits = outputs.logits.double()
        if self.other is None:
            return logits.softmax(dim=1)[:, self.label]
        return (logits[:, self.label] - logits[:, self.other]).sigmoid()


def read_probability(name: str, labels: Sequence[str]) -> Probability:
    """What a heatmap's target name stands for.

    Args:
        name: ``logit:LABEL`` or ``margin:LABEL-OTHER``.
        labels: the model's, in the order of its logits.

    Raises:
        IncompatibleMethodError: the name is none of these, or of another model.
    """
    for index, label in enumerate(labels):
        if name == f"logit:{label}":
            return Probability(index)
    for first, second in permutations(range(len(labels)), 2):
        if name == f"margin:{labels[first]}-{labels[second]}":
            return Probability(first, second)
    raise IncompatibleMethodError(
        f"The target {name!r} belongs to no label of the model ({', '.join(labels)}); explain one of these."
    )


class ModelProbe:
    """One picture for a live model whose pixels are a single plane.

    Args:
        live: the model; its lock is held during each pass.
        inputs: of one picture, as ``live.prepare`` gave them.
        shown_xyxy: the part of the original picture that the plane shows.
        score: outputs to (n,) scores.
        forward: runs the network instead of ``live.forward``.
    """

    def __init__(
        self, live: LiveModel, inputs: Inputs, shown_xyxy: Box, score: Score, forward: Forward | None = None
    ) -> None:
        self._live, self._score, self._forward = live, score, forward
        self._others = {name: tensor for name, tensor in inputs.items() if name != "pixel_values"}
        self._shown = shown_xyxy
        self.picture: Tensor = inputs["pixel_values"][0]
        self.batch = _batch(self.picture)

    def score(self, variants: Tensor) -> Tensor:
        """Scores of prepared planes (n, channels, h, w)."""
        return _scores(self._live, self._inputs(variants), self._score, self._forward)

    @property
    def shown_xyxy(self) -> Box:
        """The part of the original picture that the plane shows."""
        return self._shown

    def outputs(self, variants: Tensor) -> Any:  # noqa: ANN401 - each architecture has its own output class
        """What the model says of prepared planes, in their graph; hold the model's lock around it."""
        return self._live.forward(self._inputs(variants.to(self.picture.dtype)))

    def explain(self, variants: Tensor, heatmap: Heatmap) -> Tensor:
        """What became of a heatmap in each variant: float32 (n, h, w) in [0, 1], zero where no map is left."""
        count = len(variants)
        layout = [heatmap.size_wh] * count
        blind = not get_method(heatmap.method).class_aware
        target = ClassLogit(0, self._live.labels) if blind else fixed_target(heatmap.target, self._live.labels)
        answers = explain_inputs(
            self._live,
            self._inputs(variants),
            layout,
            methods=[heatmap.method],
            targets=[target],
            layers=[heatmap.layer],
        )
        maps = torch.zeros(count, *self.picture.shape[-2:])
        for place, answer in zip(maps, answers, strict=True):
            if answer.heatmaps:
                place.copy_(torch.from_numpy(self.place(answer.heatmaps[0])))
        return maps

    def place(self, heatmap: Heatmap) -> NDArray[np.float32]:
        """The heatmap over the part of the picture that the model sees, at the plane's resolution."""
        height, width = self.picture.shape[-2:]
        left, top, right, bottom = self._shown
        across, down = width / (right - left), height / (bottom - top)

        def moved(box: Box) -> Box:
            return ((box[0] - left) * across, (box[1] - top) * down, (box[2] - left) * across, (box[3] - top) * down)

        parts = [replace(part, box_xyxy=moved(part.box_xyxy)) for part in heatmap.parts]
        return project(parts, (width, height), (width, height), (heatmap.raw_min, heatmap.raw_max))

    def _inputs(self, variants: Tensor) -> Inputs:
        count = len(variants)
        others = {name: tensor.repeat(count, *[1] * (tensor.ndim - 1)) for name, tensor in self._others.items()}
        return others | {"pixel_values": variants}


class _TiledProbe:
    """One picture for a live model that cuts pictures up: variants are pictures, prepared batch by batch."""

    def __init__(self, live: LiveModel, image: Image.Image, score: Score) -> None:
        self._live, self._score = live, score
        device = next(live.module.parameters()).device
        self.picture: Tensor = torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1).to(device) / 255
        self.batch = _batch(self.picture)

    def score(self, variants: Tensor) -> Tensor:
        pixels = (variants.clamp(0, 1) * 255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        return _scores(self._live, self._live.prepare([Image.fromarray(one) for one in pixels]), self._score, None)

    def place(self, heatmap: Heatmap) -> NDArray[np.float32]:
        height, width = self.picture.shape[-2:]
        return heatmap.at((width, height))


class FunctionProbe:
    """One picture for any scalar score of a batch of pictures, such as a similarity computed elsewhere.

    Args:
        score: float (n, channels, h, w) to (n,).
        picture: float (channels, h, w), in the range that ``score`` reads.
        batch: how many variants at a time.
    """

    def __init__(self, score: Callable[[Tensor], Tensor], picture: Tensor, batch: int = _ON_CPU) -> None:
        self._score, self.picture, self.batch = score, picture, batch

    def score(self, variants: Tensor) -> Tensor:
        """Scores of pictures, without a graph."""
        with torch.no_grad():
            return self._score(variants).double().cpu()

    def place(self, heatmap: Heatmap) -> NDArray[np.float32]:
        """The heatmap at the picture's size; the score sees the whole of it."""
        height, width = self.picture.shape[-2:]
        return heatmap.at((width, height))


def make_probe(live: LiveModel, image: Image.Image, target: Target, *, forward: Forward | None = None) -> Probe:
    """The probe that fits a model.

    Args:
        live: any live model.
        image: RGB, any size.
        target: what is explained. What it means for this picture (the predicted label, its runner-up) is held fast, so
            that every variant is asked the same. Targets of other names than labels' are scored raw.
        forward: the network in a faster form, from prepared inputs to outputs; only where pixels are one plane.

    Raises:
        IncompatibleMethodError: the target is none of the model's.
    """
    inputs = live.prepare([image])
    with live.lock, torch.no_grad():
        outputs = live.forward(inputs)
    name = target.names(outputs)[0]
    labelled = name.startswith(("logit:", "margin:"))
    score: Score = read_probability(name, live.labels) if labelled else target
    pixels, processor = inputs["pixel_values"], _image_processor(live)
    if processor is not None and pixels.ndim == 4 and len(pixels) == 1:
        return ModelProbe(live, inputs, seen_box(processor, image.size), score, forward)
    return _TiledProbe(live, _shrunk(live, image, inputs), score)


def fixed_target(name: str, labels: tuple[str, ...]) -> Target:
    """The target that explains, of any picture or network, what a heatmap's target name says.

    Args:
        name: ``logit:LABEL`` or ``margin:LABEL-OTHER``.
        labels: the model's, in the order of its logits.

    Raises:
        IncompatibleMethodError: the name is none of these.
    """
    read = read_probability(name, labels)
    return ClassLogit(read.label, labels) if read.other is None else LogitMargin(read.label, read.other, labels)


def _scores(live: LiveModel, inputs: Inputs, score: Score, forward: Forward | None) -> Tensor:
    with torch.no_grad():
        if forward is not None:
            return score(forward(inputs)).double().cpu()
        with live.lock:
            return score(live.forward(inputs)).double().cpu()


def _image_processor(live: LiveModel) -> Any:  # noqa: ANN401 - classes of the transformers library
    """The processor of pictures alone; ``None`` for a model that has none of the library's."""
    processor = getattr(live, "processor", None) or getattr(getattr(live, "core", None), "processor", None)
    found = getattr(processor, "image_processor", processor)
    return found if hasattr(found, "image_mean") else None


def _shrunk(live: LiveModel, image: Image.Image, inputs: Inputs) -> Image.Image:
    """The picture no larger than models read it, unless they would then cut it otherwise."""
    if max(image.size) <= _LONGEST_PX:
        return image
    smaller = image.copy()
    smaller.thumbnail((_LONGEST_PX, _LONGEST_PX), Image.Resampling.LANCZOS)
    return smaller if _shapes(live.prepare([smaller])) == _shapes(inputs) else image


def _shapes(inputs: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in inputs.items() if name != "image_sizes"}


def _batch(picture: Tensor) -> int:
    return _ON_CPU if picture.device.type == "cpu" else _ELSEWHERE
