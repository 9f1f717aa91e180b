"""What the verifier sees of a picture: the whole, a grid of crops and the detections, as vectors of one space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.clip import ImageTextModel, Vectors
from models.detector import Detector
from models.schema import Box, Detections
from rag.reading import Reading

__all__ = ["CROP_SHARES", "Look", "crop_grid", "look_at", "regions_of"]

CROP_SHARES = (0.6, 0.38)
"""Sides of the crops as shares of the picture's shorter side: for things that fill it, and for small ones."""

_STRIDE = 0.75  # of a crop's side, at most: what one crop cuts through lies whole in a neighbour
_MOST_ALONG = 8  # crops along the longer side of a panorama
_MOST_DETECTIONS = 12


@dataclass(frozen=True)
class Look:
    """One picture as the verifier knows it.

    Attributes:
        size_wh: of the picture in pixels.
        boxes: k regions ``xyxy``, the grid of crops first, then detections.
        whole: float32 (d,), vector of the picture, of length 1.
        regions: float32 (k, d), vectors of the regions, of length 1.
        detections: what a detector found, None where none was asked.
        names: the classes that detector knows.
        reading: the text in the picture, None where nobody read it.
    """

    size_wh: tuple[int, int]
    boxes: tuple[Box, ...]
    whole: NDArray[np.float32]
    regions: Vectors
    detections: Detections | None = None
    names: tuple[str, ...] = ()
    reading: Reading | None = None


def crop_grid(size_wh: tuple[int, int], shares: Sequence[float] = CROP_SHARES) -> tuple[Box, ...]:
    """Squares spread evenly over a picture, neighbours overlapping, ``xyxy`` in its pixels.

    Args:
        size_wh: width and height in pixels.
        shares: sides of the squares as shares of the shorter side, in (0, 1].
    """
    boxes: list[Box] = []
    for share in shares:
        side = max(share * min(size_wh), 1.0)
        starts = []
        for length in size_wh:
            count = min(math.ceil((length - side) / (_STRIDE * side)) + 1, _MOST_ALONG)
            starts.append(np.linspace(0, length - side, max(count, 1)).tolist())
        boxes += [(x, y, x + side, y + side) for y in starts[1] for x in starts[0]]
    return tuple(boxes)


def regions_of(size_wh: tuple[int, int], detections: Detections | None = None) -> tuple[Box, ...]:
    """The regions that are compared with a claim: the grid of crops, then the most confident detections."""
    found: list[Box] = []
    if detections is not None:
        for x0, y0, x1, y1 in detections.xyxy[:_MOST_DETECTIONS].tolist():
            if min(x1, size_wh[0]) > max(x0, 0) and min(y1, size_wh[1]) > max(y0, 0):
                found.append((x0, y0, x1, y1))
    return (*crop_grid(size_wh), *found)


def look_at(
    image: Image.Image,
    clip: ImageTextModel,
    detector: Detector | None = None,
    *,
    detections: Detections | None = None,
) -> Look:
    """Embed a picture and its regions.

    Args:
        image: RGB.
        clip: remembers what it has embedded, so that a second look costs little.
        detector: asked where ``detections`` are not given.
        detections: of this picture, where somebody has them already.
    """
    if detections is None and detector is not None:
        detections = detector.detect([image])[0]
    boxes = regions_of(image.size, detections)
    whole = clip.embed_images([image])[0]
    names = detector.names if detector is not None else ()
    return Look(image.size, boxes, whole, clip.embed_regions(image, boxes), detections, names)
