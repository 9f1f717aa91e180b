"""Pictures to try: photographs inside installed packages, drawings of ours, one made here. Nothing is downloaded.

Each is found when the page is built; one that is missing is left out.
"""

from __future__ import annotations

import importlib.util
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from models.imaging import SourceImage, read_image
from ui import pictures

# Name, package, file inside it. The portrait is NASA's photograph of Eileen Collins, in the public domain; the cat and
# the cup are scikit-image's CC0 photographs; the street is the sample that Ultralytics ships.
_PHOTOGRAPHS = (
    ("astronaut", "skimage", "data/astronaut.png"),
    ("cat", "skimage", "data/chelsea.png"),
    ("coffee", "skimage", "data/coffee.png"),
    ("bus", "ultralytics", "assets/bus.jpg"),
)
# Drawn by training.scenes and training.charts with a seed that no model here has learned from.
_DRAWN = (("chat", "chat.jpg"), ("place", "place.jpg"), ("chart", "chart.png"))
_DRAWINGS = Path(__file__).parents[1] / "assets" / "examples"
GENERATED_SIDE_PX = 512
THUMBNAIL_SIDE_PX = 96


@dataclass(frozen=True)
class Example:
    """One picture to try.

    Attributes:
        name: key of its words (``example.NAME``) and the name that results carry.
        path: the file, or ``None`` for the generated picture.
    """

    name: str
    path: Path | None

    def read(self) -> SourceImage:
        """The checked picture."""
        if self.path is None:
            return read_image(generate_picture(), f"{self.name}.png")
        return read_image(self.path)

    @cached_property
    def thumbnail(self) -> str:
        """The picture as a small square, a data URI made once."""
        return pictures.data_uri(pictures.fit_square(self.read().rgb, THUMBNAIL_SIDE_PX))


def find_examples() -> tuple[Example, ...]:
    """The examples that this machine has."""
    found = [
        Example(name, folder / file)
        for name, package, file in _PHOTOGRAPHS
        if (folder := _package_folder(package)) is not None and (folder / file).is_file()
    ]
    drawn = [Example(name, _DRAWINGS / file) for name, file in _DRAWN if (_DRAWINGS / file).is_file()]
    return (*found, Example("generated", None), *drawn)


def generate_picture(seed: int = 7) -> bytes:
    """A face-like drawing as PNG bytes: made by arithmetic, so certainly no photograph.

    Args:
        seed: of the grain.
    """
    side = GENERATED_SIDE_PX
    y, x = np.mgrid[0:side, 0:side].astype(np.float64) / side
    grain = np.random.default_rng(seed).normal(0, 4, (side, side, 1))
    picture = np.stack([60 + 90 * y, 80 + 70 * x, 120 + 60 * (1 - y)], axis=-1)
    shapes = (
        ((0.50, 0.52, 0.27, 0.36), (222, 178, 150)),  # head: centre x, centre y, radius x, radius y
        ((0.40, 0.44, 0.055, 0.03), (250, 250, 250)),
        ((0.60, 0.44, 0.055, 0.03), (250, 250, 250)),
        ((0.40, 0.44, 0.024, 0.026), (60, 45, 35)),
        ((0.60, 0.44, 0.024, 0.026), (60, 45, 35)),
        ((0.50, 0.57, 0.03, 0.07), (198, 148, 122)),
        ((0.50, 0.70, 0.10, 0.03), (170, 80, 80)),
    )
    for (cx, cy, rx, ry), colour in shapes:
        distance = np.hypot((x - cx) / rx, (y - cy) / ry)
        edge = np.clip((1 - distance) * 20, 0, 1)[..., None]
        shade = (1 - 0.18 * np.clip(distance, 0, 1))[..., None]
        picture = picture * (1 - edge) + np.array(colour) * shade * edge
    buffer = io.BytesIO()
    Image.fromarray(np.clip(picture + grain, 0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _package_folder(package: str) -> Path | None:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None
