"""What the figures of faithfulness are: their direction, their source, and the arithmetic from scores to a number.

Nothing here runs a model. A map is faithful when what it shows as important is what the model used: taking that away
must change the answer more than taking away anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "METRICS",
    "Curve",
    "Metric",
    "average_drop",
    "counts_of",
    "curve_auc",
    "increase",
    "ranks_of",
    "road_combined",
    "sparseness",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One figure of faithfulness.

    Attributes:
        name: how results and manifests call it.
        title: how people call it.
        better: in which direction a map is more faithful; of sparseness, more focused.
        meaning: one sentence in plain words.
        source: the paper.
    """

    name: str
    title: str
    better: Literal["higher", "lower"]
    meaning: str
    source: str


@dataclass(frozen=True)
class Curve:
    """A score of the target while a picture is taken apart or put together.

    Attributes:
        fractions: float64 (points,), part of the pixels that was changed, rising from 0 to 1.
        scores: float64 (points,), of the target: a probability in [0, 1], or a similarity.
    """

    fractions: Floats
    scores: Floats

    @property
    def auc(self) -> float:
        """Area under the curve by trapezoids, so the mean score over all fractions."""
        return curve_auc(self.fractions, self.scores)


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric(
                "insertion",
                "Insertion",
                "higher",
                "How soon the answer comes back when the hottest pixels return first.",
                "Petsiuk et al. 2018, RISE, arXiv:1806.07421",
            ),
            Metric(
                "deletion",
                "Deletion",
                "lower",
                "How long the answer stays when the hottest pixels go first.",
                "Petsiuk et al. 2018, RISE, arXiv:1806.07421",
            ),
            Metric(
                "gain",
                "Insertion - deletion",
                "higher",
                "Both in one: what the order of the map is worth.",
                "Shitole et al. 2021, arXiv:2011.06733",
            ),
            Metric(
                "road",
                "ROAD",
                "higher",
                "How much more the hottest pixels matter than the coldest, filled in so that no hole is seen.",
                "Rong et al. 2022, arXiv:2202.00449",
            ),
            Metric(
                "average_drop",
                "Average drop",
                "lower",
                "The part of the answer that is lost when only the map is shown.",
                "Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063",
            ),
            Metric(
                "increase",
                "Increase in confidence",
                "higher",
                "Whether the answer grows stronger when only the map is shown.",
                "Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063",
            ),
            Metric(
                "infidelity",
                "Infidelity",
                "lower",
                "How far the map is from foretelling what small changes of the picture do to the answer.",
                "Yeh et al. 2019, arXiv:1901.09392",
            ),
            Metric(
                "max_sensitivity",
                "Max-sensitivity",
                "lower",
                "How much the map itself moves when the picture changes too little to be seen.",
                "Yeh et al. 2019, arXiv:1901.09392",
            ),
            Metric(
                "sparseness",
                "Sparseness",
                "higher",
                "How focused the map is (Gini index); says nothing of whether it is right.",
                "Chalasani et al. 2020, arXiv:1810.06583",
            ),
        )
    }
)
"""Every figure by name, in the order of tables."""


def ranks_of(maps: NDArray[np.float32]) -> NDArray[np.int32]:
    """The place of every pixel when the hottest comes first; among equals the one that is read first.

    Args:
        maps: float32 (n, h, w), finite.

    Returns:
        int32 (n, h, w), 0 for the hottest pixel of each map.

    Raises:
        ValueError: a value is not finite, so that there is no order.
    """
    if not np.isfinite(maps).all():
        raise ValueError("a map with values that are not finite has no order")
    flat = maps.reshape(len(maps), -1)
    order = np.argsort(-flat, axis=1, kind="stable")
    ranks = np.empty(flat.shape, np.int32)
    np.put_along_axis(ranks, order, np.arange(flat.shape[1], dtype=np.int32)[None], axis=1)
    return ranks.reshape(maps.shape)


def counts_of(pixels: int, steps: int) -> tuple[int, ...]:
    """How many pixels are changed at each point of a curve: from none to all, in at most ``steps`` equal steps.

    The last step is smaller where they do not divide evenly, as in torchcam.

    Raises:
        ValueError: there are no pixels or no steps.
    """
    if pixels < 1 or steps < 1:
        raise ValueError(f"a curve needs pixels and steps, got {pixels} and {steps}")
    return (*range(0, pixels, -(-pixels // steps)), pixels)


def curve_auc(fractions: Floats, scores: Floats) -> float:
    """Area under a curve by trapezoids over the true fractions (Petsiuk et al. 2018)."""
    return float(np.trapezoid(scores, fractions))


def road_combined(most_first: Sequence[float] | Floats, least_first: Sequence[float] | Floats) -> float:
    """ROAD in one number: half of how much more is left when the coldest pixels go than when the hottest go.

    Args:
        most_first: scores with growing parts of the hottest pixels imputed.
        least_first: scores with the same parts of the coldest pixels imputed.

    Returns:
        In [-0.5, 0.5] for probabilities, higher is better; 0 for a map without information (Rong et al. 2022, in the
        combination of pytorch-grad-cam).
    """
    return float((np.asarray(least_first) - np.asarray(most_first)).mean() / 2)


def average_drop(full: float, shown: float) -> float:
    """The part of a score that is lost when only the map is shown (Chattopadhay et al. 2018).

    Args:
        full: the target's score for the picture, above 0.
        shown: for the picture times the map.

    Returns:
        In [0, 1], lower is better.

    Raises:
        ValueError: the full score is not positive, so that no part of it can be lost.
    """
    if full <= 0:
        raise ValueError(f"the drop of a score of {full} has no meaning; use probabilities")
    return max(full - shown, 0.0) / full


def increase(full: float, shown: float) -> bool:
    """Whether the score grows when only the map is shown (Chattopadhay et al. 2018); higher is better in the mean."""
    return shown > full


def sparseness(values: NDArray[np.float32]) -> float:
    """The Gini index of a map's magnitudes: 0 for an even map, near 1 for a single hot pixel (Chalasani et al. 2020).

    Args:
        values: any shape.

    Raises:
        ValueError: the map is zero everywhere.
    """
    ordered = np.sort(np.abs(values.astype(np.float64)), axis=None)
    total, count = ordered.sum(), ordered.size
    if total == 0:
        raise ValueError("a map that is zero everywhere has no sparseness")
    places = 2 * np.arange(1, count + 1) - count - 1
    return float((places * ordered).sum() / (count * total))
