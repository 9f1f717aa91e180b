"""Arrays to pictures. Nothing here draws on the caller's image.

The colour map is perceptually even and safe for colour-blind readers: equal steps of heat look like equal steps.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import supervision as sv
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from explain.catalog import CATALOG
from explain.difference import DifferenceMap
from explain.schema import Heatmap
from models.schema import Detections

# Green and yellow stand out on skin, wood and clay, where a map that ends in orange is lost.
COLOUR_MAP = "viridis"
# Blue to red over a neutral grey, equally light at equal distance to both sides (Moreland 2009,
# doi:10.1007/978-3-642-10520-3_9). Of matplotlib's diverging maps the one whose sides stay farthest apart, at every
# distance, for readers without red, green or blue cones.
DIFFERENCE_MAP = "coolwarm"
DEFAULT_OPACITY = 0.65
SCREEN_SIDE_PX = 1024
# Okabe and Ito's palette without its black: told apart under every common colour-vision deficiency.
BOX_PALETTE = ("#56B4E9", "#E69F00", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
LEGEND_WH = (420, 64)


def fit(image: Image.Image, side_px: int = SCREEN_SIDE_PX) -> Image.Image:
    """The picture at most ``side_px`` on its longer side; a copy, never enlarged."""
    scale = side_px / max(image.size)
    if scale >= 1:
        return image.copy()
    size_wh = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size_wh, Image.Resampling.LANCZOS, reducing_gap=3.0)


def colourise(values: NDArray[np.float32]) -> Image.Image:
    """A map in [0, 1], float32 (H, W), as an RGB picture in the colour map."""
    return Image.fromarray(_lookup_table(COLOUR_MAP)[_levels(values)])


def colourise_difference(values: NDArray[np.float32]) -> Image.Image:
    """A signed map in [-1, 1], float32 (H, W), as an RGB picture: red above 0, blue below, grey at 0."""
    return Image.fromarray(_signed_colours(values))


def difference_colours(values: NDArray[np.float32]) -> tuple[str, ...]:
    """Web colours (``#rrggbb``) of signed values in [-1, 1], float32 (n,): for words under their own text.

    The outer third of the map is left out, so that black text is readable on every colour.
    """
    return tuple(
        f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in _signed_colours(values * np.float32(2 / 3)).tolist()
    )


def overlay(photo: Image.Image, values: NDArray[np.float32], opacity: float = DEFAULT_OPACITY) -> Image.Image:
    """Heat laid over a photo so that the photo stays readable.

    The opacity of each pixel grows with the square root of its heat, so that half the heat is still seen: where the map
    is 0 the photo is unchanged to the byte, and nothing is rescaled by the picture's own maximum, so its brightness is
    kept.

    Args:
        photo: RGB.
        values: float32 (H, W) in [0, 1], the photo's size.
        opacity: of the hottest pixel, in [0, 1].

    Returns:
        A new RGB picture.

    Raises:
        ValueError: if the sizes differ or the opacity is out of range.
    """
    return _mix(photo, _lookup_table(COLOUR_MAP)[_levels(values)], values, opacity)


def overlay_difference(
    photo: Image.Image, values: NDArray[np.float32], opacity: float = DEFAULT_OPACITY
) -> Image.Image:
    """A signed map in [-1, 1] laid over a photo as ``overlay`` does it: where it is 0 the photo is unchanged.

    Raises:
        ValueError: if the sizes differ or the opacity is out of range.
    """
    return _mix(photo, _signed_colours(values), np.abs(values), opacity)


def draw_heatmap(
    photo: Image.Image,
    heatmap: Heatmap,
    *,
    opacity: float = DEFAULT_OPACITY,
    scale: tuple[float, float] | None = None,
) -> Image.Image:
    """``overlay`` of a heatmap on its photo, at the size at which the photo is given (see ``fit``).

    A signed map is laid over it in the diverging colours: red speaks for the target, blue against it.
    """
    if heatmap.signed:
        return overlay_difference(photo, heatmap.signed_at(photo.size, scale), opacity)
    return overlay(photo, heatmap.at(photo.size, scale), opacity)


def draw_difference(photo: Image.Image, difference: DifferenceMap, *, opacity: float = DEFAULT_OPACITY) -> Image.Image:
    """``overlay_difference`` of two heatmaps on their photo, at the size at which the photo is given (see ``fit``)."""
    return overlay_difference(photo, difference.at(photo.size), opacity)


def draw_detections(image: Image.Image, detections: Detections) -> Image.Image:
    """Boxes with class name and confidence on a copy of the picture.

    Args:
        image: RGB, at any scale of the original picture.
        detections: boxes in original pixels.

    Returns:
        A new RGB picture of the same size.
    """
    if not len(detections):
        return image.copy()
    factor = np.array([image.width / detections.size_wh[0], image.height / detections.size_wh[1]] * 2, np.float32)
    names = sorted(set(detections.labels))
    boxes = sv.Detections(
        xyxy=detections.xyxy * factor,
        confidence=detections.confidence,
        class_id=np.array([names.index(label) for label in detections.labels]),
    )
    palette = sv.ColorPalette.from_hex(list(BOX_PALETTE))
    line_px = max(2, round(max(image.size) / 400))
    captions = [f"{n} {c:.0%}" for n, c in zip(detections.labels, detections.confidence, strict=True)]
    scene = sv.BoxAnnotator(color=palette, thickness=line_px).annotate(np.array(image.convert("RGB")), boxes)
    scene = sv.LabelAnnotator(
        color=palette, text_color=sv.Color.BLACK, text_scale=max(0.4, max(image.size) / 2000), text_padding=4
    ).annotate(scene, boxes, labels=captions)
    return Image.fromarray(np.asarray(scene))


def legend(heatmap: Heatmap, scale: tuple[float, float] | None = None) -> Image.Image:
    """The colour bar with the raw values at its ends, and what the map shows, as an RGB picture of ``LEGEND_WH``."""
    low, high = scale or (heatmap.raw_min, heatmap.raw_max)
    title = f"{CATALOG[heatmap.method].title} of {heatmap.target}, {heatmap.model_id}"
    if heatmap.signed:
        bar = colourise_difference(np.linspace(-1, 1, LEGEND_WH[0] - 24, dtype=np.float32)[None])
        return _bar_picture(title, bar, f"{low:.3g}", "against   0   for", f"+{high:.3g}")
    bar = colourise(np.linspace(0, 1, LEGEND_WH[0] - 24, dtype=np.float32)[None])
    return _bar_picture(title, bar, f"{low:.3g}", "raw value of the map", f"{high:.3g}")


def difference_legend(difference: DifferenceMap) -> Image.Image:
    """The diverging colour bar, in raw values, and which two maps differ, as an RGB picture of ``LEGEND_WH``."""
    low, high = difference.scale
    tuned, base = difference.tuned, difference.base
    title = f"{CATALOG[tuned.method].title} of {tuned.target}, {tuned.model_id} minus {base.model_id}"
    bar = colourise_difference(np.linspace(-1, 1, LEGEND_WH[0] - 24, dtype=np.float32)[None])
    # The middle of the bar is 0: that is what a reader must know of it.
    return _bar_picture(title, bar, f"{low - high:.3g}", "less   0   more", f"+{high - low:.3g}")


def shared_scale(heatmaps: tuple[Heatmap, ...]) -> tuple[float, float]:
    """The widest raw range of several maps: drawn with it, a weak map looks weak beside a strong one.

    Only maps of one method have comparable raw values.

    Raises:
        ValueError: without maps, or when methods are mixed.
    """
    if len({heatmap.method for heatmap in heatmaps}) != 1:
        raise ValueError("a shared scale needs maps of one method: raw values of different methods differ in unit")
    return min(h.raw_min for h in heatmaps), max(h.raw_max for h in heatmaps)


def _mix(photo: Image.Image, colours: NDArray[np.uint8], strength: NDArray[np.float32], opacity: float) -> Image.Image:
    """Colours laid over a photo, with an opacity that grows with the square root of a strength in [0, 1]."""
    if strength.shape != (photo.height, photo.width):
        raise ValueError(f"the map is {strength.shape[1]}x{strength.shape[0]}, the photo {photo.width}x{photo.height}")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity {opacity} is not in [0, 1]")
    pixels = np.asarray(photo.convert("RGB")).astype(np.float32)
    weight = (opacity * np.sqrt(np.clip(strength, 0.0, 1.0)))[..., None]
    return Image.fromarray(np.round(pixels + (colours.astype(np.float32) - pixels) * weight).astype(np.uint8))


def _bar_picture(title: str, bar: Image.Image, low: str, middle: str, high: str) -> Image.Image:
    """A legend: a title, a bar one pixel high drawn 16 high, and a text at its left end, middle and right end."""
    width, height = LEGEND_WH
    picture = Image.new("RGB", LEGEND_WH, "white")
    picture.paste(bar.resize((bar.width, 16), Image.Resampling.NEAREST), (12, 24))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(12)
    draw.text((12, 5), title, fill="black", font=font)
    draw.text((12, height - 20), low, fill="black", font=font)
    draw.text((width - 12, height - 20), high, fill="black", font=font, anchor="ra")
    draw.text((width / 2, height - 20), middle, fill="#555555", font=font, anchor="ma")
    return picture


def _levels(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.round(np.clip(values, 0.0, 1.0) * 255).astype(np.uint8)


def _signed_colours(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """RGB of a signed map. 255 colours, so that 0 has one of its own, the middle one."""
    return _lookup_table(DIFFERENCE_MAP, 255)[np.round(127 + np.clip(values, -1.0, 1.0) * 127).astype(np.uint8)]


@lru_cache(maxsize=2)
def _lookup_table(name: str, colours: int = 256) -> NDArray[np.uint8]:
    """A colour map's RGB colours, uint8 (colours, 3)."""
    return np.round(colormaps[name](np.linspace(0, 1, colours))[:, :3] * 255).astype(np.uint8)
