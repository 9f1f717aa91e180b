"""A stand-in for an image-text model whose cosines can be worked out by hand: colours are its whole world."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.clip import square_around
from models.schema import Box

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}


class ColourClip:
    """A picture's vector is its mean colour, a text's the sum of the colours it names; anything else is grey."""

    def __init__(self) -> None:
        self.spec = SimpleNamespace(id="colours")
        self.status = SimpleNamespace(weights_sha256="c0ffee")
        self.text_batches: list[list[str]] = []

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        return _unit(np.array([np.asarray(image).reshape(-1, 3).mean(0) for image in images]))

    def embed_regions(self, image: Image.Image, boxes: Sequence[Box]) -> NDArray[np.float32]:
        return self.embed_images([image.crop(square_around(box, image.size)) for box in boxes])

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.text_batches.append(list(texts))
        rows = []
        for text in texts:
            named = [COLOURS[word] for word in text.lower().replace(".", "").split() if word in COLOURS]
            rows.append(np.sum(named, axis=0) if named else np.ones(3))
        return _unit(np.array(rows))

    def similarity(self, images: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        return self.embed_images(images) @ self.embed_texts(texts).T


def halves(left: str, right: str, size_wh: tuple[int, int] = (100, 100)) -> Image.Image:
    """A picture whose left half has one colour and whose right half another."""
    pixels = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    middle = size_wh[0] // 2
    pixels[:, :middle] = np.array(COLOURS[left]) * 255
    pixels[:, middle:] = np.array(COLOURS[right]) * 255
    return Image.fromarray(pixels)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(lengths, 1e-9)).astype(np.float32)
