"""Fusion: missing signals add nothing, contributions sum to the log-odds, thresholds keep their precision."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import ExhibitError
from rag.fusion import TRUE, Falsehood, Fusion, SignalScale, find_fusion, fit_fusion, read_fusion


def described(**more: Any) -> dict[str, Any]:
    return {"clip": "tiny", "weights_sha256": "ab", "domain": "photographs", "about": "made up"} | more


def by_hand(**further: Falsehood) -> Fusion:
    return Fusion(
        signals={"whole": SignalScale(mean=0.2, scale=0.1), "count": SignalScale(mean=-1.0, scale=0.5)},
        falsehoods={"changed": Falsehood(intercept=0.5, weights={"whole": 2.0, "count": -0.5})} | further,
        refuted_below=0.3,
        supported_from=0.8,
        target_precision=0.9,
        base_rate=0.5,
        **described(),
    )


def rows_of(count: int = 400) -> tuple[list[dict[str, float]], list[str]]:
    random = np.random.default_rng(0)
    truths = [bool(number % 2) for number in range(count)]
    rows = []
    for number, truth in enumerate(truths):
        row = {"whole": float(random.normal(1.0 if truth else 0.0)), "still": 1.0}
        if number % 3 == 0:
            row["rare"] = float(random.normal(2.0 if truth else 0.0))
        rows.append(row)
    return rows, [TRUE if truth else "changed" for truth in truths]


def test_contributions_are_what_the_weights_say_and_sum_to_the_log_odds() -> None:
    fusion = by_hand()
    values = {"whole": 0.35, "count": 0.0, "unknown": 9.0}
    assert fusion.contributions(values) == pytest.approx({"whole": 3.0, "count": -1.0})
    assert fusion.support(values) == pytest.approx(1 / (1 + math.exp(-2.5)))


def test_a_claim_has_to_pass_every_way_of_being_false() -> None:
    fusion = by_hand(foreign=Falsehood(intercept=0.0, weights={"whole": 1.0, "count": 0.0}))
    values = {"whole": 0.4}  # two deviations above the mean: odds e^4.5 against "changed", e^2 against "foreign"
    changed, foreign = math.exp(-4.5), math.exp(-2.0)
    assert fusion.support(values) == pytest.approx(1 / (1 + changed + foreign))
    assert fusion.support(values) < min(1 / (1 + changed), 1 / (1 + foreign))
    assert fusion.doubts(values) == pytest.approx(
        {"changed": changed / (changed + foreign), "foreign": foreign / (changed + foreign)}
    )
    expected = (2.0 * changed + 1.0 * foreign) / (changed + foreign) * 2
    assert fusion.contributions(values) == pytest.approx({"whole": expected})


def test_each_way_of_being_false_is_learned_from_its_own_claims() -> None:
    random = np.random.default_rng(2)
    kinds = [TRUE, "foreign", "replaced"] * 200
    rows = [
        {
            "whole": float(random.normal(-2.0 if kind == "foreign" else 0.0)),
            "words": float(random.normal(-2.0 if kind == "replaced" else 0.0)),
        }
        for kind in kinds
    ]
    fusion = fit_fusion(rows, kinds, names=("whole", "words"), **described())
    assert fusion.base_rate == pytest.approx(1 / 3)
    assert fusion.falsehoods["foreign"].weights["whole"] > 4 * abs(fusion.falsehoods["foreign"].weights["words"])
    assert fusion.falsehoods["replaced"].weights["words"] > 4 * abs(fusion.falsehoods["replaced"].weights["whole"])
    assert fusion.doubts({"whole": -2.0, "words": 0.0})["foreign"] > 0.9
    assert fusion.support({"whole": 1.0, "words": 1.0}) > 0.8 > 0.2 > fusion.support({"whole": 1.0, "words": -3.0})


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
    rows, kinds = rows_of()
    fusion = fit_fusion(rows, kinds, names=("whole", "still", "rare", "absent"), **described())
    assert set(fusion.signals) == {"whole", "rare"}
    assert all(fusion.falsehoods["changed"].weights[name] > 0 for name in ("whole", "rare"))
    assert fusion.base_rate == 0.5
    assert fusion == fit_fusion(rows, kinds, names=("whole", "still", "rare", "absent"), **described())


def test_both_thresholds_reach_the_stated_precision_on_what_they_were_set_on() -> None:
    rows, kinds = rows_of()
    fusion = fit_fusion(rows, kinds, names=("whole", "rare"), target_precision=0.85, **described())
    supports = np.array([fusion.support(row) for row in rows])
    yes, no = supports >= fusion.supported_from, supports < fusion.refuted_below
    assert yes.sum() >= 10
    assert no.sum() >= 10
    truths = np.array(kinds) == TRUE
    assert truths[yes].mean() >= 0.85
    assert (~truths)[no].mean() >= 0.85


def test_a_precision_that_is_never_reached_settles_nothing() -> None:
    random = np.random.default_rng(1)
    rows = [{"whole": float(value)} for value in random.normal(size=400)]
    fusion = fit_fusion(rows, [TRUE, "changed"] * 200, names=("whole",), target_precision=0.99, **described())
    assert {fusion.verdict(support) for support in np.linspace(0, 1, 101)} == {"not_enough_evidence"}


@pytest.mark.parametrize("kinds", [(TRUE, TRUE), ("foreign", "changed")])
def test_claims_of_one_truth_are_refused(kinds: tuple[str, str]) -> None:
    with pytest.raises(ExhibitError, match="true and false"):
        fit_fusion([{"whole": 1.0}, {"whole": 2.0}], kinds, names=("whole",), **described())


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
