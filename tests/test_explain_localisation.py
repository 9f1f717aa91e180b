"""Figures of localisation, by hand-computed numbers."""

import numpy as np
import pytest

from explain.localisation import FIGURES, THRESHOLDS, iou_curve, localise, points_into_mask, relevance_rank

MAP = np.array([[0.9, 0.6, 0.2, 0.0], [0.4, 0.3, 0.1, 0.0]], np.float32)


def region(*places: tuple[int, int], shape: tuple[int, int] = (2, 4)) -> np.ndarray:
    truth = np.zeros(shape, bool)
    for place in places:
        truth[place] = True
    return truth


def test_the_hottest_pixel_may_lie_that_far_from_the_region_and_no_farther():
    values = np.zeros((40, 40), np.float32)
    values[10, 10] = 1
    assert points_into_mask(values, region((10, 10), shape=(40, 40)), 0)
    assert points_into_mask(values, region((19, 22), shape=(40, 40)))  # 9 down, 12 right: 15 px exactly
    assert not points_into_mask(values, region((19, 23), shape=(40, 40)))
    assert not points_into_mask(values, region((10, 26), shape=(40, 40)))


def test_relevance_rank_counts_the_hottest_pixels_inside():
    assert relevance_rank(MAP, region((0, 0), (0, 1), (1, 0))) == 1  # 0.9, 0.6, 0.4 are the three hottest
    assert relevance_rank(MAP, region((0, 0), (1, 1), (1, 2))) == pytest.approx(1 / 3)
    assert relevance_rank(MAP, region((0, 3), (1, 3))) == 0


def test_pixels_of_one_value_count_by_their_chance():
    values = np.array([[1, 0, 0, 0], [0, 0, 0, 0]], np.float32)
    # Two are taken: the hot one for certain, then one of seven cold ones, of which one lies inside.
    assert relevance_rank(values, region((0, 0), (0, 1))) == pytest.approx((1 + 1 / 7) / 2)
    assert relevance_rank(np.ones((2, 4), np.float32), region((0, 0), (0, 1))) == pytest.approx(2 / 8)


def test_overlap_at_every_threshold():
    found = dict(zip(THRESHOLDS.round(2), iou_curve(MAP, region((0, 0), (0, 1), (0, 2))), strict=True))
    assert found[0.05] == pytest.approx(3 / 6)  # six pixels from 0.05 on, all three among them
    assert found[0.25] == pytest.approx(2 / 5)  # 0.9, 0.6, 0.4, 0.3
    assert found[0.5] == pytest.approx(2 / 3)
    assert found[0.7] == pytest.approx(1 / 3)
    assert found[0.95] == 0


def test_all_figures_of_a_map():
    found = localise(MAP, region((0, 0), (0, 1)), 0)
    assert (found.pointing, found.energy, found.rank) == (1, pytest.approx(1.5 / 2.5), 1)
    assert found.ious.max() == 1
    assert set(FIGURES) == {"pointing", "energy", "rank", "iou"}


def test_a_perfect_map_is_perfect_and_a_map_elsewhere_is_nothing():
    truth = region((0, 0), (1, 0))
    for values, expected in ((truth, 1), (~truth, 0)):
        found = localise(values.astype(np.float32), truth, 0)
        assert (found.pointing, found.energy, found.rank, found.ious.max()) == (expected,) * 4


def test_sizes_and_empty_regions_are_said():
    with pytest.raises(ValueError, match="one size"):
        iou_curve(MAP, np.ones((3, 4), bool))
    with pytest.raises(ValueError, match="nothing to find"):
        localise(MAP, np.zeros((2, 4), bool))
