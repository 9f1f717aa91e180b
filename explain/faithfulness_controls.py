"""What a map has to beat: random maps of its own smoothness, and a blob in the centre.

Insertion and deletion depend on how smooth a map is, whatever it shows: a few large blobs remove a face sooner than
scattered dots do. So a map stands beside random ones that are as smooth as it is. Photographers put what matters in the
centre, so it stands beside a blob there too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Badge", "ControlCurves", "centre_gaussian", "correlation_length", "random_maps", "smoothness_groups"]

Maps = NDArray[np.float32]

_FIELD_PX = 64
"""Smoothness is measured and made on maps whose longer side is this: class activation maps are coarser still."""

_SIGMAS_PX = (0.3, 64.0)
_TRIALS = 12
_HALVINGS = 10

_TRUSTED_SHARE = 0.95


@dataclass(frozen=True)
class ControlCurves:
    """The curves of what a map has to beat, all over the same fractions of the pixels.

    Attributes:
        fractions: float64 (k,), from 0 to 1.
        insertion: float64 (n, k), scores of the random maps.
        deletion: float64 (n, k), likewise.
        centre_insertion: float64 (k,), scores of the blob in the centre.
        centre_deletion: float64 (k,), likewise.
    """

    fractions: NDArray[np.float64]
    insertion: NDArray[np.float64]
    deletion: NDArray[np.float64]
    centre_insertion: NDArray[np.float64]
    centre_deletion: NDArray[np.float64]


@dataclass(frozen=True)
class Badge:
    """How far to believe one map.

    Attributes:
        better_than: number of random maps that the map beats by insertion minus deletion.
        random: float64 (n,), what each random map reached.
        gain: what the map reached.
        centre_gain: what a blob in the centre reached.
        length_px: the map's correlation length, in pixels of the model's input.
        control_px: the correlation length that the random maps were made for.
        class_blind: the method never looks at the target, so that the map is no evidence for a label.
        curves: of the random maps and the blob; ``None`` where only their areas are known.
    """

    better_than: int
    random: NDArray[np.float64]
    gain: float
    centre_gain: float
    length_px: float
    control_px: float
    class_blind: bool
    curves: ControlCurves | None = None

    @property
    def trusted(self) -> bool:
        """Whether the map beats 19 of 20 random maps: chance alone gives that to one map in ten at most."""
        return self.better_than >= _TRUSTED_SHARE * len(self.random)

    @property
    def beats_centre(self) -> bool:
        """Whether the map is worth more than pointing at the middle of the picture."""
        return self.gain > self.centre_gain

    @property
    def text(self) -> str:
        """The badge in one line."""
        beaten = f"better than {self.better_than} of {len(self.random)} random maps"
        said = beaten if self.trusted else f"no better than chance: do not rely on this map ({beaten})"
        centre = "" if self.beats_centre else "; a blob in the centre does as well"
        blind = "; the method ignores the label" if self.class_blind else ""
        return f"{said}{centre}{blind}"


def random_maps(length_px: float, shape_hw: tuple[int, int], count: int, seed: int = 0) -> Maps:
    """Gaussian random fields with a given correlation length.

    Noise is filtered with the Gaussian whose fields have, measured in the same frame, that very length.

    Args:
        length_px: as ``correlation_length`` gives it.
        shape_hw: rows and columns of the maps.
        count: number of maps.
        seed: of the noise.

    Returns:
        float32 (count, h, w), each from 0 to 1.

    Raises:
        ValueError: a length or number that is not positive.
    """
    if length_px <= 0 or count < 1 or min(shape_hw) < 2:
        raise ValueError(f"random maps need a length, a size and a number, got {length_px}, {shape_hw}, {count}")
    rows, cols = _small(shape_hw)
    wanted = length_px * rows / shape_hw[0]
    spectrum = np.fft.rfft2(np.random.default_rng(seed).standard_normal((max(count, _TRIALS), 2 * rows, 2 * cols)))
    low, high = np.log(_SIGMAS_PX)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        reached = np.mean([_length(field) for field in _filtered(spectrum[:_TRIALS], np.exp(middle), rows, cols)])
        low, high = (middle, high) if reached < wanted else (low, middle)
    fields = _filtered(spectrum[:count], np.exp((low + high) / 2), rows, cols)
    fields -= fields.min(axis=(1, 2), keepdims=True)
    fields /= fields.max(axis=(1, 2), keepdims=True)
    height, width = shape_hw
    return np.stack([cv2.resize(field.astype(np.float32), (width, height)) for field in fields])


def centre_gaussian(shape_hw: tuple[int, int]) -> Maps:
    """A blob in the middle, its standard deviations a quarter of the sides; float32 (h, w), its peak near 1."""
    down, across = (np.square((np.arange(size) + 0.5) / size * 4 - 2) / 2 for size in shape_hw)
    return np.exp(-(down[:, None] + across[None])).astype(np.float32)


def correlation_length(values: Maps) -> float:
    """How smooth a map is: the distance at which two of its pixels are half as correlated as a pixel with itself.

    The mean over all directions, from the map's autocorrelation (mean taken out, each distance divided by the number
    of pairs that have it).

    Args:
        values: float32 (h, w), not constant.

    Returns:
        Pixels; at least about half a cell of the 64-pixel grid on which it is measured.

    Raises:
        ValueError: the map is constant.
    """
    rows, cols = _small(values.shape)
    small = values if (rows, cols) == values.shape else cv2.resize(values, (cols, rows), interpolation=cv2.INTER_AREA)
    return _length(small.astype(np.float64)) * values.shape[0] / rows


def smoothness_groups(lengths: Sequence[float], ratio: float = 1.5) -> list[list[int]]:
    """Indices of maps that are alike enough in smoothness to share random maps.

    Args:
        lengths: correlation lengths.
        ratio: of the longest to the shortest within a group, at most.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and lengths[index] <= ratio * lengths[groups[-1][0]]:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _small(shape_hw: tuple[int, ...]) -> tuple[int, int]:
    height, width = shape_hw
    shrink = min(1.0, _FIELD_PX / max(height, width))
    return max(round(height * shrink), 2), max(round(width * shrink), 2)


def _filtered(spectrum: NDArray[np.complex128], sigma: float, rows: int, cols: int) -> NDArray[np.float64]:
    """Fields of noise under a Gaussian, cut from a torus twice as large so that no border meets the opposite one."""
    down, across = np.fft.fftfreq(2 * rows), np.fft.rfftfreq(2 * cols)
    gaussian = np.exp(-2 * np.pi**2 * sigma**2 * (down[:, None] ** 2 + across[None] ** 2))
    return np.fft.irfft2(spectrum * gaussian, s=(2 * rows, 2 * cols))[:, :rows, :cols]


def _length(field: NDArray[np.float64]) -> float:
    """``correlation_length`` in cells of the field."""
    rows, cols = field.shape
    centred = field - field.mean()
    if not np.ptp(field) > 0:
        raise ValueError("a constant map has no smoothness")
    padded = (2 * rows, 2 * cols)
    shifted = np.fft.irfft2(np.abs(np.fft.rfft2(centred, s=padded)) ** 2, s=padded)[:rows]
    shifted = np.concatenate([shifted[:, :cols], shifted[:, cols + 1 :][:, ::-1]], axis=1)  # lags right, then left
    across = np.concatenate([np.arange(cols), np.arange(1, cols)])
    pairs = (rows - np.arange(rows))[:, None] * (cols - across)[None]
    distance = np.hypot(np.arange(rows)[:, None], across[None])
    correlation = shifted / pairs / (shifted[0, 0] / pairs[0, 0])
    rings = np.rint(distance).astype(int).ravel()
    reach = min(rows, cols)
    near = rings < reach  # farther pairs are too few to tell
    radial = np.bincount(rings[near], correlation.ravel()[near]) / np.bincount(rings[near])
    below = np.flatnonzero(radial < 0.5)
    if not below.size:
        return float(reach)
    last = int(below[0])
    return float(last - 1 + (radial[last - 1] - 0.5) / (radial[last - 1] - radial[last]))
