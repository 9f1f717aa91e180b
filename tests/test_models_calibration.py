"""Temperatures and expected accuracies by hand-computed numbers."""

import numpy as np
import pytest

from models.calibration import (
    FEWEST,
    HeldOut,
    expect,
    expect_together,
    fit_temperature,
    miscalibration,
    soften,
)


def test_a_temperature_of_two_is_the_square_root_of_the_odds():
    shares = soften(np.array([[np.log(9.0), 0.0]]), 2.0)
    assert shares[0] == pytest.approx([0.75, 0.25])
    assert soften(np.array([[1000.0, 0.0]]), 1.0)[0] == pytest.approx([1, 0])
    with pytest.raises(ValueError, match="above 0"):
        soften(np.zeros((1, 2)), 0.0)


def test_the_fitted_temperature_makes_confidence_what_it_was_right():
    # Always as sure as 90 %, right three times in four: odds of 3 instead of 9, so the scores are halved.
    logits = np.tile([np.log(9.0), 0.0], (400, 1))
    truth = np.array([0, 0, 0, 1] * 100)
    temperature = fit_temperature(logits, truth)
    assert temperature == pytest.approx(2.0, abs=1e-6)
    assert miscalibration(soften(logits, temperature), truth) == pytest.approx(0, abs=1e-6)
    assert miscalibration(soften(logits, 1.0), truth) == pytest.approx(0.15)


def test_a_temperature_needs_pictures_and_stays_in_bounds_where_all_are_right():
    with pytest.raises(ValueError, match="held-out"):
        fit_temperature(np.zeros((0, 2)), np.zeros(0, np.intp))
    assert fit_temperature(np.array([[1.0, 0.0]] * 3), np.zeros(3, np.intp)) == pytest.approx(0.05, rel=1e-3)
    assert fit_temperature(np.array([[1.0, 0.0]] * 3), np.ones(3, np.intp)) == pytest.approx(20, rel=1e-3)


def held(shares, right, labels=("fake", "real"), sha="s"):
    """Pictures of which a model gave the first label that share."""
    logits = np.log(np.array([[share, 1 - share] for share in shares]))
    return HeldOut(logits, np.array([0 if one else 1 for one in right], np.intp), labels, sha)


def test_expected_accuracy_is_counted_among_pictures_of_the_same_confidence():
    one = held([0.9] * 40 + [0.6] * 40, [True] * 30 + [False] * 10 + [True] * 40)
    found = expect(one, 1.0, 0.89)
    assert (found.accuracy, found.pictures, found.of) == (0.75, 40, 80)
    assert (found.low, found.high) == pytest.approx((13 / 15, 14 / 15))
    assert expect(one, 1.0, 0.6).accuracy == 1
    assert expect(one, 1.0, 0.99) is None
    few = held([0.9] * (FEWEST - 1), [True] * (FEWEST - 1))
    assert expect(few, 1.0, 0.9) is None


def test_the_upper_edge_belongs_to_a_bin():
    one = held([0.8] * 30, [True] * 30)
    assert expect(one, 1.0, 12 / 15).high == pytest.approx(12 / 15)


def test_models_together_are_counted_on_the_same_pictures_only():
    first, second = held([0.9] * 40, [True] * 20 + [False] * 20), held([0.7] * 40, [True] * 20 + [False] * 20)
    found = expect_together({"a": (first, 1.0), "b": (second, 1.0)}, {"a": 0.5, "b": 0.5}, 0.8)
    assert (found.accuracy, found.pictures) == (0.5, 40)
    # The other order of labels is the same answers.
    turned = HeldOut(second.logits[:, ::-1], second.truth, ("real", "fake"), "s")
    assert expect_together({"a": (first, 1.0), "b": (turned, 1.0)}, {"a": 0.5, "b": 0.5}, 0.8) == found
    other = held([0.7] * 40, [True] * 40, sha="another set")
    assert expect_together({"a": (first, 1.0), "b": (other, 1.0)}, {"a": 0.5, "b": 0.5}, 0.8) is None
    assert expect_together({"a": (first, 1.0)}, {"a": 0.5, "b": 0.5}, 0.8) is None
    # A coin has no share, so it need not be measured.
    assert expect_together({"a": (first, 1.0)}, {"a": 1.0, "b": 0.0}, 0.9).pictures == 40
