"""Benchmark figures: bounds judged the right way round, contenders taking turns."""

from __future__ import annotations

import argparse
import json

import pytest

from benchmarks import report as reporting
from benchmarks.report import Figure, interleaved, report


@pytest.mark.parametrize(
    ("value", "bound", "better", "holds"),
    [(1.15, 1.15, "lower", True), (1.16, 1.15, "lower", False), (9.9, 10, "higher", False), (5, None, "lower", True)],
)
def test_a_bound_is_judged_in_its_direction(value, bound, better, holds):
    assert Figure("x", value, bound, better, "how").holds is holds


def test_contenders_take_turns_after_one_run_to_warm_up():
    order = []
    table = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2, repeats=2)
    assert order == ["a", "b"] * 5
    assert [sorted(times) for times in table] == [["a", "b"]] * 2
    assert all(0 <= seconds < 1 for times in table for seconds in times.values())


@pytest.mark.parametrize("as_json", [True, False])
def test_the_result_is_printed_and_saved(tmp_path, monkeypatch, capsys, as_json):
    monkeypatch.setattr(reporting, "RESULTS", tmp_path / "results")
    figures = [Figure("speed", 12.34567, 10, "higher", "theirs over ours"), Figure("cost", 2, 1.5, "lower", "ours")]
    report("toy", figures, argparse.Namespace(json=as_json, save=True))
    saved = json.loads((tmp_path / "results" / "toy.json").read_text())
    assert saved["machine"]["cores"] >= 1
    assert saved["figures"][0] == {
        "name": "speed",
        "value": 12.35,
        "bound": 10,
        "better": "higher",
        "holds": True,
        "how": "theirs over ours",
    }
    printed = capsys.readouterr().out
    if as_json:
        assert json.loads(printed) == saved
    else:
        assert "speed" in printed
        assert "<= 1.5" in printed
        assert "NO" in printed.splitlines()[2]


def test_a_part_measured_anew_leaves_the_saved_figures_of_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, "RESULTS", tmp_path)
    options = argparse.Namespace(json=False, save=True)

    def measure(partial, **values):
        report(
            "toy", [Figure(name, value, None, "lower", "") for name, value in values.items()], options, partial=partial
        )
        saved = json.loads((tmp_path / "toy.json").read_text())["figures"]
        return [(figure["name"], figure["value"]) for figure in saved]

    assert measure(True, a=1, b=2, c=3) == [("a", 1), ("b", 2), ("c", 3)]
    assert measure(True, b=4, d=5) == [("a", 1), ("b", 4), ("d", 5), ("c", 3)]
    assert measure(True, e=6)[-1] == ("e", 6)
    assert measure(False, a=7) == [("a", 7)]
