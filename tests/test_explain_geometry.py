"""Cells and pixels: every cell ends where it belongs, exactly."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from explain.geometry import cells_of, project
from explain.schema import Heatmap, MapPart
from models.errors import IncompatibleMethodError
from models.schema import TokenGrid


def part(cam, box):
    return MapPart(np.asarray(cam, np.float32), box)


def whole(shape, target_wh, seed=0):
    """A random CAM over a whole picture, and the map of it."""
    cam = np.random.default_rng(seed).random(shape, np.float32)
    return cam, project([part(cam, (0, 0, 640, 480))], (640, 480), target_wh, (0, 1))


def test_permuted_tokens_are_put_in_their_place():
    rng = np.random.default_rng(0)
    index_image = np.arange(3 * 5, dtype=np.float32).reshape(3, 5)
    order = 2 + rng.permutation(15)  # two prefix tokens come first
    activation = np.full((17, 4), -1, np.float32)
    activation[order] = index_image.reshape(-1, 1) * [1, 10, 100, 1000]
    cells = cells_of(activation, TokenGrid((0, 0, 50, 30), order.reshape(3, 5)))
    assert cells.shape == (4, 3, 5)
    for channel, factor in enumerate([1, 10, 100, 1000]):
        assert np.array_equal(cells[channel], index_image * factor)


def test_a_channels_first_map_is_its_own_grid():
    activation = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert np.array_equal(cells_of(activation, TokenGrid((0, 0, 4, 3))), activation)


@pytest.mark.parametrize(
    ("shape", "tokens", "words"),
    [
        ((17, 8), None, r"\(17, 8\).*map \(channels, rows, columns\)"),
        ((8, 4, 4), np.arange(16).reshape(4, 4), r"\(8, 4, 4\).*at least 16 tokens"),
        ((15, 8), np.arange(16).reshape(4, 4), r"\(15, 8\).*at least 16 tokens"),
    ],
)
def test_an_activation_without_the_cells_is_refused(shape, tokens, words):
    with pytest.raises(IncompatibleMethodError, match=words):
        cells_of(np.zeros(shape, np.float32), TokenGrid((0, 0, 1, 1), tokens))


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (14, 14), (1, 4), (1, 1)])
@pytest.mark.parametrize("target_wh", [(224, 224), (97, 61), (640, 480), (4, 3)])
def test_a_whole_picture_is_resized_as_opencv_and_torch_do(shape, target_wh):
    cam, values = whole(shape, target_wh)
    assert values.dtype == np.float32
    assert values.shape == target_wh[::-1]
    np.testing.assert_allclose(values, cv2.resize(cam, target_wh), atol=2e-6)
    torch_values = interpolate(torch.from_numpy(cam)[None, None], target_wh[::-1], mode="bilinear")[0, 0]
    np.testing.assert_allclose(values, torch_values, atol=2e-6)


def test_a_centre_crop_is_placed_to_the_pixel():
    cam = np.random.default_rng(1).random((4, 6), np.float32) + 0.1
    values = project([part(cam, (30, 10, 90, 50))], (120, 60), (120, 60), (0, 2))
    inside = np.zeros((60, 120), bool)
    inside[10:50, 30:90] = True
    assert (values[~inside] == 0).all()
    assert (values[inside] > 0).all()
    np.testing.assert_allclose(values[10:50, 30:90], cv2.resize(cam, (60, 40)) / 2, atol=1e-6)


def test_a_box_at_half_pixels_covers_the_pixels_whose_centre_it_holds():
    values = project([part([[1]], (2.5, 0.6, 6.5, 3))], (8, 4), (8, 4), (0, 1))
    expected = np.zeros((4, 8))
    expected[1:3, 2:6] = 1  # centres at x 2.5 (inclusive) to 5.5, y 1.5 and 2.5
    assert np.array_equal(values, expected)


def test_padding_beyond_the_picture_is_cut_off():
    cam = np.random.default_rng(2).random((8, 8), np.float32)
    square = cv2.resize(cam, (200, 200))
    values = project([part(cam, (0, -50, 200, 150))], (200, 100), (200, 100), (0, 1))
    np.testing.assert_allclose(values, square[50:150], atol=1e-6)
    beyond = project([part(cam, (300, 0, 400, 100))], (200, 100), (200, 100), (0, 1))
    assert (beyond == 0).all()


def test_a_thumbnail_is_the_picture_seen_smaller():
    values = project([part([[1, 0], [0, 1]], (40, 20, 80, 60))], (120, 80), (30, 20), (0, 1))
    assert (np.argwhere(values > 0).min(0) == [5, 10]).all()
    assert (np.argwhere(values > 0).max(0) == [14, 19]).all()
    np.testing.assert_allclose(values[5:15, 10:20], cv2.resize(np.eye(2, dtype=np.float32), (10, 10)), atol=1e-6)


def test_overlapping_parts_are_averaged_and_the_rest_stays_zero():
    parts = [part([[4]], (0, 0, 6, 2)), part([[2]], (4, 0, 8, 2))]
    values = project(parts, (10, 2), (10, 2), (0, 4))
    assert np.allclose(values, [[1, 1, 1, 1, 0.75, 0.75, 0.5, 0.5, 0, 0]] * 2)


def test_a_scale_makes_maps_comparable_and_clips_to_the_range():
    heatmap = Heatmap((part([[0, 1, 2]], (0, 0, 3, 1)),), (3, 1), 0, 2, "gradcam", "logit:fake", "layer", "model")
    assert np.allclose(heatmap.values, [[0, 0.5, 1]])
    assert np.allclose(heatmap.at((3, 1), scale=(0, 8)), [[0, 0.125, 0.25]])
    assert np.allclose(heatmap.at((3, 1), scale=(0.5, 1)), [[0, 1, 1]])


@pytest.mark.parametrize(("target_wh", "scale"), [((4, 4), (1, 1)), ((4, 4), (0, np.nan)), ((0, 4), (0, 1))])
def test_an_empty_scale_or_size_is_refused(target_wh, scale):
    with pytest.raises(ValueError, match="must"):
        project([part([[1]], (0, 0, 4, 4))], (4, 4), target_wh, scale)
