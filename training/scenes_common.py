"""What every generated scene is drawn on: a sheet that remembers which pixels belong to what decides its class.

Everything random comes from the ``Random`` a caller passes in, so one seed gives one picture.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.errors import DataError

Colour = tuple[int, int, int]
Point = tuple[float, float]
Pixels = NDArray[np.uint8]

LABEL_NAMES = ("unrelated", "drug chat", "drug deal place", "drug substance")
UNRELATED, CHAT, PLACE, SUBSTANCE = range(4)
SHEET_PX = 512  # scenes are drawn on twice the default picture size; the camera reduces them, which smooths edges
TEXTURE_PX = 1024
MOST_WORDS = 255  # of a sheet, numbered in 8 bits
HANGUL_PACKAGE = "koreanize-matplotlib"

COLOURS: dict[str, Colour] = {
    "white": (236, 234, 228),
    "blue": (78, 120, 196),
    "green": (96, 160, 92),
    "yellow": (226, 196, 74),
    "pink": (226, 140, 170),
    "orange": (226, 134, 62),
    "purple": (140, 100, 176),
    "brown": (122, 86, 58),
    "black": (38, 37, 40),
    "red": (190, 56, 52),
    "grey": (128, 128, 130),
}


@dataclass(frozen=True)
class Claim:
    """A sentence that holds for a picture, and the same sentence with one thing changed so that it does not."""

    true: str
    false: str


def change_one(template: str, true: str, false: str) -> Claim:
    """Fill the one slot of a sentence twice.

    Args:
        template: sentence with one ``{}``.
        true: what the picture shows.
        false: what it does not show.
    """
    return Claim(template.format(true), template.format(false))


@dataclass
class Scene:
    """One drawn scene before the camera.

    Attributes:
        sheet: the drawing; its parts are what decides the class.
        label: index into ``LABEL_NAMES``.
        kind: what was drawn, for instance ``chat/ko`` or ``place/lockers``.
        caption: one sentence.
        claims: true and minimally changed false claims.
    """

    sheet: Sheet
    label: int
    kind: str
    caption: str
    claims: list[Claim] = field(default_factory=list)


class Sheet:
    """RGB pixels and, aligned with them, the numbers of the deciding part and of the word that each shows (0: none).

    Args:
        width: in pixels.
        height: in pixels.
        fill: background colour.

    Attributes:
        rgb: PIL image, RGB.
        ids: PIL image, L; part number per pixel.
        parts: label of part 1, 2, …
        word_ids: PIL image, L; word number per pixel.
        words: word 1, 2, … as written.
    """

    def __init__(self, width: int = SHEET_PX, height: int = SHEET_PX, fill: Colour = (0, 0, 0)) -> None:
        self.rgb = Image.new("RGB", (width, height), fill)
        self.ids = Image.new("L", (width, height), 0)
        self.parts: list[str] = []
        self.word_ids = Image.new("L", (width, height), 0)
        self.words: list[str] = []

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.rgb.size

    @property
    def draw(self) -> ImageDraw.ImageDraw:
        """A pen for pixels that belong to no part."""
        return ImageDraw.Draw(self.rgb)

    def add_part(self, label: str) -> int:
        """Number of a new deciding part."""
        self.parts.append(label)
        return len(self.parts)

    def write(self, xy: Point, row: str, font: ImageFont.FreeTypeFont, fill: Colour) -> None:
        """Draw a row of text from its upper left corner and remember where each of its words stands."""
        self.draw.text(xy, row, fill=fill, font=font)
        pen, (left, top), height = ImageDraw.Draw(self.word_ids), xy, sum(font.getmetrics())
        for found in re.finditer(r"\S+", row):
            if len(self.words) == MOST_WORDS:
                return
            self.words.append(found.group())
            start, end = (left + font.getlength(row[:place]) for place in found.span())
            pen.rectangle((start, top, end, top + height), fill=len(self.words))

    def stamp(self, sprite: Image.Image, xy: Point, part: int = 0, shadow: float = 0.0) -> None:
        """Paste a sprite (RGBA) centred at ``xy``; its opaque pixels become ``part``.

        Args:
            sprite: RGBA picture.
            xy: centre on the sheet in pixels.
            part: number from ``add_part``; 0 hides parts beneath.
            shadow: darkness in [0, 1] of a soft shadow below the sprite.
        """
        left, top = round(xy[0] - sprite.width / 2), round(xy[1] - sprite.height / 2)
        alpha = sprite.getchannel("A")
        if shadow:
            self._cast(alpha, left, top, shadow)
        self.rgb.paste(sprite, (left, top), alpha)
        self.ids.paste(part, (left, top), alpha.convert("1", dither=Image.Dither.NONE))

    def _cast(self, alpha: Image.Image, left: int, top: int, shadow: float) -> None:
        reach = max(4, round(0.06 * max(alpha.size)))
        wide = Image.new("L", (alpha.width + 4 * reach, alpha.height + 4 * reach), 0)
        wide.paste(alpha, (2 * reach, 2 * reach))
        soft = cv2.blur(cv2.blur(np.asarray(wide), (reach, reach)), (reach, reach))
        dark = Image.fromarray((soft * shadow).astype(np.uint8))
        self.rgb.paste((8, 8, 12), (left - 2 * reach + reach // 2, top - 2 * reach + reach), dark)

    def spread(self, flat: Image.Image, corners: list[Point], part: int = 0) -> None:
        """Lay a flat picture (RGB or RGBA) onto a quadrilateral given clockwise from its top left corner."""
        width, height = flat.size
        source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        matrix = cv2.getPerspectiveTransform(source, np.array(corners, np.float32))
        left, top = (max(0, int(min(axis)) - 1) for axis in zip(*corners, strict=True))
        right = min(self.size[0], int(max(x for x, _ in corners)) + 2)
        bottom = min(self.size[1], int(max(y for _, y in corners)) + 2)
        if right <= left or bottom <= top:
            return
        shift = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], np.float64)
        rgba = cv2.warpPerspective(np.asarray(flat.convert("RGBA")), shift @ matrix, (right - left, bottom - top))
        warped = Image.fromarray(rgba)
        alpha = warped.getchannel("A")
        self.rgb.paste(warped, (left, top), alpha)
        self.ids.paste(part, (left, top), alpha.convert("1", dither=Image.Dither.NONE))

    def adopt(self, other: Sheet, corners: list[Point]) -> None:
        """Lay another sheet, with its parts, onto a quadrilateral of this one."""
        source = np.array([[0, 0], [other.size[0], 0], other.size, [0, other.size[1]]], np.float32)
        matrix = cv2.getPerspectiveTransform(source, np.array(corners, np.float32))
        self.spread(other.rgb, corners)
        self.ids = _lay_numbers(self.ids, other.ids, matrix, len(self.parts))
        self.word_ids = _lay_numbers(self.word_ids, other.word_ids, matrix, len(self.words))
        self.parts += other.parts
        self.words += other.words

    def shade(self, light: NDArray[np.float32]) -> None:
        """Multiply the pixels by a map (h, w) or (h, w, 3) of any smaller size, stretched over the sheet."""
        wide = cv2.resize(light, self.size, interpolation=cv2.INTER_LINEAR)
        self.rgb = Image.fromarray(scale_pixels(np.asarray(self.rgb), np.asarray(wide, np.float32)))


def _lay_numbers(below: Image.Image, above: Image.Image, matrix: NDArray[Any], offset: int) -> Image.Image:
    """Numbers of one sheet, counted on from ``offset``, over those of another where there are any."""
    numbers = np.asarray(above).astype(np.int32)
    counted = np.where(numbers > 0, numbers + offset, 0).astype(np.uint8)
    warped = cv2.warpPerspective(counted, matrix, below.size, flags=cv2.INTER_NEAREST)
    return Image.fromarray(np.where(warped > 0, warped, np.asarray(below)))


@functools.lru_cache
def make_texture(kind: str) -> NDArray[np.float32]:
    """A tileable field of noise, (1024, 1024), mean 0 and standard deviation 1.

    Args:
        kind: ``cloud`` (large soft shapes), ``rough`` (plaster, asphalt), ``grain`` (single pixels), ``fibre`` (wood).
    """
    shape = {"cloud": (1.9, 1.0), "rough": (1.1, 1.0), "grain": (0.15, 1.0), "fibre": (1.4, 14.0)}
    power, stretch = shape[kind]
    noise = np.random.default_rng(len(kind)).standard_normal((TEXTURE_PX, TEXTURE_PX))
    down = np.fft.fftfreq(TEXTURE_PX)[:, None]
    across = np.fft.rfftfreq(TEXTURE_PX)[None, :] * stretch
    radius = np.sqrt(down**2 + across**2)
    radius[0, 0] = np.inf
    field_ = np.fft.irfft2(np.fft.rfft2(noise) / radius**power, s=noise.shape)
    return ((field_ - field_.mean()) / field_.std()).astype(np.float32)


def cut_texture(kind: str, width: int, height: int, random: Random) -> NDArray[np.float32]:
    """A window (height, width) of a texture at a random place, at most 1024 px a side."""
    top, left = (random.randrange(TEXTURE_PX - side + 1) for side in (height, width))
    return make_texture(kind)[top : top + height, left : left + width]


def paint(colour: Colour, width: int, height: int, random: Random, kind: str = "rough", depth: float = 0.08) -> Pixels:
    """A surface (height, width, 3) of one colour, made uneven by ``depth`` (relative standard deviation)."""
    top, left = (random.randrange(TEXTURE_PX - side + 1) for side in (height, width))
    steps = _make_steps(kind)[top : top + height, left : left + width]
    noise = (np.arange(256, dtype=np.float32)[:, None] - 128) / 32
    table = np.clip(np.array(colour, np.float32) * (1 + depth * noise), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(cv2.merge([steps] * 3), table[None]), np.uint8)


@functools.lru_cache
def _make_steps(kind: str) -> Pixels:
    """A texture in 32 steps per standard deviation around 128, so that painting is one look-up per pixel."""
    return np.clip(make_texture(kind) * 32 + 128, 0, 255).astype(np.uint8)


def scale_pixels(pixels: Pixels, factor: NDArray[np.floating[Any]]) -> Pixels:
    """Colours (h, w, 3) times a factor (h, w) or (h, w, 3), rounded and clipped to [0, 255]."""
    light = factor.astype(np.float32, copy=False)
    wide = light if light.ndim == 3 else cv2.merge([light] * 3)
    return np.asarray(cv2.multiply(pixels, wide, dtype=cv2.CV_8U), np.uint8)


def vary(colour: Colour, random: Random, spread: int = 14) -> Colour:
    """A colour near another one."""
    together = random.randint(-spread, spread)
    red, green, blue = (min(255, max(0, c + together + random.randint(-spread // 2, spread // 2))) for c in colour)
    return red, green, blue


def darken(colour: Colour, factor: float) -> Colour:
    """A colour times ``factor``, clipped to [0, 255]."""
    red, green, blue = (min(255, max(0, round(c * factor))) for c in colour)
    return red, green, blue


def with_alpha(pixels: Pixels, mask: Image.Image) -> Image.Image:
    """A sprite (RGBA) from colours (h, w, 3) and an opacity of the same size."""
    sprite = Image.fromarray(pixels).convert("RGBA")
    sprite.putalpha(mask)
    return sprite


def turn(sprite: Image.Image, degrees: float) -> Image.Image:
    """A sprite rotated about its centre, on as much room as it needs."""
    return sprite.rotate(degrees, Image.Resampling.BILINEAR, expand=True)


def find_fonts(language: str) -> tuple[Path, ...]:
    """Font files that have every letter of a language (``ko``, ``en`` or ``pl``), always the same ones in one order.

    Raises:
        DataError: if a font's package is not installed.
    """
    latin = [_locate("matplotlib", f"matplotlib/mpl-data/fonts/ttf/{name}.ttf") for name in _LATIN]
    if language == "pl":
        return tuple(latin)
    hangul = [_locate(HANGUL_PACKAGE, f"koreanize_matplotlib/fonts/{name}.ttf") for name in _HANGUL]
    return tuple(hangul if language == "ko" else latin + hangul)


_LATIN = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono")
_HANGUL = ("NanumGothic", "NanumGothicBold", "NanumGothicExtraBold")


def _locate(package: str, file: str) -> Path:
    # By its metadata: importing the package would change matplotlib's settings.
    try:
        path = Path(str(metadata.distribution(package).locate_file(file)))
    except metadata.PackageNotFoundError as error:
        raise DataError(f"the fonts of {package} are missing; run `pip install {package}`.") from error
    if not path.is_file():
        raise DataError(f"{path.name} is missing from {package}; run `pip install --force-reinstall {package}`.")
    return path


@functools.lru_cache(maxsize=256)
def load_font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    """A font at ``size`` px, laid out without Raqm so that machines with and without it draw alike."""
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
