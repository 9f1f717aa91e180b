"""Many signals to one support score, by a logistic model that allows any of them to be missing.

A claim can be false in more than one way: it may belong to another picture altogether, or be right but for one word.
What tells the first says little of the second, so the model is a multinomial one with a class for each way, and a claim
is supported only where every way of being false is unlikely.

A missing signal counts as its mean over the calibration claims, so it adds nothing to the log-odds; the model learned
from claims of which optional signals were hidden at times, so that the others can stand alone. Two thresholds turn the
score into a verdict: each is the least demanding one at which the stated precision was reached on those claims.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import ExhibitError
from rag.schema import VerdictName

__all__ = ["CALIBRATIONS", "TRUE", "Falsehood", "Fusion", "SignalScale", "find_fusion", "fit_fusion", "read_fusion"]

TRUE = "true"
"""The kind of a calibration claim that holds; every other kind is a way of being false."""
CALIBRATIONS = Path(__file__).with_name("calibrations")
_OPTIONAL = (
    "detector",
    "count",
    "vqa",
    "quotes",
    "language",
    "captions",
)  # what may be missing; the others come with the calibration
_HIDDEN_COPIES = 3
_HIDDEN_SHARE = 0.3


class SignalScale(BaseModel):
    """Where one signal lies over the calibration claims.

    Attributes:
        mean: what stands in where the signal is missing.
        scale: standard deviation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    scale: float = Field(gt=0)


class Falsehood(BaseModel):
    """A claim that holds against one that is false in one way.

    Attributes:
        intercept: log-odds of the first where all signals are missing.
        weights: log-odds for one standard deviation of each signal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    intercept: float
    weights: dict[str, float]


class Fusion(BaseModel):
    """A calibrated logistic model, with what it was calibrated on.

    Attributes:
        clip: zoo id of the image-text model whose cosines it weighs.
        weights_sha256: of that model's weights; cosines of other weights mean something else.
        domain: kind of pictures.
        about: one sentence: which claims it learned from.
        signals: by name.
        falsehoods: the ways of being false that it learned of, by name.
        refuted_below: support under which a claim is refuted; 0 where the precision was never reached.
        supported_from: support from which a claim is supported; above 1 where it was never reached.
        target_precision: share of such verdicts that are right, on the calibration claims.
        base_rate: share of calibration claims that are true; supports assume it.
        probe: file of the head for this domain, beside this one; empty where there is none.
        strangers: file of strangers' vectors (``rag/strangers.py``), beside this one; empty where there is none.
        data: what the calibration claims were made from.
        figures: what was measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 2
    clip: str
    weights_sha256: str
    domain: str
    about: str
    signals: dict[str, SignalScale]
    falsehoods: dict[str, Falsehood] = Field(min_length=1)
    refuted_below: float = Field(ge=0, le=1)
    supported_from: float = Field(ge=0)
    target_precision: float = Field(gt=0.5, lt=1)
    base_rate: float = Field(gt=0, lt=1)
    probe: str = ""
    strangers: str = ""
    data: dict[str, Any] = Field(default_factory=dict)
    figures: dict[str, Any] = Field(default_factory=dict)

    def contributions(self, values: Mapping[str, float]) -> dict[str, float]:
        """What each measured signal that the model knows adds to the log-odds.

        Against each way of being false that is its weight times its distance from the mean; of several ways the mean,
        each as likely as it is for this claim.
        """
        doubts = self.doubts(values)
        return {
            name: sum(share * self.falsehoods[way].weights[name] for way, share in doubts.items()) * distance
            for name, distance in self._distances(values).items()
        }

    def doubts(self, values: Mapping[str, float]) -> dict[str, float]:
        """If a claim with these signals is false, how likely in each way: shares that sum to 1."""
        against = {way: -odds for way, odds in self._odds(values).items()}
        most = max(against.values())
        shares = {way: math.exp(odds - most) for way, odds in against.items()}
        return {way: share / sum(shares.values()) for way, share in shares.items()}

    def support(self, values: Mapping[str, float]) -> float:
        """Probability in [0, 1] that a claim with these signals is true, among claims as it was calibrated on."""
        return 1 / (1 + sum(math.exp(-min(max(odds, -500.0), 500.0)) for odds in self._odds(values).values()))

    def _distances(self, values: Mapping[str, float]) -> dict[str, float]:
        return {name: (values[name] - one.mean) / one.scale for name, one in self.signals.items() if name in values}

    def _odds(self, values: Mapping[str, float]) -> dict[str, float]:
        distances = self._distances(values)
        return {
            way: one.intercept + sum(one.weights[name] * distance for name, distance in distances.items())
            for way, one in self.falsehoods.items()
        }

    def verdict(self, support: float) -> VerdictName:
        """What that support means by the two thresholds."""
        if support >= self.supported_from:
            return "supported"
        return "refuted" if support < self.refuted_below else "not_enough_evidence"


def fit_fusion(
    rows: Sequence[Mapping[str, float]],
    kinds: Sequence[str],
    *,
    names: Sequence[str],
    target_precision: float = 0.9,
    strength: float = 1.0,
    seed: int = 0,
    **described: Any,  # noqa: ANN401 - fields of Fusion
) -> Fusion:
    """Calibrate a fusion.

    Args:
        rows: signals of each calibration claim.
        kinds: of each: ``TRUE``, or the name of the way in which it is false.
        names: signals to use; one that no row has, or that never varies, is left out.
        target_precision: of both verdicts.
        strength: inverse of the ridge on the weights.
        seed: of what is hidden.
        **described: the remaining fields of ``Fusion``.

    Raises:
        ExhibitError: all claims are of one truth, or no signal varies.
    """
    from sklearn.linear_model import LogisticRegression

    ways = sorted({*kinds} - {TRUE})
    truth = np.array([kind == TRUE for kind in kinds])
    if truth.all() or not truth.any():
        raise ExhibitError("a fusion needs true and false claims; give both")
    table = np.array([[row.get(name, np.nan) for name in names] for row in rows], dtype=np.float64)
    present = ~np.isnan(table)
    kept = [at for at in range(len(names)) if present[:, at].sum() > 1 and np.nanstd(table[:, at]) > 1e-9]
    if not kept:
        raise ExhibitError("no signal varies over the calibration claims; give other claims or signals")
    table, present = table[:, kept], present[:, kept]
    means, scales = np.nanmean(table, axis=0), np.nanstd(table, axis=0)
    standard = np.where(present, (table - means) / scales, 0.0)
    random = np.random.default_rng(seed)
    steady = np.array([names[at] not in _OPTIONAL for at in kept])
    copies = [standard]
    copies += [standard * (steady | (random.random(standard.shape) >= _HIDDEN_SHARE)) for _ in range(_HIDDEN_COPIES)]
    # All copies together count as much as the claims themselves, or the ridge would mean less.
    shares = np.repeat([0.5] + [0.5 / _HIDDEN_COPIES] * _HIDDEN_COPIES, len(truth))
    classes = np.array([[TRUE, *ways].index(kind) for kind in kinds])
    model = LogisticRegression(C=strength, max_iter=2000).fit(
        np.vstack(copies), np.tile(classes, len(copies)), sample_weight=shares
    )
    chosen = [names[at] for at in kept]
    fusion = Fusion(
        signals={
            name: SignalScale(mean=_short(mean), scale=_short(scale))
            for name, mean, scale in zip(chosen, means, scales, strict=True)
        },
        falsehoods={
            way: Falsehood(
                intercept=_short(intercept), weights={name: _short(one) for name, one in zip(chosen, row, strict=True)}
            )
            for way, intercept, row in zip(ways, *_odds_of_truth(model.intercept_, model.coef_), strict=True)
        },
        refuted_below=0.0,
        supported_from=1.01,
        target_precision=target_precision,
        base_rate=float(truth.mean()),
        **described,
    )
    supports = np.array([fusion.support(row) for row in rows])
    return fusion.model_copy(
        update={
            "supported_from": _threshold(supports, truth, target_precision, missing=1.01),
            "refuted_below": 1 - _threshold(1 - supports, ~truth, target_precision, missing=1.0),
        }
    )


def read_fusion(file: Path) -> Fusion:
    """A stored calibration.

    Raises:
        ExhibitError: the file is missing, or is none.
    """
    try:
        return Fusion(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, ValidationError) as error:
        raise ExhibitError(f"{file}: cannot be read as a calibration ({str(error).splitlines()[0]})") from error


def find_fusion(weights_sha256: str, domain: str, folder: Path = CALIBRATIONS) -> tuple[Fusion, Path] | None:
    """The calibration of an image-text model for a kind of pictures, with its file; None where there is none."""
    for file in sorted(folder.glob(f"*.{domain}.json")):
        fusion = read_fusion(file)
        if weights_sha256 and fusion.weights_sha256 == weights_sha256:
            return fusion, file
    return None


def _odds_of_truth(
    intercept: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-odds of the first class against each other one, of a fitted model; of two classes it keeps the second's."""
    if len(weights) == 1:
        return -intercept, -weights
    return intercept[0] - intercept[1:], weights[0] - weights[1:]


def _threshold(scores: NDArray[np.float64], truth: NDArray[np.bool_], precision: float, *, missing: float) -> float:
    """The least score at which all claims that reach it are true in at least that share; ``missing`` if none is.

    Scores that few claims reach say little: at least 10 claims, or one in fifty, have to.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    counts = np.arange(1, len(order) + 1)
    right = np.cumsum(truth[order]) / counts
    last_of_equals = np.r_[ranked[1:] != ranked[:-1], True]
    enough = counts >= min(max(10, len(order) // 50), len(order))
    good = np.flatnonzero((right >= precision) & last_of_equals & enough)
    return float(ranked[good[-1]]) if len(good) else missing


def _short(value: float) -> float:
    """Six figures, which is more than the data carry."""
    return float(f"{value:.6g}")
