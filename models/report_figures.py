"""Figures of any resample of a report's rows; what ``evaluate`` writes and what is compared comes from here alone.

Rows without an answer are wrong: they stand in a column of their own in the confusion matrix and rank worst in a ROC or
PR curve. Only calibration leaves out rows without probabilities, since they state no confidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from models.intervals import Figures, Statistic, Weights
from models.reports import CalibrationBin, ClassFigures, Row

__all__ = [
    "CALIBRATION_BINS",
    "FIGURE_TITLES",
    "build_statistic",
    "count_confusion",
    "describe_classes",
    "group_rows",
    "measure_bleu",
    "measure_calibration",
    "rank_scores",
]

CALIBRATION_BINS = 15
FIGURE_TITLES: Mapping[str, str] = MappingProxyType(
    {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "macro_f1": "macro F1",
        "roc_auc": "ROC AUC",
        "ece": "calibration error (ECE)",
        "relaxed_accuracy": "relaxed accuracy",
        "exact_match": "exact match",
        "bleu": "BLEU",
        "rouge1": "ROUGE-1",
        "rouge2": "ROUGE-2",
        "rougeL": "ROUGE-L",
    }
)
"""What people read, in the order of tables."""
GRAMS = 4
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def build_statistic(rows: Sequence[Row], labels: Sequence[str] = ()) -> Statistic:
    """All figures of a report as a function of how often each of its rows was drawn.

    Args:
        rows: of the report.
        labels: of the report; empty for free answers.
    """
    return _build_label_statistic(rows, labels) if labels else _build_answer_statistic(rows)


def group_rows(rows: Sequence[Row]) -> IntArray:
    """(n,) number of each row's picture, by which rows are resampled: questions about one picture go together."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(row.sha256, len(numbers)) for row in rows], dtype=np.int64)


def count_confusion(rows: Sequence[Row], labels: Sequence[str]) -> IntArray:
    """(labels, labels + 1) counts, rows true and columns predicted, the last without answer."""
    return _tabulate(_find_cells(rows, labels), np.ones(len(rows), dtype=np.int64), len(labels)).astype(np.int64)


def describe_classes(confusion: NDArray[np.generic], labels: Sequence[str]) -> dict[str, ClassFigures]:
    """Precision, recall, F1 and support of each class of a table by ``count_confusion``."""
    table = confusion.astype(np.float64)
    precision, recall, f1 = _measure_classes(table)
    return {
        label: ClassFigures(
            precision=float(precision[i]),
            recall=None if np.isnan(recall[i]) else float(recall[i]),
            f1=float(f1[i]),
            support=int(table[i].sum()),
        )
        for i, label in enumerate(labels)
    }


def measure_calibration(rows: Sequence[Row]) -> tuple[CalibrationBin, ...]:
    """The bins of a reliability diagram, equally wide over the highest probability; empty ones are left out."""
    stated = [row for row in rows if row.probabilities]
    if not stated:
        return ()
    confidence, right = _read_confidence(stated)
    numbers = _find_bins(confidence)
    return tuple(
        CalibrationBin(
            low=number / CALIBRATION_BINS,
            high=(number + 1) / CALIBRATION_BINS,
            confidence=float(confidence[members].mean()),
            accuracy=float(right[members].mean()),
            count=int(members.sum()),
        )
        for number in range(CALIBRATION_BINS)
        if (members := numbers == number).any()
    )


def rank_scores(rows: Sequence[Row], label: str) -> FloatArray:
    """(n,) probability of a label, by which rows are ranked; beyond the worst, -1 or 2, where there is none."""
    worst = {True: -1.0, False: 2.0}  # beyond any probability
    return np.array([row.probabilities[label] if row.probabilities else worst[row.truth == label] for row in rows])


def measure_bleu(sums: Sequence[int]) -> float:
    """BLEU in [0, 100] of summed counts as in ``AnswerScores`` (Papineni et al. 2002), smoothed as sacrebleu does.

    An n-gram length of which none is found counts as half an n-gram, the next one as a quarter (method ``exp``).
    """
    found, written = sums[:GRAMS], sums[GRAMS : 2 * GRAMS]
    length, expected = sums[-2:]
    if not any(found) or not all(written):
        return 0.0
    smoothing, logarithms = 1.0, 0.0
    for right, total in zip(found, written, strict=True):
        smoothing *= 1 if right else 2
        logarithms += log((right or 1 / smoothing) / total)
    brevity = min(0.0, 1 - expected / length)
    return 100 * exp(brevity + logarithms / GRAMS)


def _build_answer_statistic(rows: Sequence[Row]) -> Statistic:
    scores = [row.scores for row in rows if row.scores]
    names = ("relaxed_accuracy", "exact_match", "rouge1", "rouge2", "rougeL")
    means = np.array([(one.relaxed, one.exact, one.rouge1, one.rouge2, one.rougeL) for one in scores], dtype=float)
    counts = np.array([one.bleu for one in scores], dtype=np.int64)

    def measure(weights: Weights) -> Figures:
        found = (weights @ means / weights.sum()).tolist()
        return dict(zip(names, found, strict=True)) | {"bleu": measure_bleu((weights @ counts).tolist())}

    return measure


def _build_label_statistic(rows: Sequence[Row], labels: Sequence[str]) -> Statistic:
    cells = _find_cells(rows, labels)
    stated = np.array([row.probabilities is not None for row in rows])
    # Of two labels the one ranks as the other, back to front.
    ranked = (labels[1:] if len(labels) == 2 else labels) if stated.any() else ()
    curves = [_Ranks(rank_scores(rows, label), np.array([row.truth == label for row in rows])) for label in ranked]
    confidence, right = _read_confidence([row for row in rows if row.probabilities])
    bins, gaps = _find_bins(confidence), confidence - right

    def measure(weights: Weights) -> Figures:
        table = _tabulate(cells, weights, len(labels))
        _, recall, f1 = _measure_classes(table)
        occurs = table.sum(axis=1) > 0
        found = {
            "accuracy": float(np.trace(table) / table.sum()),
            "balanced_accuracy": float(recall[occurs].mean()),
            "macro_f1": float(f1[occurs].mean()),
            "roc_auc": float(np.mean([one.area(weights) for one in curves])) if curves else float("nan"),
        }
        drawn = weights[stated]
        apart = np.abs(np.bincount(bins, drawn * gaps, minlength=CALIBRATION_BINS)).sum()
        return found | {"ece": float(apart / drawn.sum()) if drawn.sum() else float("nan")}

    return measure


class _Ranks:
    """Scores sorted once, so that the area under the ROC curve of any resample takes two sums.

    Args:
        scores: (n,).
        positive: (n,) whether each belongs to the class.
    """

    def __init__(self, scores: FloatArray, positive: NDArray[np.bool_]) -> None:
        levels, self._levels = np.unique(scores, return_inverse=True)
        self._count = len(levels)
        self._positive = positive

    def area(self, weights: Weights) -> float:
        """Share of pairs (of the class, not of it) whose first scores higher, a tie half; NaN where there is none."""
        positive = np.bincount(self._levels, weights * self._positive, minlength=self._count)
        negative = np.bincount(self._levels, weights * ~self._positive, minlength=self._count)
        pairs = positive.sum() * negative.sum()
        return float(positive @ (negative.cumsum() - negative / 2) / pairs) if pairs else float("nan")


def _find_cells(rows: Sequence[Row], labels: Sequence[str]) -> IntArray:
    """(n,) number of each row's cell in the table, counted along its rows."""
    places = {label: place for place, label in enumerate(labels)}
    columns = len(labels) + 1
    return np.array(
        [places[row.truth] * columns + places.get(row.predicted or "", len(labels)) for row in rows], dtype=np.int64
    )


def _tabulate(cells: IntArray, weights: Weights, labels: int) -> FloatArray:
    counts = np.bincount(cells, weights.astype(np.float64), minlength=labels * (labels + 1))
    table: FloatArray = counts.reshape(labels, labels + 1).astype(np.float64)
    return table


def _measure_classes(table: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Precision, recall (NaN for a class that does not occur) and F1 of each class."""
    right = np.diagonal(table)
    support, given = table.sum(axis=1), table[:, :-1].sum(axis=0)
    precision = np.divide(right, given, out=np.zeros(len(right)), where=given > 0)
    recall = np.divide(right, support, out=np.full(len(right), np.nan), where=support > 0)
    f1 = np.divide(2 * right, support + given, out=np.zeros(len(right)), where=support + given > 0)
    return precision, recall, f1


def _read_confidence(rows: Sequence[Row]) -> tuple[FloatArray, FloatArray]:
    """(n,) highest probability and (n,) whether that label is right, of rows with probabilities."""
    confidence = np.array([max((row.probabilities or {}).values()) for row in rows], dtype=np.float64)
    return confidence, np.array([row.right for row in rows], dtype=np.float64)


def _find_bins(confidence: FloatArray) -> IntArray:
    """Bins are (low, high]: a confidence of exactly 1 belongs to the last."""
    return np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
