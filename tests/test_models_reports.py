"""What is written is read back, and a report that contradicts itself is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.reports import NO_ANSWER, Report, ReportError, parse_report, read_pictures, read_report, write_report

ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64


def make_content() -> dict[str, Any]:
    """A report of three pictures: one right, one wrong, one that could not be read."""
    estimate = {"value": 1 / 3, "low": 0.0, "high": 1.0}
    figures = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}

    def row(digest: str, truth: str, predicted: str, **more: object) -> dict[str, Any]:
        return {"sha256": digest, "source": "set row", "truth": truth, "predicted": predicted, "right": False} | more

    return {
        "schema_version": 1,
        "kind": "labels",
        "name": "tiny",
        "model": "tiny",
        "base": False,
        "status": "fine-tuned",
        "data": [{"file": "set.parquet", "sha256": ONE, "rows": 3}],
        "question": None,
        "style": None,
        "made_at": "2026-01-02T03:04:05+00:00",
        "command": "python -m training evaluate",
        "versions": {"torch": "2"},
        "generated": True,
        "labels": ["진짜", "가짜"],
        "figures": {"accuracy": estimate, "roc_auc": None},
        "per_class": {"진짜": figures, "가짜": figures | {"support": 1}},
        "confusion": {"labels": ["진짜", "가짜", NO_ANSWER], "counts": [[1, 1, 0], [0, 0, 1], [0, 0, 0]]},
        "rows": [
            row(ONE, "진짜", "진짜", right=True, probabilities={"진짜": 0.75, "가짜": 0.25}),
            row(TWO, "진짜", "가짜", probabilities={"진짜": 0.25, "가짜": 0.75}),
            row(THREE, "가짜", NO_ANSWER, problem="unreadable: not a picture"),
        ],
    }


def parse(content: dict[str, Any]) -> Report:
    return parse_report(json.dumps(content))


def test_a_report_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    report = parse(make_content())
    write_report(report, tmp_path / "out", {ONE: b"jpeg one", TWO: b"jpeg two"})
    assert read_report(tmp_path / "out") == read_report(tmp_path / "out" / "report.json") == report
    assert read_pictures(tmp_path / "out") == {ONE: b"jpeg one", TWO: b"jpeg two"}
    assert read_pictures(tmp_path) == {}
    text = (tmp_path / "out" / "report.json").read_text(encoding="utf-8")
    assert "진짜" in text
    assert len([line for line in text.splitlines() if '"sha256"' in line and '"truth"' in line]) == 3


def _break(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    content = make_content()
    change(content)
    return content


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(schema_version=2), "schema_version"),
        (lambda c: c.update(surprise=1), "surprise"),
        (lambda c: c.pop("question"), "question"),
        (lambda c: c["figures"]["accuracy"].update(value="0.3"), "figures.accuracy"),
        (lambda c: c["figures"]["accuracy"].update(value=0.9), "accuracy is not that of the rows"),
        (lambda c: c["rows"][0].update(right=False), "row 0: right contradicts"),
        (lambda c: c["rows"][0].update(sha256="../etc"), "rows.0.sha256"),
        (lambda c: c["rows"][1].update(truth="other"), "row 1: the truth 'other' is no label"),
        (lambda c: c["rows"][2].update(problem=None), "row 2: a problem must be stated"),
        (lambda c: c["rows"][2].update(predicted="진짜", problem=None), "confusion matrix is not that of the rows"),
        (lambda c: c["rows"][0]["probabilities"].update(진짜=0.1), "row 0: the probabilities do not sum"),
        (lambda c: c["rows"].clear(), "rows"),
        (lambda c: c["labels"].append(NO_ANSWER), "labels must be"),
        (lambda c: c["per_class"].pop("진짜"), "per_class"),
        (lambda c: c.update(made_at="2026-01-02T03:04:05"), "made_at"),
    ],
)
def test_a_report_that_contradicts_itself_is_refused(change: Callable[[dict[str, Any]], object], said: str) -> None:
    with pytest.raises(ReportError, match="no report that Exhibit can read") as raised:
        parse(_break(change))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"holds no report\.json"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text('{"accuracy": NaN}')
    with pytest.raises(ReportError, match="no report that Exhibit can read"):
        read_report(tmp_path)
    (tmp_path / "pictures.parquet").write_text("no parquet")
    with pytest.raises(ReportError, match="cannot be read"):
        read_pictures(tmp_path)


def test_a_report_of_answers_needs_questions_and_scores() -> None:
    scores = {"exact": False, "relaxed": True, "rouge1": 0.5, "rouge2": 0.0, "rougeL": 0.5, "bleu": [0] * 10}
    row = {"sha256": ONE, "source": "s", "question": "How many?", "truth": "12", "answer": "12.1", "right": True}
    content = make_content() | {
        "kind": "answers",
        "labels": [],
        "per_class": {},
        "confusion": None,
        "figures": {"relaxed_accuracy": {"value": 1.0, "low": 1.0, "high": 1.0}},
        "rows": [row | {"scores": scores}],
    }
    report = parse(content)
    assert report.rows[0].key == (ONE, "How many?")
    for change, said in (({"scores": None}, "scores are missing"), ({"answer": None}, "an answer is missing")):
        with pytest.raises(ReportError, match=said):
            parse(content | {"rows": [row | {"scores": scores} | change]})
