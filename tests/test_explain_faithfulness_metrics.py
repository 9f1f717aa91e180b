"""Figures of faithfulness by hand: orders, areas, drops, fillings, and beside Quantus."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from explain.faithfulness_baselines import impute, make_baseline
from explain.faithfulness_metrics import (
    METRICS,
    average_drop,
    counts_of,
    curve_auc,
    increase,
    ranks_of,
    road_combined,
    sparseness,
)
from models.errors import ExhibitError


def rng():
    return np.random.default_rng(0)


def test_every_figure_has_a_direction_and_a_paper():
    directions = {name: metric.better for name, metric in METRICS.items()}
    assert directions == {
        "insertion": "higher",
        "deletion": "lower",
        "gain": "higher",
        "road": "higher",
        "average_drop": "lower",
        "increase": "higher",
        "infidelity": "lower",
        "max_sensitivity": "lower",
        "sparseness": "higher",
    }
    assert all("arXiv" in metric.source for metric in METRICS.values())


def test_the_hottest_pixel_comes_first_and_equals_in_reading_order():
    ranks = ranks_of(np.array([[[0.2, 0.9], [0.2, 0.0]]], np.float32))
    assert ranks.tolist() == [[[1, 0], [2, 3]]]
    with pytest.raises(ValueError, match="not finite"):
        ranks_of(np.array([[[np.nan, 0]]], np.float32))


def test_counts_rise_in_equal_steps_and_the_last_may_be_smaller():
    assert counts_of(10, 3) == (0, 4, 8, 10)
    assert counts_of(8, 4) == (0, 2, 4, 6, 8)
    assert counts_of(3, 20) == (0, 1, 2, 3)
    with pytest.raises(ValueError, match="steps"):
        counts_of(3, 0)


def test_the_area_is_that_of_trapezoids_over_the_true_fractions():
    # (1 + 0.5) / 2 * 0.4 + (0.5 + 0.5) / 2 * 0.4 + (0.5 + 0) / 2 * 0.2
    assert curve_auc(np.array([0, 0.4, 0.8, 1]), np.array([1, 0.5, 0.5, 0])) == pytest.approx(0.55)


def test_drop_increase_and_road_by_hand():
    assert average_drop(0.8, 0.6) == pytest.approx(0.25)
    assert average_drop(0.8, 0.9) == 0
    assert increase(0.8, 0.9)
    assert not increase(0.8, 0.8)
    assert road_combined([0.2, 0.1], [0.8, 0.9]) == pytest.approx((0.6 + 0.8) / 2 / 2)
    with pytest.raises(ValueError, match="probabilities"):
        average_drop(-0.1, 0.2)


def test_the_gini_index_of_an_even_map_is_0_and_of_one_hot_pixel_near_1():
    assert sparseness(np.ones((2, 2), np.float32)) == pytest.approx(0)
    assert sparseness(np.array([[0, 0], [0, 5]], np.float32)) == pytest.approx(0.75)
    assert sparseness(np.array([[1, 2], [3, 4]], np.float32)) == pytest.approx((-3 - 2 + 3 + 12) / 40)
    with pytest.raises(ValueError, match="zero everywhere"):
        sparseness(np.zeros((2, 2), np.float32))


def test_the_gini_index_equals_that_of_quantus():
    quantus = pytest.importorskip("quantus", reason="Quantus is not installed: pip install -r requirements-dev.txt")
    maps = rng().random((3, 12, 12)).astype(np.float32)
    measured = quantus.Sparseness(disable_warnings=True, abs=False, normalise=False)
    expected = measured.evaluate_batch(x_batch=maps, a_batch=maps.reshape(3, -1).copy())
    np.testing.assert_allclose([sparseness(one) for one in maps], expected, atol=1e-5)


def test_one_missing_pixel_is_the_weighted_mean_of_its_neighbours():
    picture = torch.arange(9.0).reshape(1, 3, 3)
    removed = torch.zeros(2, 3, 3, dtype=torch.bool)
    removed[0, 1, 1] = removed[1, 0, 0] = True
    filled = impute(picture, removed, noise=0)
    assert filled[0, 0, 1, 1].item() == pytest.approx((1 + 3 + 5 + 7) / 6 + (0 + 2 + 6 + 8) / 12)
    # In the corner there are two straight neighbours and one across, which share the whole weight.
    assert filled[1, 0, 0, 0].item() == pytest.approx(((1 + 3) / 6 + 4 / 12) / (5 / 12))
    assert torch.equal(filled[0][~removed[:1]], picture[~removed[:1]])


def test_imputation_equals_that_of_quantus():
    functions = pytest.importorskip("quantus.functions.perturb_func", reason="Quantus is not installed")
    picture = rng().random((3, 17, 23))
    holes = rng().random((3, 17, 23)) < np.array([0.1, 0.5, 0.9])[:, None, None]
    ours = impute(torch.from_numpy(picture), torch.from_numpy(holes), noise=0)
    for filled, hole in zip(ours, holes, strict=True):
        theirs = functions.noisy_linear_imputation(picture, np.flatnonzero(hole), noise=0)
        np.testing.assert_allclose(filled.numpy(), theirs, atol=1e-9)


def test_imputation_adds_the_same_noise_to_every_variant_and_nothing_elsewhere():
    picture = torch.zeros(3, 20, 20)
    removed = torch.zeros(2, 20, 20, dtype=torch.bool)
    removed[:, 5:15, 5:15] = True
    one, two = impute(picture, removed, seed=3)
    assert torch.equal(one, two)
    assert not torch.equal(one, impute(picture, removed, seed=4)[0])
    assert one[:, removed[0]].std().item() == pytest.approx(0.01, rel=0.15)
    assert not one[:, ~removed[0]].any()


@pytest.mark.parametrize("name", ["blur", "mean", "zero", "inpaint", "road"])
def test_what_is_left_of_a_picture_stays_as_it_is(name):
    picture = torch.from_numpy(rng().normal(size=(3, 24, 40))).float()
    removed = torch.from_numpy(rng().random((3, 24, 40)) < 0.4)
    removed[1], removed[2] = False, True
    variants = make_baseline(name, picture)(removed)
    kept = (~removed)[:, None].expand_as(variants)
    assert variants.shape == (3, 3, 24, 40)
    assert torch.equal(variants[kept], picture.expand_as(variants)[kept])
    assert not torch.equal(variants[0], picture)
    assert torch.isfinite(variants).all()


def test_baselines_by_hand():
    picture = torch.stack([torch.full((16, 16), value) for value in (1.0, -2.0, 0.5)])
    picture[:, :, 8:] = 3.0
    everything = torch.ones(1, 16, 16, dtype=torch.bool)
    mean = make_baseline("mean", picture)(everything)[0]
    assert mean[:, 0, 0].tolist() == [2.0, 0.5, 1.75]
    assert not make_baseline("zero", picture)(everything).any()
    blurred = make_baseline("blur", picture)(everything)[0]
    assert blurred.mean(dim=(1, 2)).tolist() == pytest.approx([2.0, 0.5, 1.75], abs=1e-3)
    assert (blurred[:, 0, 7] > picture[:, 0, 7]).all()
    # What is inpainted inside an even area has that area's colour.
    hole = torch.zeros(1, 16, 16, dtype=torch.bool)
    hole[0, 6:10, 11:14] = True
    inpainted = make_baseline("inpaint", picture)(hole)[0]
    assert inpainted[:, hole[0]].flatten().tolist() == pytest.approx([3.0] * 36, abs=0.03)
    with pytest.raises(ExhibitError, match="choose one of blur"):
        make_baseline("grey", picture)
