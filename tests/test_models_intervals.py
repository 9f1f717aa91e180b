"""Intervals and tests between systems, against numbers worked out by hand."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from models.intervals import difference, estimate, mcnemar


def test_interval_of_a_share_is_near_that_of_the_normal_approximation() -> None:
    right = np.arange(400) % 4 > 0  # 75 %
    figure = estimate(lambda weights: {"share": float(weights @ right / 400)}, 400, resamples=4000)["share"]
    half = 1.96 * sqrt(0.75 * 0.25 / 400)
    assert figure["value"] == 0.75
    assert figure["low"] == pytest.approx(0.75 - half, abs=0.006)
    assert figure["high"] == pytest.approx(0.75 + half, abs=0.006)


def test_whole_groups_are_drawn() -> None:
    # Four answers on each of 100 pictures, all right or all wrong: as uncertain as 100 answers, not as 400.
    groups = np.arange(400) // 4
    right = groups % 4 > 0

    def share(weights: np.ndarray) -> dict[str, float]:
        assert all(len(set(four)) == 1 for four in weights.reshape(100, 4).tolist())
        return {"share": float(weights @ right / weights.sum())}

    figure = estimate(share, 400, groups=groups, resamples=4000)["share"]
    half = 1.96 * sqrt(0.75 * 0.25 / 100)
    assert figure["low"] == pytest.approx(0.75 - half, abs=0.012)
    assert figure["high"] == pytest.approx(0.75 + half, abs=0.012)


def test_intervals_are_seeded() -> None:
    values = np.random.default_rng(0).random(50)

    def mean(weights: np.ndarray) -> dict[str, float]:
        return {"mean": float(weights @ values / weights.sum())}

    assert estimate(mean, 50, seed=1) == estimate(mean, 50, seed=1)
    assert estimate(mean, 50, seed=1) != estimate(mean, 50, seed=2)


def test_what_is_not_defined_has_no_interval() -> None:
    figures = estimate(lambda weights: {"area": float("nan")}, 3, resamples=5)
    assert figures == {"area": {"value": None, "low": None, "high": None}}
    with pytest.raises(ValueError, match="no items"):
        estimate(lambda weights: {}, 0)


def test_difference_subtracts_figure_by_figure() -> None:
    subtracted = difference(lambda weights: {"a": 3.0, "b": 1.0}, lambda weights: {"b": 5.0, "a": 1.0})
    assert subtracted(np.ones(1, dtype=np.int64)) == {"a": 2.0, "b": -4.0}


def test_mcnemar_is_the_binomial_test_of_the_disagreements() -> None:
    one = np.array([True] * 5 + [False] + [True] * 10)
    other = np.array([False] * 5 + [True] + [True] * 10)
    # 5 against 1: twice the chance of at most 1 of 6 = 2 * (1 + 6) / 64.
    assert mcnemar(one, other) == pytest.approx({"wins": 5, "losses": 1, "p_value": 14 / 64})
    assert mcnemar(other, other)["p_value"] == 1
    with pytest.raises(ValueError, match="the same ones"):
        mcnemar(one, other[:3])
