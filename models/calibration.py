"""How far to believe a probability: a temperature for each model, and how often it was right at that confidence.

A network that was trained long is surer than it is right. One number, fitted on pictures it never learned from, takes
that back without changing any answer (Guo et al. 2017, arXiv:1706.04599).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.schema import Expectation

__all__ = ["BINS", "FEWEST", "HeldOut", "expect", "expect_together", "fit_temperature", "miscalibration", "soften"]

Logits = NDArray[np.float64]

BINS = 15
"""Equal bins of confidence between 0 and 1, as in a reliability diagram."""
FEWEST = 20
"""Pictures that a bin needs before its share of right answers is stated."""
_LOWEST, _HIGHEST = 0.05, 20.0
_HALVINGS = 60


@dataclass(frozen=True)
class HeldOut:
    """What a model said of pictures that neither its training nor its temperature knew.

    Attributes:
        logits: float64 (n, labels), raw.
        truth: int (n,), index of the right label.
        labels: the labels in the order of the logits.
        sha256: of the set, by which models that were measured on the same pictures are told.
    """

    logits: Logits
    truth: NDArray[np.intp]
    labels: tuple[str, ...]
    sha256: str


def soften(logits: Logits, temperature: float) -> Logits:
    """Probabilities (n, labels) of raw scores (n, labels) over a temperature; 1 leaves them as the network means them.

    Raises:
        ValueError: the temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"a temperature is above 0, not {temperature}")
    scaled = logits / temperature
    shares = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float64)


def fit_temperature(logits: Logits, truth: NDArray[np.intp]) -> float:
    """The temperature under which the right labels of a held-out set are most likely.

    The negative log-likelihood is convex in one over the temperature, so its slope is bisected.

    Args:
        logits: float64 (n, labels), raw.
        truth: int (n,), index of the right label.

    Returns:
        In [0.05, 20]; an end of that range where every answer, or none, is right by far.

    Raises:
        ValueError: there is no picture.
    """
    if not len(logits):
        raise ValueError("a temperature needs held-out pictures")
    right = logits[np.arange(len(truth)), truth]

    def slope(inverse: float) -> float:
        return float((soften(logits, 1 / inverse) * logits).sum() - right.sum())

    low, high = 1 / _HIGHEST, 1 / _LOWEST
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return float((low * high) ** -0.5)


def expect(held: HeldOut, temperature: float, confidence: float) -> Expectation | None:
    """How often a model was right on held-out pictures of which it was as sure as of this one.

    Args:
        held: the pictures.
        temperature: of the model.
        confidence: its highest probability for this picture, calibrated, in [0, 1].

    Returns:
        ``None`` where fewer than ``FEWEST`` pictures lie in that bin, so that nothing is claimed.
    """
    return _count(soften(held.logits, temperature), held.truth, confidence)


def expect_together(
    held: Mapping[str, tuple[HeldOut, float]], weights: Mapping[str, float], confidence: float
) -> Expectation | None:
    """The same for the weighted mean of several models, from what each said of the very same pictures.

    Args:
        held: model id to its pictures and temperature.
        weights: model id to its share of the verdict.
        confidence: of the verdict.

    Returns:
        ``None`` also where a model that has a share was not measured, or on other pictures.
    """
    needed = [model_id for model_id, share in weights.items() if share > 0]
    if not needed or any(model_id not in held for model_id in needed):
        return None
    first = held[needed[0]][0]
    mean = np.zeros_like(first.logits)
    for model_id in needed:
        one, temperature = held[model_id]
        if one.sha256 != first.sha256 or set(one.labels) != set(first.labels):
            return None
        order = [one.labels.index(label) for label in first.labels]
        mean += weights[model_id] * soften(one.logits, temperature)[:, order]
    return _count(mean, first.truth, confidence)


def miscalibration(shares: Logits, truth: NDArray[np.intp]) -> float:
    """Expected calibration error in [0, 1]: mean gap between confidence and accuracy over ``BINS`` bins."""
    bins, right = _place(shares.max(axis=1)), shares.argmax(axis=1) == truth
    confidence = shares.max(axis=1)
    gaps = [abs(confidence[bins == one].sum() - right[bins == one].sum()) for one in np.unique(bins)]
    return float(sum(gaps) / len(truth))


def _count(shares: Logits, truth: NDArray[np.intp], confidence: float) -> Expectation | None:
    place = int(_place(np.array([confidence]))[0])
    alike = _place(shares.max(axis=1)) == place
    if alike.sum() < FEWEST:
        return None
    right = shares.argmax(axis=1)[alike] == truth[alike]
    return Expectation(float(right.mean()), int(alike.sum()), len(truth), place / BINS, (place + 1) / BINS)


def _place(confidence: Sequence[float] | Logits) -> NDArray[np.intp]:
    """Number of the bin (low, high] of each confidence."""
    # Every prediction counts the held-out pictures of its bin: without numpy that took a tenth of a network's pass.
    return np.maximum(np.ceil(np.round(np.asarray(confidence, np.float64) * BINS, 9)) - 1, 0).astype(np.intp)
