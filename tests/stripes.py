"""Pictures that a tiny model learns in seconds: stripes across or down."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from training.labelled import LabelledSet, write_parquet


def draw_stripes(label: int, rng: np.random.Generator) -> bytes:
    """Horizontal stripes for label 0, vertical ones for label 1, of random phase and colour, with noise."""
    wave = 100 * np.sin(np.arange(32) * 0.8 + rng.uniform(0, 6))
    plane = wave[:, None] if label == 0 else wave[None, :]
    pixels = 128 + plane[..., None] * rng.uniform(0.5, 1, 3) + rng.normal(0, 10, (32, 32, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_stripes(file: Path, count: int, names: Sequence[str] = ("fake", "real"), *, seed: int = 0) -> None:
    """A labelled set of ``count`` pictures, stripes across and down in turn, called by the two names."""
    rng = np.random.default_rng(seed)
    labels = tuple(index % 2 for index in range(count))
    pictures = tuple(draw_stripes(label, rng) for label in labels)
    write_parquet(LabelledSet(pictures, labels, tuple(names), tuple(map(str, range(count)))), file)
