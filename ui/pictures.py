"""Pictures for the screen, drawn from what an examination keeps. No model runs here."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageOps

from explain import render
from explain.difference import DifferenceMap
from explain.examination import Examination
from explain.schema import Heatmap
from ui.files import fresh_path
from ui.markup import Thumbnail

THUMBNAIL_SIDE_PX = 192
LEGEND_STEPS = 256
DIFFERENCE_SUFFIX = "@difference"
"""Added to a model's id where what fine-tuning changed is shown."""
Map = Heatmap | DifferenceMap


@dataclass(frozen=True)
class View:
    """What a visitor wants to see of an examination.

    Attributes:
        model_id: whose map; with ``DIFFERENCE_SUFFIX`` the difference to its base.
        method: by which method.
        opacity: of the hottest pixel, in [0, 1].
        boxes: whether detected objects are framed.
        shared: whether all models' maps of the method share one scale.
    """

    model_id: str
    method: str
    opacity: float = render.DEFAULT_OPACITY
    boxes: bool = False
    shared: bool = False


def list_maps(examination: Examination) -> tuple[tuple[str, Map], ...]:
    """Every map with the id it is shown under, model by model; what fine-tuning changed comes after the base."""
    found: list[tuple[str, Map]] = []
    for model_id in dict.fromkeys(heatmap.model_id for heatmap in examination.heatmaps):
        found += [(model_id, heatmap) for heatmap in examination.heatmaps if heatmap.model_id == model_id]
        found += [
            (f"{difference.tuned.model_id}{DIFFERENCE_SUFFIX}", difference)
            for difference in examination.differences
            if difference.base.model_id == model_id
        ]
    return tuple(found)


def find_map(examination: Examination, model_id: str, method: str) -> Map | None:
    """The map shown under an id, or ``None`` when there is none."""
    wanted = (model_id, method)
    return next((each for shown, each in list_maps(examination) if (shown, method_of(each)) == wanted), None)


def method_of(shown: Map) -> str:
    """Catalog name of the method that made a map."""
    return (shown.tuned if isinstance(shown, DifferenceMap) else shown).method


def scale_of(examination: Examination, heatmap: Heatmap, *, shared: bool) -> tuple[float, float]:
    """Raw values shown as the ends of the colour scale."""
    if not shared:
        return heatmap.raw_min, heatmap.raw_max
    return render.shared_scale(tuple(h for h in examination.heatmaps if h.method == heatmap.method))


def draw_view(examination: Examination, photo: Image.Image, shown: Map, view: View) -> tuple[Image.Image, ...]:
    """The picture, and the picture under its heat.

    Both carry the boxes, so that the slider compares like with like.

    Args:
        examination: what was computed.
        photo: the picture at screen size, RGB; not drawn on.
        shown: the map of the view.
        view: what to show.

    Returns:
        Two RGB pictures of the size of ``photo``.
    """
    if isinstance(shown, DifferenceMap):
        heated = render.draw_difference(photo, shown, opacity=view.opacity)
    else:
        scale = scale_of(examination, shown, shared=view.shared)
        heated = render.draw_heatmap(photo, shown, opacity=view.opacity, scale=scale)
    if not view.boxes or examination.detections is None:
        return photo, heated
    return tuple(render.draw_detections(picture, examination.detections) for picture in (photo, heated))


def draw_thumbnails(examination: Examination, photo: Image.Image) -> tuple[Thumbnail, ...]:
    """Every map as a small picture, each on its own scale, in the order of ``list_maps``."""
    small = render.fit(photo, THUMBNAIL_SIDE_PX)

    def draw(shown: Map) -> Image.Image:
        if isinstance(shown, DifferenceMap):
            return render.draw_difference(small, shown, opacity=0.75)
        return render.draw_heatmap(small, shown, opacity=0.75)

    return tuple(
        Thumbnail(model_id, method_of(shown), data_uri(draw(shown))) for model_id, shown in list_maps(examination)
    )


def legend_uri() -> str:
    """The colour map from 0 to 1 as a data URI, one pixel high."""
    return _bar_uri(render.colourise(_ramp(0)))


def difference_uri() -> str:
    """The diverging colour map from -1 to 1 as a data URI, one pixel high."""
    return _bar_uri(render.colourise_difference(_ramp(-1)))


def words_uri() -> str:
    """The colours of words from -1 to 1 as a data URI, one pixel high."""
    colours = render.difference_colours(_ramp(-1)[0])
    bar = Image.new("RGB", (len(colours), 1))
    bar.putdata([ImageColor.getrgb(colour)[:3] for colour in colours])
    return _bar_uri(bar)


def _ramp(lowest: float) -> NDArray[np.float32]:
    return np.linspace(lowest, 1, LEGEND_STEPS, dtype=np.float32)[None, :]


def _bar_uri(bar: Image.Image) -> str:
    buffer = io.BytesIO()
    bar.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def data_uri(image: Image.Image) -> str:
    """A small picture as a JPEG data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def write_screen(image: Image.Image) -> Path:
    """A picture for the screen as a JPEG file of full chroma, within two grey levels of the drawn one.

    PNG would take ten times as long to write and so be felt at every move of a slider; the evidence bundle and the API
    give PNG.
    """
    path = fresh_path("picture.jpg")
    image.save(path, "JPEG", quality=95, subsampling=0)
    return path


def write_png(image: Image.Image, name: str) -> Path:
    """A picture as a PNG file, exact to the byte. Level 1 is four times as fast as the default and hardly larger."""
    path = fresh_path(name)
    image.save(path, "PNG", compress_level=1)
    return path


def fit_square(image: Image.Image, side_px: int) -> Image.Image:
    """The upper middle of a picture as a square of ``side_px``, where faces are; a new picture."""
    return ImageOps.fit(image, (side_px, side_px), Image.Resampling.LANCZOS, centering=(0.5, 0.35))


def fit_screen(image: Image.Image) -> Image.Image:
    """The picture at screen size; a new picture."""
    return render.fit(image)
