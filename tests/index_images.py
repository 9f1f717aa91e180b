"""Pictures whose patches carry their number, and checks that a heatmap lies where the picture is red."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

STEP = 17
"""Grey levels between two numbers' colours: more than resampling blurs a patch's middle."""


def numbered(size_wh: tuple[int, int], rows: int, cols: int) -> Image.Image:
    """A picture cut evenly into rows x cols (at most 4096) areas, each in the colour of its raster number."""
    width, height = size_wh
    row = np.arange(height) * rows // height
    col = np.arange(width) * cols // width
    number = row[:, None] * cols + col
    digits = np.stack([number % 16, number // 16 % 16, number // 256], axis=-1)
    return Image.fromarray((digits * STEP).astype(np.uint8))


def coordinates(size_wh: tuple[int, int]) -> Image.Image:
    """A picture whose red says how far right a pixel's middle lies and whose green how far down."""
    width, height = size_wh
    pixels = np.zeros((height, width, 3))
    pixels[..., 0] = (np.arange(width) + 0.5) / width * 255
    pixels[..., 1] = ((np.arange(height) + 0.5) / height * 255)[:, None]
    return Image.fromarray(pixels.round().astype(np.uint8))


def with_red(size_wh: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """A grey picture with one red area, ``xyxy``."""
    picture = Image.new("RGB", size_wh, (120, 120, 120))
    picture.paste((255, 0, 0), box)
    return picture


def middles(image_processor, pixels: torch.Tensor, patch_px: int) -> np.ndarray:
    """Grey levels (views * patches, 3) in the middle of every patch of ``pixels`` (views, 3, side, side), in order."""
    std = torch.tensor(image_processor.image_std)[:, None, None]
    mean = torch.tensor(image_processor.image_mean)[:, None, None]
    levels = (pixels * std + mean) * 255
    views, _, height, width = levels.shape
    cells = levels.reshape(views, 3, height // patch_px, patch_px, width // patch_px, patch_px)
    inner = cells[:, :, :, patch_px // 2 - 1 : patch_px // 2 + 1, :, patch_px // 2 - 1 : patch_px // 2 + 1]
    return inner.mean((3, 5)).permute(0, 2, 3, 1).reshape(-1, 3).numpy()


def numbers(levels: np.ndarray) -> np.ndarray:
    """The numbers that ``numbered`` wrote, from the colours of the patches' middles."""
    return (levels / STEP).round().astype(int) @ np.array([1, 16, 256])


def assert_heat_in(heatmap, red_xyxy: tuple[int, int, int, int]) -> None:
    """Cells wholly in the red area are hot and cells that touch none of it (nor its blurred rim) are cold."""
    left, top, right, bottom = red_xyxy
    for part in heatmap.parts:
        rows, cols = part.cam.shape
        x0, y0, x1, y1 = part.box_xyxy
        xs, ys = np.linspace(x0, x1, cols + 1), np.linspace(y0, y1, rows + 1)
        rim_x, rim_y = (x1 - x0) / cols, (y1 - y0) / rows
        within = ((ys[:-1] >= top) & (ys[1:] <= bottom))[:, None] & ((xs[:-1] >= left) & (xs[1:] <= right))
        touched = ((ys[1:] > top - rim_y) & (ys[:-1] < bottom + rim_y))[:, None] & (
            (xs[1:] > left - rim_x) & (xs[:-1] < right + rim_x)
        )
        assert within.any()
        assert not touched.all()
        assert part.cam[within].min() > 0.5 * heatmap.raw_max, heatmap.method
        assert part.cam[~touched].max() < 0.02 * heatmap.raw_max, heatmap.method
    row, col = np.unravel_index(heatmap.values.argmax(), heatmap.values.shape)
    assert left <= col < right
    assert top <= row < bottom
