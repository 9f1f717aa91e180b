"""Whether an answer and its maps hold when the picture is changed as files are changed every day.

A picture that was sent by a messenger was compressed, shrunk and perhaps cropped on the way. An answer that does not
survive this says more about the file than about what it shows.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from explain.catalog import get_method
from explain.maps import explain_picture
from explain.schema import Heatmap
from explain.targets import Target
from models.schema import LiveModel, Prediction

__all__ = ["CHANGES", "Stability", "Variant", "change_picture", "check_stability", "describe_stability"]

QUALITY = 70
SCALE = 0.5
BLUR = 1 / 256
"""Deviation of the blur, as a part of the picture's longer side."""
MARGIN = 0.05
"""What is cut off at each side, as a part of it."""
_SIDE = 64


@dataclass(frozen=True)
class Variant:
    """What became of an answer under one change.

    Attributes:
        change: one of ``CHANGES``.
        label: what the model says now.
        probability: of the label that it gave to the picture itself, in [0, 1].
        correlations: method to Pearson's correlation of its map with that of the picture itself, over what both show;
            0 where no map is left.
    """

    change: str
    label: str
    probability: float
    correlations: dict[str, float]


@dataclass(frozen=True)
class Stability:
    """What small changes of a picture do to what a model says and shows.

    Attributes:
        model_id: zoo id.
        label: what it says of the picture itself.
        probability: of that label, in [0, 1].
        variants: in the order of ``CHANGES``.
    """

    model_id: str
    label: str
    probability: float
    variants: tuple[Variant, ...]

    @property
    def flips(self) -> tuple[str, ...]:
        """The changes under which the model says something else."""
        return tuple(one.change for one in self.variants if one.label != self.label)

    @property
    def spread(self) -> float:
        """Largest move of the label's probability."""
        return max((abs(one.probability - self.probability) for one in self.variants), default=0.0)

    def correlation(self, method: str) -> float | None:
        """Lowest correlation of a method's map with the original one; ``None`` where it has none."""
        found = [one.correlations[method] for one in self.variants if method in one.correlations]
        return min(found) if found else None


def change_picture(image: Image.Image, change: str) -> Image.Image:
    """An RGB picture under one of ``CHANGES``; a new picture.

    Raises:
        KeyError: there is no such change.
    """
    return CHANGES[change](image)


def check_stability(
    live: LiveModel,
    image: Image.Image,
    prediction: Prediction,
    heatmaps: tuple[Heatmap, ...],
    target: Target,
    told: Callable[[float], None] | None = None,
) -> Stability:
    """A model's answer and class activation maps under every change, each from one pass.

    Args:
        live: the model.
        image: RGB.
        prediction: what it says of the picture itself.
        heatmaps: its maps of it; signed ones, which take dozens of passes, are left out.
        target: what the maps explain, held fast.
        told: hears of the share done, in [0, 1]; what it raises ends the check.
    """
    before = {one.method: one for one in heatmaps if not get_method(one.method).signed}
    layers = sorted({one.layer for one in before.values()}) or None
    variants = []
    for index, change in enumerate(CHANGES):
        if told is not None:
            told(index / len(CHANGES))
        picture = change_picture(image, change)
        answer = explain_picture(live, picture, methods=tuple(before), target=target, layers=layers)
        after = {one.method: one for one in answer.heatmaps}
        likeness = {method: _likeness(one, after.get(method), change) for method, one in before.items()}
        said = answer.prediction
        variants.append(Variant(change, said.label, said.probabilities[prediction.label], likeness))
    share = prediction.probabilities[prediction.label]
    return Stability(prediction.model_id, prediction.label, share, tuple(variants))


def describe_stability(found: Stability) -> dict[str, Any]:
    """The result as JSON."""
    return asdict(found) | {"flips": list(found.flips), "spread": found.spread}


def _likeness(before: Heatmap, after: Heatmap | None, change: str) -> float:
    if after is None:
        return 0.0
    one, two = before.at((_SIDE, _SIDE)), after.at((_SIDE, _SIDE))
    if change == "crop":
        # The crop's map shows the middle of the picture alone.
        width, height = before.size_wh
        left, top, right, bottom = _middle(width, height)
        rows = slice(round(top / height * _SIDE), round(bottom / height * _SIDE))
        cols = slice(round(left / width * _SIDE), round(right / width * _SIDE))
        one = one[rows, cols]
        two = after.at((one.shape[1], one.shape[0]))
    return _correlation(one, two)


def _correlation(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    if not (one.std() > 0 and two.std() > 0):
        return 0.0
    return float(np.corrcoef(one.ravel(), two.ravel())[0, 1])


def _middle(width: int, height: int) -> tuple[int, int, int, int]:
    left, top = round(width * MARGIN), round(height * MARGIN)
    return left, top, width - left, height - top


def _compressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return Image.open(buffer).convert("RGB")


def _halved(image: Image.Image) -> Image.Image:
    return image.resize((max(1, round(image.width * SCALE)), max(1, round(image.height * SCALE))))


def _blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(max(image.size) * BLUR))


def _cropped(image: Image.Image) -> Image.Image:
    return image.crop(_middle(*image.size))


CHANGES: Mapping[str, Callable[[Image.Image], Image.Image]] = MappingProxyType(
    {"jpeg": _compressed, "halved": _halved, "blur": _blurred, "crop": _cropped}
)
