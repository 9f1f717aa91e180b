"""Reports against each other: rows pair by picture and question, and every number can be counted by hand."""

from __future__ import annotations

import pytest

from models.report_comparison import Comparison, compare_reports, pair_rows
from models.reports import Report, ReportError
from tests.report_rows import make_report, make_row

LABELS = ("chat", "place", "other")
TRUTH = [LABELS[i % 3] for i in range(30)]


def made(wrong: set[int], name: str, *, order: int = 1, silent: int = 0) -> Report:
    """A report that is wrong at those numbers, and says nothing at the first ``silent`` of them."""
    quiet = sorted(wrong)[:silent]
    rows = [
        make_row(i, truth, None if i in quiet else LABELS[(i + 1) % 3] if i in wrong else truth)
        for i, truth in enumerate(TRUTH)
    ]
    return make_report(rows[::order], LABELS, name)


def test_wins_losses_and_differences_equal_those_counted_by_hand() -> None:
    one, other = made({0, 1}, "one"), made({1, 2, 3, 4, 5, 6}, "other", order=-1)
    found = compare_reports([one, other], resamples=500)
    contrast = found.contrasts[0]
    assert (contrast.both_right, contrast.wins, contrast.losses, contrast.both_wrong) == (23, 5, 1, 1)
    assert contrast.p_value == pytest.approx(14 / 64)
    accuracy = contrast.differences["accuracy"]
    assert accuracy is not None
    assert accuracy.value == pytest.approx(4 / 30)
    assert -0.05 < accuracy.low < accuracy.value < accuracy.high < 0.35
    assert contrast.differences["roc_auc"] is None
    assert (found.rows, found.pictures) == (30, 30)
    # In the order of the first report.
    assert [(row.source, row.given, row.right) for row in found.disagreements][:2] == [
        ("set row 0", ("place", "chat"), (False, True)),
        ("set row 2", ("other", "chat"), (True, False)),
    ]
    assert Comparison.model_validate_json(found.model_dump_json()) == found


def test_a_model_against_itself_differs_by_nothing() -> None:
    found = compare_reports([made({0, 7}, "m"), made({0, 7}, "m")], resamples=50)
    assert [side.name for side in found.sides] == ["m", "m (2)"]
    assert found.disagreements == ()
    assert found.contrasts[0].p_value == 1
    differences = [one for one in found.contrasts[0].differences.values() if one]
    assert len(differences) == 3
    assert {(one.value, one.low, one.high) for one in differences} == {(0, 0, 0)}


def test_different_wrong_answers_and_no_answer_are_disagreements() -> None:
    found = compare_reports([made({0, 1}, "one"), made({0, 1}, "other", silent=1)], resamples=10)
    assert [(row.given, row.right) for row in found.disagreements] == [(("place", "(no answer)"), (False, False))]


def test_each_is_set_against_each_that_follows() -> None:
    found = compare_reports([made(set(), "a"), made({1}, "b"), made({1, 2}, "c")], resamples=10)
    assert [(one.one, one.other, one.wins) for one in found.contrasts] == [(0, 1, 1), (0, 2, 2), (1, 2, 1)]


def test_a_picture_that_stands_twice_is_paired_in_its_order() -> None:
    rows = [make_row(1, "chat", "chat"), make_row(1, "chat", "place"), make_row(2, "place", "place")]
    paired = pair_rows([make_report(rows, LABELS), make_report([rows[0], rows[2], rows[1]], LABELS)])
    assert [[row.predicted for row in pair] for pair in paired] == [["chat"] * 2, ["place"] * 2, ["place"] * 2]


def test_reports_of_other_rows_are_refused() -> None:
    report = made(set(), "a")
    rows = [make_row(i, "chat", "chat") for i in range(2)]
    with pytest.raises(ReportError, match=r"28 only in the first, 0 only in the second"):
        compare_reports([report, make_report(rows, LABELS, "b")])
    with pytest.raises(ReportError, match=r"different truths \(set row 1 among others\)"):
        compare_reports([make_report([rows[0], make_row(1, "place", "chat")], LABELS), make_report(rows, LABELS)])
    with pytest.raises(ReportError, match="at least two"):
        compare_reports([report])
