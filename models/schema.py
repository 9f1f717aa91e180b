"""Frozen values that cross rooms, and the protocol by which explainers know a model.

Boxes are ``xyxy`` in pixels of the original image (after EXIF orientation), x to the right, y down, the right and lower
edge exclusive. Probabilities are plain floats keyed by label.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from threading import RLock
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

Box = tuple[float, float, float, float]
Inputs = dict[str, Tensor]
Precision = Literal["auto", "fp32", "bf16", "int8", "nf4"]


class LoadState(StrEnum):
    """What stands behind a model's answer."""

    FINE_TUNED = "fine-tuned"
    BASE = "base"
    BUNDLED = "bundled"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class ModelStatus:
    """Which weights answer for a model, or why none do.

    Attributes:
        state: what was loaded.
        loaded_from: zoo id, ``org/name@commit`` or folder of the weights in use; empty when unavailable.
        reason: why a fallback serves or nothing does; empty when the wanted weights are in use.
        remedy: what a person can do about ``reason``.
        weights_sha256: hex SHA-256 over the weight files in use, empty when unavailable.
    """

    state: LoadState
    loaded_from: str = ""
    reason: str = ""
    remedy: str = ""
    weights_sha256: str = ""


class ModelSpec(BaseModel):
    """One entry of the zoo: a model as data. Unknown keys are refused.

    Attributes:
        id: name used everywhere, unique in the zoo.
        name: what people read.
        task: the question the model answers (``deepfake``, ``ai-image``, ``detection`` ...).
        kind: which room loads it.
        source: ``org/name`` on the hub, a folder, or ``bundled:NAME`` (a folder below ``assets/bundled``).
        file: for detectors, the weight file inside ``source``.
        revision: commit, tag or ``main`` (pinned by the lock file at the first download); only for hub sources.
        base: hub id or folder of the base model that answers when the fine-tuned weights cannot be had.
        fallback: id of the bundled entry that answers when neither can be had.
        labels: renames the model's own labels to the task's labels; a label not named keeps its own name.
        licence: SPDX id or the words of the model card.
        size_mb: download size in megabytes (10^6 bytes).
        memory_mb: working memory needed in megabytes.
        access: ``gated`` and ``private`` repositories need a token of somebody who was let in.
        accuracy: measured accuracy in [0, 1] on the task, where the card has one; weighs the ensemble.
        trained_on: one sentence: which pictures the model knows; shown beside every verdict.
        family: for vision-language models, the file in ``models/families`` that knows its kind.
        base_revision: like ``revision``, for a ``base`` on the hub.
        question: what a vision-language model is asked by default.
        answers: text the model writes to the task's label, in the order shown (``{"0": fake, "1": real}``); of an
            image-text model the texts a picture is compared with, several for a label if need be.
        synonyms: label to further ways of saying it, for reading free text.
        hint: what the prompt style ``informed`` adds to the question.
        precision: how the weights are kept: ``auto`` is bf16 on a GPU and fp32 on a CPU.
        remote_code: the network exists only as code in its repository; loaded only when trusted by id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    name: str
    task: str
    kind: Literal["classifier", "detector", "vlm", "clip"]
    source: str
    file: str | None = None
    revision: str | None = None
    base: str | None = None
    fallback: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    licence: str = Field(min_length=1)
    size_mb: float = Field(gt=0)
    memory_mb: float = Field(gt=0)
    access: Literal["public", "gated", "private"] = "public"
    accuracy: float | None = Field(default=None, ge=0, le=1)
    trained_on: str = ""
    family: str | None = None
    base_revision: str | None = None
    question: str | None = None
    answers: dict[str, str] = Field(default_factory=dict)
    synonyms: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    hint: str = ""
    precision: Precision = "auto"
    remote_code: bool = False

    @property
    def bundled(self) -> bool:
        """Whether the weights ship with Exhibit."""
        return self.source.startswith("bundled:")


@dataclass(frozen=True)
class Expectation:
    """How often a model was right on held-out pictures of which it was as sure as of this one.

    Attributes:
        accuracy: share of right answers among them, in [0, 1]; measured, never assumed.
        pictures: how many they are.
        of: held-out pictures in all.
        low: confidence above which they lie.
        high: confidence up to which they lie.
    """

    accuracy: float
    pictures: int
    of: int
    low: float
    high: float


@dataclass(frozen=True)
class Novelty:
    """How unlike its training pictures a picture is to a model.

    Attributes:
        distance: from the training pictures' features; 0 at their middle, no unit.
        threshold: above which a picture counts as unlike them.
        false_alarm: share of held-out pictures like the training ones that lie above it, in [0, 1].
        unfamiliar: whether this one does.
    """

    distance: float
    threshold: float
    false_alarm: float
    unfamiliar: bool


@dataclass(frozen=True)
class Prediction:
    """What one model says of one image.

    Attributes:
        model_id: zoo id that was asked for.
        label: the label with the highest probability.
        probabilities: label to probability, in the model's own order, summing to 1; calibrated where ``temperature``
            is given.
        logits: label to raw score, same order.
        latency_s: seconds of this image's share of the forward pass.
        status: what stands behind the answer.
        text: free text, for models that write.
        question: the question asked of a vision-language model, as it stood in the prompt.
        style: the prompt style used for it.
        temperature: what the raw scores were divided by; ``None`` where the probabilities are the network's own.
        raw: label to probability before calibration; ``None`` without a temperature.
        expected: how often the model is right when it is as sure as here; ``None`` where that was not measured.
        novelty: how unlike its training pictures this one is; ``None`` where that was not measured.
    """

    model_id: str
    label: str
    probabilities: dict[str, float]
    logits: dict[str, float]
    latency_s: float
    status: ModelStatus
    text: str | None = None
    question: str | None = None
    style: str | None = None
    temperature: float | None = None
    raw: dict[str, float] | None = None
    expected: Expectation | None = None
    novelty: Novelty | None = None


@dataclass(frozen=True)
class Detections:
    """Objects a detector found in one image.

    Attributes:
        xyxy: float32 (n, 4), original pixels.
        confidence: float32 (n,), in [0, 1], descending.
        labels: n class names.
        size_wh: width and height of the original image.
        model_id: zoo id that was asked for.
        status: what stands behind the answer.
    """

    xyxy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    labels: tuple[str, ...]
    size_wh: tuple[int, int]
    model_id: str
    status: ModelStatus

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.labels)


@dataclass(frozen=True)
class TokenGrid:
    """A rectangle of activation cells and the part of the original image that it covers.

    Attributes:
        box_xyxy: the covered area in original pixels; may reach beyond the image where the model saw padding.
        tokens: int (rows, cols), index along the token axis of the activation for each cell, row by row; ``None`` for a
            channels-first map, whose own rows and columns are the grid.
    """

    box_xyxy: Box
    tokens: NDArray[np.intp] | None = None


@dataclass(frozen=True)
class TokenLayout:
    """Where the activation cells of one image lie in its original picture.

    Several grids cover tiled models: they are averaged where they overlap.
    """

    size_wh: tuple[int, int]
    grids: tuple[TokenGrid, ...]


@dataclass(frozen=True)
class LayerPreset:
    """A layer whose gradients are known to be alive: dotted name and a few words on what it shows."""

    name: str
    note: str = ""


@runtime_checkable
class LiveModel(Protocol):
    """All that explainers know of a loaded model; classifiers, CLIP and VLMs each are one.

    ``prepare`` and ``forward`` work on batches. ``forward`` must not disable gradients and returns an object with
    ``logits`` (n, labels). ``lock`` is held around every forward pass, since hooks and adapters are shared state.
    """

    spec: ModelSpec
    status: ModelStatus
    labels: tuple[str, ...]

    @property
    def lock(self) -> RLock:
        """Held around every pass."""

    @property
    def module(self) -> nn.Module:
        """The network."""

    @property
    def target_layer(self) -> str:
        """Dotted name, within ``module``, of the layer explained by default."""

    @property
    def layers(self) -> Sequence[LayerPreset]:
        """Layers worth explaining, the default first."""

    def batches(self, images: Sequence[Image.Image]) -> Iterable[Sequence[Image.Image]]:
        """RGB images, in their order, in parts that ``prepare`` takes at once and one pass has room for."""

    def prepare(self, images: Sequence[Image.Image]) -> Inputs:
        """RGB images to model inputs on the model's device."""

    def forward(self, inputs: Inputs) -> Any:  # noqa: ANN401 - each architecture has its own output class
        """One pass over prepared inputs."""

    def split(self, activation: Tensor, inputs: Inputs, layer: str) -> list[Tensor]:
        """A layer's output for the batch (or its gradient) as one tensor per image: (c, h, w) or (tokens, c)."""

    def layout(
        self, inputs: Inputs, sizes_wh: Sequence[tuple[int, int]], layer: str | None = None
    ) -> list[TokenLayout]:
        """Where the cells of ``split`` lie in each image, from the real inputs and the original sizes.

        Args:
            inputs: as ``prepare`` gave them.
            sizes_wh: width and height of each original image.
            layer: dotted name; the target layer when not given.
        """

    def predict(self, images: Sequence[Image.Image]) -> list[Prediction]:
        """Predictions for RGB images."""

    def read(self, outputs: Any, latency_s: float) -> list[Prediction]:  # noqa: ANN401
        """Predictions from the outputs of ``forward``, so that explaining needs no second pass."""


@dataclass(frozen=True)
class Verdict:
    """What several models say together.

    Attributes:
        label: the label with the highest weighted mean probability.
        probabilities: weighted mean probability by label, summing to 1.
        agreement: share of models, by weight, whose own label is the verdict's, in [0, 1].
        dissenters: ids of the models that say otherwise.
        spread: largest minus smallest probability given to the verdict's label.
        weights: model id to its share, summing to 1.
        unfamiliar: ids of the models that have not seen such pictures.
        confident: whether the models that know such pictures, or say nothing of it, weigh more than those.
        expected: how often the verdict of these models is right when it is as sure as here; ``None`` where that was not
            measured for all of them together.
    """

    label: str
    probabilities: dict[str, float]
    agreement: float
    dissenters: tuple[str, ...]
    spread: float
    weights: dict[str, float] = field(default_factory=dict)
    unfamiliar: tuple[str, ...] = ()
    confident: bool = True
    expected: Expectation | None = None
