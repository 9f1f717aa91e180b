"""Pictures: what they must not do to the photo, and what their colours must mean."""

import numpy as np
import pytest
from PIL import Image

from explain import render
from explain.schema import Heatmap, MapPart
from models.schema import Detections, LoadState, ModelStatus

STATUS = ModelStatus(LoadState.BUNDLED, "bundled:x")


def photo() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 200, (40, 60, 3), dtype=np.uint8))


def heatmap(high: float = 1.0) -> Heatmap:
    cam = np.zeros((4, 6), np.float32)
    cam[1, 2] = high
    return Heatmap((MapPart(cam, (0, 0, 60, 40)),), (60, 40), 0.0, high, "gradcam", "logit:fake", "l", "m")


def test_without_heat_the_photo_is_unchanged_to_the_byte():
    values = np.zeros((40, 60), np.float32)
    values[10, 20] = 1.0
    shown = np.asarray(render.overlay(photo(), values))
    changed = (shown != np.asarray(photo())).any(axis=2)
    assert changed[10, 20]
    assert changed.sum() == 1


def test_overlay_keeps_a_dark_photo_dark():
    dark = Image.new("RGB", (8, 8), (10, 10, 10))
    values = np.full((8, 8), 0.0, np.float32)
    assert np.asarray(render.overlay(dark, values)).max() == 10


def test_hottest_pixel_is_mixed_by_the_opacity_exactly():
    hot = np.ones((8, 8), np.float32)
    colour = np.asarray(render.colourise(hot))[0, 0].astype(float)
    shown = np.asarray(render.overlay(Image.new("RGB", (8, 8), (100, 100, 100)), hot, 0.5))[0, 0]
    assert np.abs(shown - (100 + (colour - 100) * 0.5)).max() <= 0.5


def test_the_callers_pictures_stay_as_they_are():
    base = photo()
    before = base.tobytes()
    boxes = Detections(
        np.array([[5, 5, 30, 30]], np.float32), np.array([0.9], np.float32), ("cat",), (60, 40), "y", STATUS
    )
    render.draw_heatmap(base, heatmap())
    drawn = render.draw_detections(base, boxes)
    render.fit(base, 20)
    assert base.tobytes() == before
    assert drawn.tobytes() != before


def test_boxes_follow_the_size_at_which_the_photo_is_shown():
    boxes = Detections(
        np.array([[100, 100, 300, 300]], np.float32), np.array([0.9], np.float32), ("cat",), (400, 400), "y", STATUS
    )
    drawn = np.asarray(render.draw_detections(Image.new("RGB", (200, 200)), boxes))
    touched = np.argwhere(drawn.any(axis=2))
    assert touched[:, 1].min() in range(46, 52)
    assert touched[:, 0].max() in range(148, 154)


def test_colour_map_is_perceptually_even_in_lightness():
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None]
    red, green, blue = np.asarray(render.colourise(ramp))[0].astype(float).T / 255
    linear = [np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for c in (red, green, blue)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    lightness = np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)
    assert (np.diff(lightness[::16]) > 0).all()
    assert np.corrcoef(lightness, ramp[0])[0, 1] > 0.99


def test_a_shared_scale_makes_a_weak_map_look_weak():
    weak, strong = heatmap(0.1), heatmap(1.0)
    scale = render.shared_scale((weak, strong))
    assert scale == (0.0, 1.0)
    assert weak.at((60, 40)).max() == pytest.approx(strong.at((60, 40)).max())
    assert weak.at((60, 40), scale).max() == pytest.approx(0.1 * strong.at((60, 40), scale).max(), rel=1e-3)
    other = Heatmap(weak.parts, (60, 40), 0, 1, "eigencam", "logit:fake", "l", "m")
    with pytest.raises(ValueError, match="one method"):
        render.shared_scale((weak, other))


def test_wrong_sizes_and_opacities_are_refused():
    with pytest.raises(ValueError, match="the map is 4x4"):
        render.overlay(photo(), np.zeros((4, 4), np.float32))
    with pytest.raises(ValueError, match="opacity"):
        render.overlay(photo(), np.zeros((40, 60), np.float32), 1.5)


def test_legend_and_fit_have_the_promised_sizes():
    assert render.legend(heatmap()).size == render.LEGEND_WH
    assert render.fit(Image.new("RGB", (3000, 1500)), 1024).size == (1024, 512)
    assert render.fit(Image.new("RGB", (30, 15)), 1024).size == (30, 15)
