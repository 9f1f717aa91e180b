"""Fusion: missing signals add nothing, contributions sum to the log-odds, thresholds keep their precision."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import ExhibitError
from rag.fusion import Fusion, SignalWeight, find_fusion, fit_fusion, read_fusion


def described(**more: Any) -> dict[str, Any]:
    return {"clip": "tiny", "weights_sha256": "ab", "domain": "photographs", "about": "made up"} | more


def by_hand() -> Fusion:
    return Fusion(
        intercept=0.5,
        signals={
            "whole": SignalWeight(mean=0.2, scale=0.1, weight=2.0),
            "count": SignalWeight(mean=-1.0, scale=0.5, weight=-0.5),
        },
        refuted_below=0.3,
        supported_from=0.8,
        target_precision=0.9,
        base_rate=0.5,
        **described(),
    )


def rows_of(count: int = 400) -> tuple[list[dict[str, float]], list[bool]]:
    random = np.random.default_rng(0)
    truths = [bool(number % 2) for number in range(count)]
    rows = []
    for number, truth in enumerate(truths):
        row = {"whole": float(random.normal(1.0 if truth else 0.0)), "still": 1.0}
        if number % 3 == 0:
            row["rare"] = float(random.normal(2.0 if truth else 0.0))
        rows.append(row)
    return rows, truths


def test_contributions_are_what_the_weights_say_and_sum_to_the_log_odds() -> None:
    fusion = by_hand()
    values = {"whole": 0.35, "count": 0.0, "unknown": 9.0}
    assert fusion.contributions(values) == pytest.approx({"whole": 3.0, "count": -1.0})
    assert fusion.support(values) == pytest.approx(1 / (1 + math.exp(-2.5)))


def test_a_missing_signal_adds_nothing() -> None:
    assert by_hand().support({"whole": 0.2}) == by_hand().support({}) == pytest.approx(1 / (1 + math.exp(-0.5)))


@pytest.mark.parametrize(
    ("support", "verdict"),
    [(0.8, "supported"), (0.79, "not_enough_evidence"), (0.3, "not_enough_evidence"), (0.29, "refuted")],
)
def test_thresholds_make_three_verdicts(support: float, verdict: str) -> None:
    assert by_hand().verdict(support) == verdict


def test_extreme_signals_stay_within_zero_and_one() -> None:
    assert by_hand().support({"whole": 1e9}) == 1.0
    assert 0.0 <= by_hand().support({"whole": -1e9}) < 1e-200


def test_fitting_finds_what_tells_truth_and_leaves_out_what_never_varies() -> None:
    rows, truths = rows_of()
    fusion = fit_fusion(rows, truths, names=("whole", "still", "rare", "absent"), **described())
    assert set(fusion.signals) == {"whole", "rare"}
    assert fusion.signals["whole"].weight > 0
    assert fusion.signals["rare"].weight > 0
    assert fusion.base_rate == 0.5
    assert fusion == fit_fusion(rows, truths, names=("whole", "still", "rare", "absent"), **described())


def test_both_thresholds_reach_the_stated_precision_on_what_they_were_set_on() -> None:
    rows, truths = rows_of()
    fusion = fit_fusion(rows, truths, names=("whole", "rare"), target_precision=0.85, **described())
    supports = np.array([fusion.support(row) for row in rows])
    yes, no = supports >= fusion.supported_from, supports < fusion.refuted_below
    assert yes.sum() >= 10
    assert no.sum() >= 10
    assert np.array(truths)[yes].mean() >= 0.85
    assert (~np.array(truths))[no].mean() >= 0.85


def test_a_precision_that_is_never_reached_settles_nothing() -> None:
    random = np.random.default_rng(1)
    rows = [{"whole": float(value)} for value in random.normal(size=400)]
    fusion = fit_fusion(
        rows, [bool(at % 2) for at in range(400)], names=("whole",), target_precision=0.99, **described()
    )
    assert {fusion.verdict(support) for support in np.linspace(0, 1, 101)} == {"not_enough_evidence"}


@pytest.mark.parametrize("truth", [True, False])
def test_claims_of_one_truth_are_refused(truth: bool) -> None:
    with pytest.raises(ExhibitError, match="true and false"):
        fit_fusion([{"whole": 1.0}, {"whole": 2.0}], [truth] * 2, names=("whole",), **described())


def test_a_calibration_is_found_by_the_weights_it_belongs_to(tmp_path: Path) -> None:
    file = tmp_path / "tiny.photographs.json"
    file.write_text(by_hand().model_dump_json(), encoding="utf-8")
    assert read_fusion(file) == by_hand()
    assert find_fusion("ab", "photographs", tmp_path) == (by_hand(), file)
    assert find_fusion("other", "photographs", tmp_path) is None
    assert find_fusion("", "photographs", tmp_path) is None
    assert find_fusion("ab", "casework", tmp_path) is None


def test_a_damaged_calibration_says_which_file_it_is(tmp_path: Path) -> None:
    file = tmp_path / "tiny.photographs.json"
    file.write_text('{"clip": 3}', encoding="utf-8")
    with pytest.raises(ExhibitError, match=r"tiny\.photographs\.json"):
        read_fusion(file)
