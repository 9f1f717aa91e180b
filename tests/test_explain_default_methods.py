"""What is shown first is what was measured to be best, and nothing is claimed of what was not measured."""

from __future__ import annotations

import json
from pathlib import Path

from explain.catalog import CATALOG
from explain.default_methods import DEFAULTS, UNMEASURED, default_method

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "localisation.json"


def test_the_methods_shown_first_are_the_winners_that_were_measured():
    winners = json.loads(RESULTS.read_text(encoding="utf-8"))["winners"]
    told = {kind: (best.method, round(best.pointing, 2), round(best.chance, 2)) for kind, best in DEFAULTS.items()}
    measured = {
        kind: (best["method"], round(best["pointing"], 2), round(best["chance"], 2)) for kind, best in winners.items()
    }
    assert told == measured, "write the winners of benchmarks/results/localisation.json into explain/default_methods.py"


def test_every_method_shown_first_looks_at_the_label():
    assert all(CATALOG[best.method].class_aware for best in DEFAULTS.values())
    assert default_method("no such kind") == UNMEASURED and CATALOG[UNMEASURED].class_aware
