"""Activation cells to rectangles, and maps to pixels of the original image.

Everything follows from a ``TokenLayout``: how many rows and columns there are is read there, never assumed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from explain.schema import MapPart
from models.errors import IncompatibleMethodError
from models.schema import TokenGrid

__all__ = ["cells_of", "project"]


def cells_of(activation: NDArray[np.float32], grid: TokenGrid) -> NDArray[np.float32]:
    """The cells of one grid as a channels-first map.

    Args:
        activation: of one image (or its gradient): (c, h, w) for a grid without ``tokens``, otherwise (tokens, c).
        grid: which cells, in which order.

    Returns:
        (c, rows, cols), same dtype.

    Raises:
        IncompatibleMethodError: the activation does not have the cells that the grid names.
    """
    if grid.tokens is None:
        if activation.ndim != 3:
            raise IncompatibleMethodError(
                f"The layer gives {activation.shape} per image where a map (channels, rows, columns) is needed; "
                "choose a layer that keeps the picture's rows and columns."
            )
        return activation
    if activation.ndim != 2 or grid.tokens.max(initial=-1) >= activation.shape[0] or grid.tokens.min(initial=0) < 0:
        raise IncompatibleMethodError(
            f"The layer gives {activation.shape} per image where (tokens, channels) with at least "
            f"{grid.tokens.max(initial=-1) + 1} tokens is needed; choose a layer of the vision transformer's blocks."
        )
    return np.moveaxis(activation[grid.tokens], -1, 0)


def project(
    parts: Sequence[MapPart],
    source_wh: tuple[int, int],
    target_wh: tuple[int, int],
    scale: tuple[float, float],
) -> NDArray[np.float32]:
    """A picture-sized map from CAMs at layer resolution.

    Bilinear with half-pixel centres and edges held, as ``cv2.resize`` and ``interpolate(align_corners=False)`` do it,
    so a map that covers the whole picture equals pytorch-grad-cam's. A pixel belongs to a part when its centre lies
    in the part's box. Both axes are interpolated by one small matrix each, so that boxes at fractions of a pixel are
    exact and a 50-megapixel target costs one matrix product.

    Args:
        parts: CAMs and where they lie in the source; averaged where they overlap. A box may reach beyond the picture.
        source_wh: width and height of the original image.
        target_wh: width and height wanted.
        scale: raw values shown as 0 and 1.

    Returns:
        float32 (height, width) in [0, 1], 0 outside every part.

    Raises:
        ValueError: the scale is empty or a size is not positive.
    """
    low, high = scale
    if not high > low:
        raise ValueError(f"scale must rise, got {scale}")
    if min(*source_wh, *target_wh) <= 0:
        raise ValueError(f"sizes must be positive, got {source_wh} and {target_wh}")
    total = np.zeros(target_wh[::-1], np.float32)
    count = np.zeros(target_wh[::-1], np.uint8) if len(parts) > 1 else None
    for part in parts:
        rows, cols = part.cam.shape
        left, top, right, bottom = part.box_xyxy
        x_range, across = _interpolation(cols, left, right, source_wh[0], target_wh[0])
        y_range, down = _interpolation(rows, top, bottom, source_wh[1], target_wh[1])
        scaled = ((part.cam - np.float64(low)) / (high - low)).astype(np.float32)
        area = total[y_range, x_range]
        if count is None:
            np.matmul(down, scaled @ across.T, out=area)
        else:
            area += down @ (scaled @ across.T)
            count[y_range, x_range] += 1
    if count is not None:
        total /= np.maximum(count, 1)
    return np.clip(total, 0, 1, out=total)


def _interpolation(cells: int, start: float, end: float, source: int, target: int) -> tuple[slice, NDArray[np.float32]]:
    """The target pixels that lie in [start, end) of one axis, and the matrix (pixels, cells) that fills them."""
    step = source / target
    first, last = (min(max(math.ceil(edge / step - 0.5), 0), target) for edge in (start, end))
    position = np.arange(first, last) * (step * cells / (end - start))
    position += (0.5 * step - start) * cells / (end - start) - 0.5
    np.minimum(np.maximum(position, 0, out=position), cells - 1, out=position)
    # Each cell's share falls to 0 at the next cell's centre: that is what bilinear means.
    shares = np.subtract.outer(position, np.arange(cells, dtype=position.dtype))
    np.subtract(1, np.abs(shares, out=shares), out=shares)
    return slice(first, last), np.maximum(shares, 0, out=shares).astype(np.float32)
