"""Does a map lie where the truth lies? For pictures of which it is known what decides the answer.

Localisation is not faithfulness: a model may rightly use something else than the region. Where a model is right and
only the region can have told it, a map that lies elsewhere is wrong about the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from explain.regions import energy_in_mask

__all__ = [
    "FIGURES",
    "THRESHOLDS",
    "TOLERANCE_PX",
    "Localisation",
    "LocalisationFigure",
    "iou_curve",
    "localise",
    "points_into_mask",
    "relevance_rank",
]

Values = NDArray[np.float32]
Mask = NDArray[np.bool_]
Curve = NDArray[np.float64]

TOLERANCE_PX = 15.0
"""How far from the region the hottest pixel may lie, as in the original game, whose photographs are about 500 px."""

THRESHOLDS: Curve = np.arange(1, 20) / 20
"""Values from which on a pixel counts as part of what a map outlines."""


@dataclass(frozen=True)
class LocalisationFigure:
    """One figure of localisation; all lie in [0, 1], and higher is better.

    Attributes:
        name: how results call it.
        title: how people call it.
        meaning: one sentence in plain words.
        source: the paper.
    """

    name: Literal["pointing", "energy", "rank", "iou"]
    title: str
    meaning: str
    source: str


FIGURES: Mapping[str, LocalisationFigure] = MappingProxyType(
    {
        figure.name: figure
        for figure in (
            LocalisationFigure(
                "pointing",
                "Pointing game",
                "How often the hottest pixel lies in the region, or within 15 px of it.",
                "Zhang et al. 2016, Excitation Backprop, arXiv:1608.00507",
            ),
            LocalisationFigure(
                "energy",
                "Energy in region",
                "The part of all heat that lies in the region.",
                "Wang et al. 2020, Score-CAM, arXiv:1910.01279, section 4.3",
            ),
            LocalisationFigure(
                "rank",
                "Relevance rank",
                "Of as many hottest pixels as the region has, the part that lies in it.",
                "Arras et al. 2022, CLEVR-XAI, arXiv:2003.07258",
            ),
            LocalisationFigure(
                "iou",
                "IoU at the best threshold",
                "How well the outline of the map fits the region, cut at the one value that fits all pictures best.",
                "Choe et al. 2020, arXiv:2001.07437",
            ),
        )
    }
)


@dataclass(frozen=True)
class Localisation:
    """The figures of one map.

    Attributes:
        pointing: 1 where the hottest pixel hits, else 0.
        energy: part of the heat inside.
        rank: relevance rank accuracy.
        ious: float64 (thresholds,), intersection over union at each of ``THRESHOLDS``.
    """

    pointing: float
    energy: float
    rank: float
    ious: Curve


def localise(values: Values, truth: Mask, tolerance_px: float = TOLERANCE_PX) -> Localisation:
    """All figures of one map.

    Args:
        values: float32 (h, w) in [0, 1].
        truth: bool (h, w), the region that decides.
        tolerance_px: of the pointing game, in pixels of ``values``.

    Raises:
        ValueError: the sizes differ, or the region is empty.
    """
    return Localisation(
        pointing=float(points_into_mask(values, truth, tolerance_px)),
        energy=energy_in_mask(values, truth),
        rank=relevance_rank(values, truth),
        ious=iou_curve(values, truth),
    )


def points_into_mask(values: Values, truth: Mask, tolerance_px: float = TOLERANCE_PX) -> bool:
    """Pointing game: whether the hottest pixel's centre lies no farther than that from the centre of one of the region.

    Args:
        values: float32 (h, w); of several hottest pixels the first counts, row by row.
        truth: bool (h, w).
        tolerance_px: in pixels of ``values``.

    Raises:
        ValueError: the sizes differ, or the region is empty.
    """
    _check(values, truth)
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    if truth[row, column]:
        return True
    rows, columns = np.nonzero(truth)
    return bool(((rows - row) ** 2 + (columns - column) ** 2).min() <= tolerance_px**2)


def relevance_rank(values: Values, truth: Mask) -> float:
    """Relevance rank accuracy: of as many hottest pixels as the region has, the part that lies in it.

    Pixels of one value have no order, so where only some of them are taken, each counts by its chance to be.

    Args:
        values: float32 (h, w).
        truth: bool (h, w).

    Returns:
        Share in [0, 1]; for a constant map the region's share of the picture.

    Raises:
        ValueError: the sizes differ, or the region is empty.
    """
    _check(values, truth)
    taken = int(truth.sum())
    last = np.partition(values.ravel(), values.size - taken)[values.size - taken]
    above, level = values > last, values == last
    drawn = (taken - int(above.sum())) / int(level.sum())
    return float((truth[above].sum() + drawn * truth[level].sum()) / taken)


def iou_curve(values: Values, truth: Mask) -> Curve:
    """Intersection over union of a region and the pixels from each of ``THRESHOLDS`` on.

    The best threshold is one for all pictures: take the mean of the curves, then its highest point.

    Args:
        values: float32 (h, w) in [0, 1].
        truth: bool (h, w).

    Returns:
        float64 (thresholds,) in [0, 1].

    Raises:
        ValueError: the sizes differ, or the region is empty.
    """
    _check(values, truth)
    inside = np.sort(values[truth])
    everything = np.sort(values.ravel())
    hits = inside.size - np.searchsorted(inside, THRESHOLDS)
    outlined = everything.size - np.searchsorted(everything, THRESHOLDS)
    return np.asarray(hits / (outlined + inside.size - hits), np.float64)


def _check(values: Values, truth: Mask) -> None:
    if values.shape != truth.shape:
        raise ValueError(f"the region is {truth.shape}, the map {values.shape}; bring them to one size first")
    if not truth.any():
        raise ValueError("the region is empty; there is nothing to find")
