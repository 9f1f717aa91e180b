"""Heat inside boxes and masks, by hand-computed numbers."""

import numpy as np
import pytest

from explain.regions import energy_in_box, energy_in_mask, heat_in_detections, points_into_box
from explain.schema import Heatmap, MapPart
from models.schema import Detections, LoadState, ModelStatus

STATUS = ModelStatus(LoadState.BUNDLED, "bundled:x")


def heatmap(cam: np.ndarray, size_wh=(8, 4)) -> Heatmap:
    width, height = size_wh
    part = MapPart(cam.astype(np.float32), (0.0, 0.0, float(width), float(height)))
    return Heatmap((part,), size_wh, float(cam.min()), float(cam.max()), "gradcam", "logit:fake", "layer", "m")


def found(boxes, size_wh=(8, 4)) -> Detections:
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    names = tuple(f"thing{i}" for i in range(len(xyxy)))
    return Detections(xyxy, np.linspace(0.9, 0.5, len(xyxy), dtype=np.float32), names, size_wh, "yolo", STATUS)


def test_energy_counts_edge_pixels_by_the_part_covered():
    values = np.array([[1, 1, 2, 0]], np.float32)
    assert energy_in_box(values, (0, 0, 2, 1)) == pytest.approx(0.5)
    assert energy_in_box(values, (1.5, 0, 2.5, 1)) == pytest.approx((0.5 + 1.0) / 4)
    assert energy_in_box(values, (-10, -10, 10, 10)) == pytest.approx(1.0)
    assert energy_in_box(np.zeros((2, 2), np.float32), (0, 0, 2, 2)) == 0.0


def test_energy_in_mask_needs_one_size():
    values = np.array([[3, 1], [0, 0]], np.float32)
    assert energy_in_mask(values, np.array([[True, False], [True, False]])) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="one size"):
        energy_in_mask(values, np.zeros((3, 2), bool))


def test_pointing_game_has_a_tolerance():
    values = np.zeros((10, 10), np.float32)
    values[2, 7] = 1
    assert points_into_box(values, (7, 2, 8, 3))
    assert not points_into_box(values, (0, 0, 5, 5))
    assert points_into_box(values, (0, 0, 5, 5), tolerance_px=2.5)


def test_shares_of_detections_by_hand():
    cam = np.zeros((4, 8))
    cam[:, :4] = 1.0
    cam[0, 0] = 2.0
    left, right = heat_in_detections(heatmap(cam), found([(4, 0, 8, 4), (0, 0, 4, 4)]))
    # after scaling by the map's own maximum: 15 cells of 0.5 and one of 1, all on the left
    assert (left.label, left.share, left.area_share, left.density) == ("thing1", pytest.approx(1.0), 0.5, 2.0)
    assert left.holds_peak
    assert left.peak == 1.0
    assert (right.share, right.holds_peak, right.peak) == (0.0, False, 0.0)


def test_a_large_photo_gives_the_same_shares():
    rng = np.random.default_rng(1)
    cam = rng.random((6, 6))
    small = heat_in_detections(heatmap(cam, (300, 200)), found([(30, 20, 150, 100)], (300, 200)))[0]
    large = heat_in_detections(heatmap(cam, (9000, 6000)), found([(900, 600, 4500, 3000)], (9000, 6000)))[0]
    assert small.share == pytest.approx(large.share, abs=2e-3)


def test_no_detections_give_no_rows():
    assert heat_in_detections(heatmap(np.eye(4)), found([])) == ()
