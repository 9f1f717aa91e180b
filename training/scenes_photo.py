"""The camera: one chain of changes for every class, so that neither sharpness, noise nor file size tells a class."""

from __future__ import annotations

import io
from dataclasses import dataclass
from random import Random

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.scenes_common import Pixels, Sheet, cut_texture

LEAST_VISIBLE = 0.85  # of every part, after cropping


@dataclass(frozen=True)
class Photo:
    """What the camera made of a sheet.

    Attributes:
        jpeg: encoded picture.
        ids: uint8 (size, size), number of the deciding part per pixel, 0 for none.
        word_ids: uint8 (size, size), number of the word per pixel, 0 for none.
    """

    jpeg: bytes
    ids: Pixels
    word_ids: Pixels


def take_photo(sheet: Sheet, size: int, random: Random) -> Photo:
    """Move, light, blur, disturb and compress a sheet.

    Args:
        sheet: a square drawing.
        size: side of the picture in pixels.
        random: decides all of it.
    """
    rgb, ids = np.asarray(sheet.rgb), np.asarray(sheet.ids)
    matrix = _choose_view(ids, random)
    side = sheet.size[0]
    rgb = cv2.warpPerspective(rgb, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    pixels = cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    pixels = _blur(_expose(pixels, random), random)
    pixels += _noise(size, random)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(
        buffer, "JPEG", quality=random.randint(45, 95), subsampling=random.choice((0, 2))
    )
    return Photo(buffer.getvalue(), _move(ids, matrix, size), _move(np.asarray(sheet.word_ids), matrix, size))


def _move(numbers: Pixels, matrix: NDArray[np.float64], size: int) -> Pixels:
    seen = cv2.warpPerspective(numbers, matrix, numbers.shape[::-1], flags=cv2.INTER_NEAREST)
    return np.asarray(cv2.resize(seen, (size, size), interpolation=cv2.INTER_NEAREST), np.uint8)


def _choose_view(ids: Pixels, random: Random) -> NDArray[np.float64]:
    """A homography that keeps every part in the picture, or the plain view where none of a few does."""
    side = ids.shape[0]
    small = np.ascontiguousarray(ids[::4, ::4])  # enough to see what is cut off
    shrink = np.diag([0.25, 0.25, 1.0])
    before = np.bincount(small.ravel(), minlength=2)[1:]
    for _ in range(4):
        matrix = _draw_view(side, random)
        view = cv2.warpPerspective(
            small, shrink @ matrix @ np.linalg.inv(shrink), small.shape[::-1], flags=cv2.INTER_NEAREST
        )
        after = np.bincount(view.ravel(), minlength=len(before) + 1)[1:]
        if bool(np.all(after >= LEAST_VISIBLE * before)):
            return matrix
    return np.eye(3)


def _draw_view(side: int, random: Random) -> NDArray[np.float64]:
    inset = 0.06 * side
    tilt = np.deg2rad(random.gauss(0, 3))
    corners = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float64)
    jitter = np.array([[random.uniform(0, inset), random.uniform(0, inset)] for _ in corners])
    inward = np.sign(side / 2 - corners) * jitter
    turned = (corners + inward - side / 2) @ np.array(
        [[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]]
    ) + side / 2
    return np.asarray(cv2.getPerspectiveTransform(turned.astype(np.float32), corners.astype(np.float32)), np.float64)


def _expose(pixels: NDArray[np.float32], random: Random) -> NDArray[np.float32]:
    """Brightness, contrast, white balance, falloff of light to one side and to the corners."""
    size = pixels.shape[0]
    line = np.linspace(-1, 1, size, dtype=np.float32)
    slope = random.gauss(0, 0.12) * line[None, :] + random.gauss(0, 0.12) * line[:, None]
    corners = random.uniform(0, 0.22) * (line[None, :] ** 2 + line[:, None] ** 2) / 2
    gain = random.uniform(0.7, 1.2) * (1 + slope - corners)
    warmth = random.gauss(0, 0.06)
    balance = np.array([1 + warmth, 1 + random.gauss(0, 0.02), 1 - warmth], np.float32)
    lit = pixels * gain[..., None] * balance
    contrast, lift = random.uniform(0.72, 1.12), random.uniform(0, 22)
    return np.asarray((lit - 110) * contrast + 110 + lift * (1 - contrast), np.float32)


def _blur(pixels: NDArray[np.float32], random: Random) -> NDArray[np.float32]:
    scale = pixels.shape[0] / 256
    sigma = random.uniform(0, 0.75) * scale
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.float32) if sigma > 0.3 else pixels


def _noise(size: int, random: Random) -> NDArray[np.float32]:
    """Luminance grain and weaker colour blotches."""
    side = min(size, 512)
    grain = cut_texture("grain", side, side, random)[..., None] * random.uniform(0.5, 7.5)
    colour = np.stack([cut_texture("rough", side, side, random) for _ in range(3)], -1) * random.uniform(0, 2.5)
    noise = np.asarray(grain + colour, np.float32)
    return noise if side == size else np.asarray(cv2.resize(noise, (size, size)), np.float32)
