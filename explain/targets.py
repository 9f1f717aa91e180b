"""What is explained: callables from a model's outputs to one scalar per image.

A target is never inferred silently: ``PredictedLogit`` says of each image which label it explained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from models.errors import IncompatibleMethodError
from models.schema import LiveModel, Prediction

__all__ = ["ClassLogit", "LabelMargin", "LogitMargin", "PredictedLogit", "Target", "default_target", "same_margin"]


class Target(ABC):
    """A scalar per image, with a name that a manifest can hold."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What is explained, in words such as ``logit:fake``."""

    @abstractmethod
    def __call__(self, outputs: Any) -> Tensor:  # noqa: ANN401 - each architecture has its own output class
        """Outputs with ``logits`` (n, labels) to (n,), in the graph of the outputs."""

    def names(self, outputs: Any) -> tuple[str, ...]:  # noqa: ANN401
        """The name of what was explained for each of the n images."""
        return (self.name,) * len(outputs.logits)


@dataclass(frozen=True)
class ClassLogit(Target):
    """The raw score of one label (before softmax, whose gradient vanishes for confident models).

    Attributes:
        label: a label's name, or its index.
        labels: the model's labels in the order of its logits (``live.labels``).
    """

    label: str | int
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raises ``IncompatibleMethodError`` when the model has no such label."""
        _index(self.label, self.labels)

    @property
    def name(self) -> str:
        """``logit:LABEL``."""
        return f"logit:{self.labels[_index(self.label, self.labels)]}"

    def __call__(self, outputs: Any) -> Tensor:  # noqa: ANN401
        """(n,) raw scores of the label."""
        return outputs.logits[:, _index(self.label, self.labels)]


@dataclass(frozen=True)
class LogitMargin(Target):
    """How much one label leads another: the difference of their raw scores, so what both share cancels out.

    Attributes:
        label: the label explained, by name or index.
        other: the label it is held against.
        labels: the model's labels in the order of its logits (``live.labels``).
    """

    label: str | int
    other: str | int
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raises ``IncompatibleMethodError`` when the model has no such labels, or they are the same."""
        if _index(self.label, self.labels) == _index(self.other, self.labels):
            raise IncompatibleMethodError(
                f"The margin of {self.label!r} over itself is always 0; choose another of {', '.join(self.labels)}."
            )

    @property
    def name(self) -> str:
        """``margin:LABEL-OTHER``."""
        first, second = (self.labels[_index(label, self.labels)] for label in (self.label, self.other))
        return f"margin:{first}-{second}"

    def __call__(self, outputs: Any) -> Tensor:  # noqa: ANN401
        """(n,) differences of raw scores."""
        logits = outputs.logits
        return logits[:, _index(self.label, self.labels)] - logits[:, _index(self.other, self.labels)]


@dataclass(frozen=True)
class PredictedLogit(Target):
    """The raw score of the label that each image got.

    Attributes:
        labels: the model's labels in the order of its logits (``live.labels``).
    """

    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        """``logit:predicted``; ``names`` says which label that was."""
        return "logit:predicted"

    def __call__(self, outputs: Any) -> Tensor:  # noqa: ANN401
        """(n,) highest raw scores."""
        # Gathered rather than amax, which splits the gradient where two labels tie.
        return outputs.logits.gather(1, outputs.logits.argmax(dim=1, keepdim=True))[:, 0]

    def names(self, outputs: Any) -> tuple[str, ...]:  # noqa: ANN401
        """``logit:LABEL`` of each image's own prediction."""
        return tuple(f"logit:{self.labels[index]}" for index in outputs.logits.argmax(dim=1).tolist())


@dataclass(frozen=True)
class LabelMargin(Target):
    """How much a label leads its runner-up, the best other label of that image.

    For a vision-language model the scores are log-probabilities of the labels' texts, most of which the labels share
    (how likely any short answer is at all); only what sets a label apart from its rival is evidence for it.

    Attributes:
        labels: the model's labels in the order of its logits (``live.labels``).
        label: the label explained, by name or index; ``None`` explains the label that each image got.
    """

    labels: tuple[str, ...]
    label: str | int | None = None

    def __post_init__(self) -> None:
        """Raises ``IncompatibleMethodError`` when the model has no such label, or no second one."""
        if self.label is not None:
            _index(self.label, self.labels)
        if len(self.labels) < 2:
            raise IncompatibleMethodError(
                f"A margin needs a runner-up, but the model has {len(self.labels)} label; give it two answers."
            )

    @property
    def name(self) -> str:
        """``margin:LABEL`` or ``margin:predicted``; ``names`` says which labels were held against each other."""
        return f"margin:{'predicted' if self.label is None else self.labels[_index(self.label, self.labels)]}"

    def __call__(self, outputs: Any) -> Tensor:  # noqa: ANN401
        """(n,) differences between the label's score and its runner-up's."""
        label, other = self._pairs(outputs)
        scores = outputs.logits
        return (scores.gather(1, label) - scores.gather(1, other))[:, 0]

    def names(self, outputs: Any) -> tuple[str, ...]:  # noqa: ANN401
        """``margin:LABEL-RUNNERUP`` of each image."""
        pairs = zip(*(side[:, 0].tolist() for side in self._pairs(outputs)), strict=True)
        return tuple(LogitMargin(label, other, self.labels).name for label, other in pairs)

    def _pairs(self, outputs: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """Indices (n, 1) of the label and of its runner-up."""
        scores = outputs.logits.detach()
        label = scores.argmax(dim=1, keepdim=True)
        if self.label is not None:
            label = label.new_full(label.shape, _index(self.label, self.labels))
        return label, scores.scatter(1, label, float("-inf")).argmax(dim=1, keepdim=True)


def default_target(live: LiveModel, label: str | int | None = None) -> Target:
    """What is explained when nobody says otherwise.

    Args:
        live: the model; a vision-language or image-text model is explained by the margin of its label, since its raw
            score has no zero point, others by that score.
        label: the label asked for; each image's own when not given.

    Raises:
        IncompatibleMethodError: the model has no such label.
    """
    if live.spec.kind in ("vlm", "clip"):
        return LabelMargin(live.labels, label)
    return PredictedLogit(live.labels) if label is None else ClassLogit(label, live.labels)


def same_margin(prediction: Prediction, label: str | None = None) -> LogitMargin:
    """What ``LabelMargin`` explained for an image, its runner-up held fast, to ask another model for the very same.

    Args:
        prediction: what the first model said of the image.
        label: the label that was asked for; the predicted one when not given.

    Raises:
        IncompatibleMethodError: there is no such label, or no second one.
    """
    scores = prediction.logits
    explained = prediction.label if label is None else label
    rivals = [other for other in scores if other != explained]
    return LogitMargin(explained, max(rivals, key=scores.__getitem__, default=explained), tuple(scores))


def _index(label: str | int, labels: Sequence[str]) -> int:
    if isinstance(label, int):
        if 0 <= label < len(labels):
            return label
    elif label in labels:
        return labels.index(label)
    raise IncompatibleMethodError(f"The model has no label {label!r}; its labels are {', '.join(labels)}.")
