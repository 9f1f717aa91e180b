"""How sure a measured figure is: bootstrap intervals, and tests of one system against another on the same pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
CONFIDENCE = 0.95
Weights = NDArray[np.int64]
"""(n,) how often each of the n items was drawn; all ones for the sample itself."""
Figures = dict[str, float]
Statistic = Callable[[Weights], Figures]
Estimate = dict[str, float | None]
"""``value``, ``low`` and ``high``; None (null in JSON) where the figure is not defined."""


def estimate(
    statistic: Statistic,
    count: int,
    *,
    groups: NDArray[np.int64] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Estimate]:
    """Figures with their 95 % percentile intervals (Efron 1979).

    Two systems measured with the same count and seed are resampled alike, so the statistic may be the difference of
    both: a paired bootstrap.

    Args:
        statistic: the figures of a resample by name; NaN where one is not defined there.
        count: number of items.
        groups: int (n,), number of each item's group from 0. Whole groups are drawn, as items of one group (questions
            about one picture) do not vary independently of each other. Each item by itself when not given.
        seed: of the resampling.
        resamples: how many.

    Returns:
        By name ``value`` on the sample itself, ``low`` and ``high``.

    Raises:
        ValueError: if there is no item.
    """
    if count < 1:
        raise ValueError("a figure of no items is not defined")
    values = statistic(np.ones(count, dtype=np.int64))
    random = np.random.default_rng(seed)
    owners = np.arange(count) if groups is None else groups
    drawn = int(owners.max()) + 1
    shares = np.full(drawn, 1 / drawn)
    samples = [statistic(random.multinomial(drawn, shares)[owners]) for _ in range(resamples)]
    return {name: _describe(value, np.array([one[name] for one in samples])) for name, value in values.items()}


def _describe(value: float, samples: NDArray[np.float64]) -> Estimate:
    defined = samples[~np.isnan(samples)]
    if np.isnan(value) or not len(defined):
        return {"value": None, "low": None, "high": None}
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return {"value": float(value), "low": float(low), "high": float(high)}


def difference(one: Statistic, other: Statistic) -> Statistic:
    """``one`` less ``other``, figure by figure, on the same resample."""

    def subtract(weights: Weights) -> Figures:
        taken = other(weights)
        return {name: value - taken[name] for name, value in one(weights).items()}

    return subtract


def mcnemar(right: NDArray[np.bool_], other_right: NDArray[np.bool_]) -> dict[str, float]:
    """McNemar's exact test: whether one system is right more often than the other on the same items.

    Args:
        right: (n,) where the one is right.
        other_right: (n,) where the other is.

    Returns:
        ``wins`` (only the one is right), ``losses`` (only the other), ``p_value`` (two-sided, binomial).

    Raises:
        ValueError: if the two are not of the same length.
    """
    if right.shape != other_right.shape:
        raise ValueError(f"{len(right)} items against {len(other_right)}: the systems must answer the same ones")
    from scipy.stats import binomtest

    wins = int((right & ~other_right).sum())
    losses = int((~right & other_right).sum())
    p_value = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    return {"wins": wins, "losses": losses, "p_value": float(p_value)}
