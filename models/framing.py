"""Which part of a picture an image processor shows to the model.

Processors stretch, shrink and crop, each family in its own way. A heatmap drawn over the wrong part still looks
plausible, so the part is computed with the processor's own code, and measured where its code is not the common one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_processing_utils import BaseImageProcessor

from models.errors import IncompatibleMethodError
from models.schema import Box

__all__ = ["measured_box", "seen_box"]

_COMMON_STEPS = ("resize", "center_crop", "_preprocess")
_WHITE = 255


def seen_box(processor: BaseImageProcessor, size_wh: tuple[int, int]) -> Box:
    """The rectangle of a picture of ``size_wh`` that ``processor`` passes on, in original pixels.

    Args:
        processor: a saved image processor.
        size_wh: width and height of the picture.

    Returns:
        ``xyxy`` in original pixels; smaller than the picture where the processor crops, larger where it pads.

    Raises:
        IncompatibleMethodError: the processor does something else than resizing, cropping and padding.
    """
    if not isinstance(processor, TorchvisionBackend) or not _is_common(processor):
        return measured_box(processor, size_wh)
    settings: Any = processor
    width, height = size_wh
    if not settings.do_center_crop:
        return (0.0, 0.0, float(width), float(height))
    shown_w, shown_h = width, height
    if settings.do_resize:
        # A tensor without data tells the size the processor would choose, at no cost.
        shape = settings.resize(torch.empty(1, 3, height, width, device="meta"), size=settings.size).shape
        shown_h, shown_w = int(shape[-2]), int(shape[-1])
    left, right = _crop_span(shown_w, settings.crop_size["width"])
    top, bottom = _crop_span(shown_h, settings.crop_size["height"])
    per_x, per_y = width / shown_w, height / shown_h
    return (left * per_x, top * per_y, right * per_x, bottom * per_y)


def measured_box(processor: BaseImageProcessor, size_wh: tuple[int, int]) -> Box:
    """As ``seen_box``, but read from what the processor makes of pictures whose greys are their coordinates.

    Right for any processor that scales, crops and pads evenly; exact to about a thousandth of the picture's side.

    Raises:
        IncompatibleMethodError: the coordinates that come out do not lie on a straight line.
    """
    width, height = size_wh
    across = np.broadcast_to(_ramp(width)[None, :], (height, width))
    down = np.broadcast_to(_ramp(height)[:, None], (height, width))
    flat = np.zeros((height, width), dtype=np.uint8)
    greys = [Image.fromarray(grey).convert("RGB") for grey in (across, down, flat, flat + _WHITE)]
    pixels = np.asarray(processor(images=greys, return_tensors="np")["pixel_values"], dtype=np.float64)
    if pixels.ndim != 4 or len(pixels) != len(greys):
        raise IncompatibleMethodError(_unknown(processor))
    x, y, black, white = pixels.mean(axis=1)
    # Black and white show how the processor recolours; where they come out alike it has padded.
    inside = white - black > 0.99 * (white - black).max()
    scale = np.where(inside, white - black, 1.0)
    x0, x1 = _line((x - black) / scale, inside, axis=1, processor=processor)
    y0, y1 = _line((y - black) / scale, inside, axis=0, processor=processor)
    return (x0 * width, y0 * height, x1 * width, y1 * height)


def _is_common(processor: TorchvisionBackend) -> bool:
    same = all(getattr(type(processor), step) is getattr(TorchvisionBackend, step) for step in _COMMON_STEPS)
    return same and not getattr(processor, "do_pad", False)


def _crop_span(length: int, wanted: int) -> tuple[int, int]:
    """First and last-plus-one position of a centre crop, as TorchvisionBackend.center_crop places it."""
    start = -((wanted - length) // 2) if wanted > length else int((length - wanted) / 2)
    return start, start + wanted


def _ramp(length: int) -> NDArray[np.uint8]:
    return np.round((np.arange(length) + 0.5) / length * _WHITE).astype(np.uint8)


def _line(
    values: NDArray[np.float64], inside: NDArray[np.bool_], *, axis: int, processor: BaseImageProcessor
) -> tuple[float, float]:
    """Where coordinates in [0, 1] begin and end along an axis: at the outer edges of the first and last pixel."""
    counts = inside.sum(axis=1 - axis)
    lit = np.flatnonzero(counts)
    # Resampling bends the ramp at the picture's border, so the outermost tenth does not take part.
    margin = len(lit) // 10
    lit = lit[margin : len(lit) - margin]
    if len(lit) < 2:
        raise IncompatibleMethodError(_unknown(processor))
    means = (values * inside).sum(axis=1 - axis)[lit] / counts[lit]
    slope, start = np.polyfit(lit, means, 1)
    line = np.expand_dims(start + slope * lit, 1 - axis)
    astray = np.abs(values.take(lit, axis) - line)[inside.take(lit, axis)].max()
    if slope <= 0 or astray > 2 / _WHITE + 2 * slope:
        raise IncompatibleMethodError(_unknown(processor))
    return float(start - slope / 2), float(start + slope * (values.shape[axis] - 0.5))


def _unknown(processor: BaseImageProcessor) -> str:
    return (
        f"{type(processor).__name__} does not simply resize and crop, so a heatmap cannot be placed on the picture; "
        "use a model whose processor does"
    )
