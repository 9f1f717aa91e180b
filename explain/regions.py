"""How much of the heat lies where: shares inside boxes and masks, and the pointing game."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from explain.schema import Heatmap
from models.schema import Box, Detections

# Shares change by less than a thousandth above this size, while a 50-megapixel photo would cost seconds.
WORKING_SIDE_PX = 512


@dataclass(frozen=True)
class RegionHeat:
    """The heat that one detection holds.

    Attributes:
        label: class name.
        confidence: the detector's, in [0, 1].
        box_xyxy: original pixels.
        share: part of all heat inside the box, in [0, 1].
        area_share: part of the picture inside the box, in [0, 1].
        peak: the map's highest value inside the box, in [0, 1].
        holds_peak: whether the hottest point of the whole map lies in the box.
    """

    label: str
    confidence: float
    box_xyxy: Box
    share: float
    area_share: float
    peak: float
    holds_peak: bool

    @property
    def density(self) -> float:
        """Share of heat over share of area: 1 means no more heat than an even spread would put there."""
        return self.share / self.area_share if self.area_share > 0 else 0.0


def energy_in_box(values: NDArray[np.float32], box_xyxy: Box) -> float:
    """Energy-based pointing game: part of all heat inside a box, edge pixels counted by the part covered.

    Wang et al., "Score-CAM", CVPR Workshops 2020, section 4.3.

    Args:
        values: float32 (H, W), non-negative.
        box_xyxy: in pixels of ``values``.

    Returns:
        Share in [0, 1]; 0 for a map without heat.
    """
    height, width = values.shape
    x0, y0, x1, y1 = box_xyxy
    total = float(values.sum(dtype=np.float64))
    if total <= 0:
        return 0.0
    inside = _coverage(height, y0, y1) @ values.astype(np.float64) @ _coverage(width, x0, x1)
    return float(inside / total)


def energy_in_mask(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Part of all heat inside a mask of the same size, in [0, 1]; 0 for a map without heat.

    Raises:
        ValueError: if the sizes differ.
    """
    if values.shape != mask.shape:
        raise ValueError(f"the mask is {mask.shape}, the map {values.shape}; bring them to one size first")
    total = float(values.sum(dtype=np.float64))
    return float(values[mask].sum(dtype=np.float64) / total) if total > 0 else 0.0


def points_into_box(values: NDArray[np.float32], box_xyxy: Box, tolerance_px: float = 0.0) -> bool:
    """Pointing game: whether the hottest pixel lies in the box (Zhang et al., "Excitation Backprop", ECCV 2016).

    Args:
        values: float32 (H, W).
        box_xyxy: in pixels of ``values``.
        tolerance_px: how far outside still counts; the original game allows 15.
    """
    row, col = np.unravel_index(int(values.argmax()), values.shape)
    x, y = float(col) + 0.5, float(row) + 0.5
    x0, y0, x1, y1 = box_xyxy
    return x0 - tolerance_px <= x <= x1 + tolerance_px and y0 - tolerance_px <= y <= y1 + tolerance_px


def heat_in_detections(heatmap: Heatmap, detections: Detections) -> tuple[RegionHeat, ...]:
    """How much of a map's heat lies on each detected object, most heat first.

    Overlapping boxes each count what they hold, so shares may add up to more than 1. Of a signed map, heat is what
    speaks for the target.
    """
    width, height = heatmap.size_wh
    scale = min(1.0, WORKING_SIDE_PX / max(width, height))
    values = heatmap.positive_at((max(1, round(width * scale)), max(1, round(height * scale))))
    factor_xy = values.shape[1] / width, values.shape[0] / height
    rows = [
        _region(values, label, float(confidence), (float(x0), float(y0), float(x1), float(y1)), factor_xy)
        for label, confidence, (x0, y0, x1, y1) in zip(
            detections.labels, detections.confidence, detections.xyxy, strict=True
        )
    ]
    return tuple(sorted(rows, key=lambda row: row.share, reverse=True))


def _region(
    values: NDArray[np.float32], label: str, confidence: float, box: Box, factor_xy: tuple[float, float]
) -> RegionHeat:
    fx, fy = factor_xy
    scaled = (box[0] * fx, box[1] * fy, box[2] * fx, box[3] * fy)
    height, width = values.shape
    rows = slice(max(0, int(scaled[1])), max(0, int(np.ceil(scaled[3]))))
    cols = slice(max(0, int(scaled[0])), max(0, int(np.ceil(scaled[2]))))
    inside = values[rows, cols]
    return RegionHeat(
        label=label,
        confidence=confidence,
        box_xyxy=box,
        share=energy_in_box(values, scaled),
        area_share=float(_coverage(height, scaled[1], scaled[3]).sum() * _coverage(width, scaled[0], scaled[2]).sum())
        / (height * width),
        peak=float(inside.max()) if inside.size else 0.0,
        holds_peak=points_into_box(values, scaled),
    )


def _coverage(length: int, start: float, stop: float) -> NDArray[np.float64]:
    """Part of each of ``length`` unit cells that lies in [start, stop)."""
    edges = np.arange(length, dtype=np.float64)
    return np.clip(np.minimum(edges + 1, stop) - np.maximum(edges, start), 0.0, 1.0)
