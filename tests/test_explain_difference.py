"""What fine-tuning changed: the right sign, one scale for both maps, and colours that everybody can tell apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from explain import render
from explain.difference import DifferenceMap
from explain.schema import Heatmap, MapPart
from models.errors import IncompatibleMethodError


def heatmap(cam, model_id="tuned", box=(0, 0, 40, 20), **changes) -> Heatmap:
    cam = np.array(cam, np.float32)
    return replace(
        Heatmap(
            (MapPart(cam, box),),
            (40, 20),
            float(cam.min()),
            float(cam.max()),
            "layercam",
            "margin:fake-real",
            "tower",
            model_id,
            "ab" * 32,
        ),
        **changes,
    )


TUNED = heatmap([[0, 4, 0, 0]])
BASE = heatmap([[0, 0, 0, 1]], "tuned@base")
# Machado et al. 2009, doi:10.1109/TVCG.2009.113, severity 1.
SIGHT = {
    "all cones": np.eye(3),
    "no red cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "no blue cones": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def test_both_maps_are_scaled_by_their_common_range_before_they_are_subtracted():
    difference = DifferenceMap(TUNED, BASE)
    assert difference.scale == (0, 4)
    values = difference.at((4, 1))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [[0, 1, 0, -0.25]], atol=1e-6)
    assert difference.values.shape == (20, 40)
    assert np.abs(difference.values).max() <= 1


def test_equal_maps_differ_nowhere_and_the_other_way_round_the_sign_turns():
    assert not DifferenceMap(TUNED, replace(TUNED, model_id="b")).values.any()
    np.testing.assert_array_equal(DifferenceMap(TUNED, BASE).values, -DifferenceMap(BASE, TUNED).values)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (replace(BASE, image_sha256="cd" * 32), "different images"),
        (replace(BASE, size_wh=(20, 40)), "different images"),
        (replace(BASE, target="margin:real-fake"), "different targets"),
        (replace(BASE, method="gradcam"), "different methods"),
        (replace(BASE, layer="projector"), "different layers"),
        (heatmap([[0, 1]], "tuned@base"), "different grids"),
        (heatmap([[0, 0, 0, 1]], "tuned@base", box=(0, 0, 39, 20)), "different grids"),
    ],
)
def test_maps_of_different_things_are_refused_with_the_reason(other, words):
    with pytest.raises(IncompatibleMethodError, match=f"tuned and tuned@base have {words}") as caught:
        DifferenceMap(TUNED, other)
    assert "\n" not in str(caught.value)


def test_a_photo_is_unchanged_to_the_byte_where_the_maps_agree():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8))
    before = photo.tobytes()
    values = np.zeros((20, 40), np.float32)
    values[3, 5], values[7, 9] = 0.5, -0.5
    drawn = np.asarray(render.overlay_difference(photo, values))
    changed = np.argwhere((drawn != np.asarray(photo)).any(axis=2))
    assert changed.tolist() == [[3, 5], [7, 9]]
    assert render.draw_difference(photo, DifferenceMap(TUNED, BASE)).size == (40, 20)
    assert photo.tobytes() == before
    with pytest.raises(ValueError, match="the map is 4x4"):
        render.overlay_difference(photo, np.zeros((4, 4), np.float32))


def test_the_centre_is_grey_and_both_sides_are_one_palette():
    red, green, blue = np.asarray(render.colourise_difference(np.zeros((1, 1), np.float32)))[0, 0].tolist()
    assert max(red, green, blue) - min(red, green, blue) <= 2
    warm, cold = np.asarray(render.colourise_difference(np.array([[1, -1]], np.float32)))[0].astype(int)
    assert warm[0] > warm[2] + 100
    assert cold[2] > cold[0] + 100


@pytest.mark.parametrize("sight", SIGHT)
def test_more_and_less_are_told_apart_and_equally_light_whatever_cones_one_has(sight):
    steps = np.array([0.25, 0.5, 0.75, 1], np.float32)
    more, less = (seen(np.asarray(render.colourise_difference(sign * steps[None]))[0], sight) for sign in (1, -1))
    distance = np.linalg.norm(more - less, axis=1)
    assert (distance > 35).all()  # 2.3 is just noticeable
    assert distance[-1] > 75
    assert np.abs(more[:, 0] - less[:, 0]).max() < 14
    for side in (more, less):
        assert (np.diff(side[:, 0]) < -5).all()  # farther from 0 is darker


def seen(colours, sight):
    """CIELAB of uint8 RGB (n, 3) for somebody who lacks cones."""
    encoded = colours / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.array(SIGHT[sight]).T, 0, 1)
    return rgb2lab(np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)[None])[0]


def test_the_legend_has_the_promised_size_and_its_bar_runs_from_less_to_more():
    picture = render.difference_legend(DifferenceMap(TUNED, BASE))
    assert picture.size == render.LEGEND_WH
    bar = np.asarray(picture)[32, 12 : render.LEGEND_WH[0] - 12]
    ends = np.asarray(render.colourise_difference(np.array([[-1, 1]], np.float32)))[0]
    assert bar[[0, -1]].tolist() == ends.tolist()


def test_words_are_readable_on_the_colour_of_every_score():
    for colour in render.difference_colours(np.linspace(-1, 1, 21, dtype=np.float32)):
        channels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        luminance = float(linear @ [0.2126, 0.7152, 0.0722])
        assert (luminance + 0.05) / 0.05 >= 4.5  # contrast with black, WCAG 2.2 level AA
