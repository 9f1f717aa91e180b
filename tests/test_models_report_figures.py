"""Figures of rows and of their resamples, against hand-computed numbers and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from models.report_figures import (
    build_statistic,
    count_confusion,
    describe_classes,
    group_rows,
    measure_calibration,
    rank_scores,
)
from models.reports import Row
from tests.report_rows import make_row

BINARY = ("fake", "real")
# Four pictures of the first label, two of the second; two are judged wrongly.
PROBABILITIES = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.3, 0.7], [0.6, 0.4], [0.2, 0.8]]
ROWS = [
    make_row(i, BINARY[int(i > 3)], BINARY[int(np.argmax(row))], row, BINARY) for i, row in enumerate(PROBABILITIES)
]


def measure(rows: list[Row], labels: tuple[str, ...], weights: list[int] | None = None) -> dict[str, float]:
    return build_statistic(rows, labels)(np.array(weights or [1] * len(rows)))


def test_figures_equal_those_counted_by_hand() -> None:
    figures = measure(ROWS, BINARY)
    assert figures["accuracy"] == pytest.approx(4 / 6)
    assert figures["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert figures["macro_f1"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    # Of the eight pairs (fake, real), the real one scores higher in seven.
    assert figures["roc_auc"] == pytest.approx(7 / 8)
    # Each confidence has a bin of its own but 0.7 (twice) and 0.8 (twice).
    gaps = [0.9 - 1, 0.8 - 1 + 0.8 - 1, 0.7 - 1 + 0.7 - 0, 0.6 - 0]
    assert figures["ece"] == pytest.approx(sum(map(abs, gaps)) / 6)


def test_a_resample_is_measured_like_the_rows_it_stands_for() -> None:
    weights = [2, 0, 1, 3, 1, 2]
    drawn = [row for row, weight in zip(ROWS, weights, strict=True) for _ in range(weight)]
    assert measure(ROWS, BINARY, weights) == pytest.approx(measure(drawn, BINARY))


def test_areas_and_scores_equal_those_of_scikit_learn() -> None:
    from sklearn.metrics import balanced_accuracy_score, f1_score, precision_recall_fscore_support, roc_auc_score

    random = np.random.default_rng(0)
    labels = tuple("abcd")
    # One decimal gives ties.
    probabilities = random.dirichlet(np.ones(4), 200).round(1) + 0.025
    probabilities /= probabilities.sum(1, keepdims=True)
    truth, predicted = random.integers(0, 4, 200), probabilities.argmax(1)
    rows = [make_row(i, labels[truth[i]], labels[predicted[i]], probabilities[i].tolist(), labels) for i in range(200)]
    figures = measure(rows, labels)
    area = roc_auc_score(truth, probabilities, multi_class="ovr")
    assert figures["roc_auc"] == pytest.approx(area)
    assert figures["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert figures["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    precision, recall, f1, support = precision_recall_fscore_support(truth, predicted)
    for i, found in enumerate(describe_classes(count_confusion(rows, labels), labels).values()):
        assert (found.precision, found.recall, found.f1) == pytest.approx((precision[i], recall[i], f1[i]))
        assert found.support == support[i]


def test_rows_without_an_answer_are_wrong_everywhere() -> None:
    rows = [*ROWS, make_row(6, "fake", None), make_row(7, "real", None)]
    assert count_confusion(rows, BINARY).tolist() == [[3, 1, 1], [1, 1, 1]]
    figures = measure(rows, BINARY)
    assert figures["accuracy"] == pytest.approx(4 / 8)
    assert figures["balanced_accuracy"] == pytest.approx((3 / 5 + 1 / 3) / 2)
    # The fake one ranks above every real one, the real one below every fake one: 7 of 15 pairs are left.
    assert figures["roc_auc"] == pytest.approx(7 / 15)
    assert figures["ece"] == pytest.approx(measure(ROWS, BINARY)["ece"])
    assert rank_scores(rows, "real")[6:].tolist() == [2, -1]


def test_without_probabilities_there_is_neither_area_nor_calibration() -> None:
    rows = [make_row(0, "fake", "fake"), make_row(1, "real", None)]
    figures = measure(rows, BINARY)
    assert figures["accuracy"] == 0.5
    assert np.isnan([figures["roc_auc"], figures["ece"]]).all()
    assert measure_calibration(rows) == ()


def test_a_class_that_does_not_occur_has_no_recall_and_no_say() -> None:
    rows = [make_row(0, "fake", "fake", [0.9, 0.1], BINARY), make_row(1, "fake", "real", [0.4, 0.6], BINARY)]
    figures = measure(rows, BINARY)
    assert figures["balanced_accuracy"] == 0.5
    assert figures["macro_f1"] == pytest.approx(2 / 3)
    assert np.isnan(figures["roc_auc"])
    assert describe_classes(count_confusion(rows, BINARY), BINARY)["real"].recall is None


def test_calibration_is_the_gap_weighted_by_count() -> None:
    probabilities = [[0.95, 0.05]] * 4 + [[0.65, 0.35]] * 2
    truth = ["fake", "fake", "fake", "real", "fake", "real"]
    rows = [make_row(i, truth[i], "fake", probabilities[i], BINARY) for i in range(6)]
    # Confidence 0.95 is right three times of four, confidence 0.65 once of two.
    assert measure(rows, BINARY)["ece"] == pytest.approx((0.20 * 4 + 0.15 * 2) / 6)
    low, high = measure_calibration(rows)
    assert (low.confidence, low.accuracy, low.count) == pytest.approx((0.65, 0.5, 2))
    assert (high.confidence, high.accuracy, high.count) == pytest.approx((0.95, 0.75, 4))
    assert (high.low, high.high) == pytest.approx((14 / 15, 1))


def test_certain_and_right_everywhere_is_perfectly_calibrated() -> None:
    rows = [make_row(0, "fake", "fake", [1.0, 0.0], BINARY), make_row(1, "real", "real", [0.0, 1.0], BINARY)]
    assert measure(rows, BINARY)["ece"] == 0
    assert [(one.confidence, one.accuracy, one.count) for one in measure_calibration(rows)] == [(1, 1, 2)]


def test_rows_of_one_picture_are_one_group() -> None:
    rows = [make_row(number, "fake", "fake") for number in (5, 3, 5, 4)]
    assert group_rows(rows).tolist() == [0, 1, 0, 2]
