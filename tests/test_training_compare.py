"""The comparison on disk and on paper: the page's own numbers, texts escaped, Hangul drawn, nothing from a network."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from PIL import Image

from models.report_comparison import Comparison, compare_reports
from models.reports import Report, read_report, write_report
from tests.report_rows import make_report, make_row
from training.__main__ import main
from training.answering import Answered, make_thumbnail
from training.page import write_page
from training.plots import save_confusion
from training.report import About, build_report, save_report

LABELS = ("마약 대화", "<b>place</b> $x$", "other")
TRUTH = [LABELS[i % 3] for i in range(12)]


def make_side(wrong: set[int], name: str) -> tuple[Report, dict[str, bytes]]:
    rows = [make_row(i, one, LABELS[(i + 1) % 3] if i in wrong else one) for i, one in enumerate(TRUTH)]
    image = make_thumbnail(Image.new("RGB", (300, 200), (9, 99, 199)))
    return make_report(rows, LABELS, name), {row.sha256: image for row in rows}


@pytest.fixture
def sides(tmp_path: Path) -> list[Path]:
    for name, wrong in (("tuned", {0}), ("base & co", {0, 1, 2, 5})):
        write_report(make_side(wrong, name)[0], tmp_path / name, make_side(wrong, name)[1])
    return [tmp_path / "tuned", tmp_path / "base & co"]


def test_command_writes_what_the_page_computes(
    sides: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, sides), "--out", str(tmp_path / "out"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    saved = Comparison.model_validate_json((tmp_path / "out" / "comparison.json").read_text())
    assert saved == compare_reports([read_report(side) for side in sides])
    assert saved.model_dump(mode="json") == printed
    assert (saved.contrasts[0].wins, saved.contrasts[0].losses) == (3, 0)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Only tuned is right: 3, of which 3 here" in page
    assert "Only base &amp; co is right: never" in page
    assert page.count("data:image/jpeg;base64,") == 3
    assert "+0.250" in page
    for file in ("figures.png", "confusion-0.png", "confusion-1.png"):
        assert np.asarray(Image.open(tmp_path / "out" / file).convert("L")).std() > 5


def test_a_page_needs_no_network_and_runs_nothing(sides: list[Path], tmp_path: Path) -> None:
    assert main(["compare", *map(str, sides), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<b>place" not in page
    assert "&lt;b&gt;place&lt;/b&gt;" in page
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert not re.findall(r"url\(\"(?!data:)", page)


def test_every_letter_beyond_latin_is_shipped_with_the_page(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "마약 대화 내역", "<p>żółć</p>")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    found = re.search(r"data:font/ttf;base64,([^\"]+)", page)
    assert found is not None
    font = TTFont(io.BytesIO(base64.b64decode(found[1])))
    assert {ord(letter) for letter in "마약대화내역"} <= set(font.getBestCmap())
    assert len(font.getGlyphOrder()) < 30
    write_page(tmp_path / "latin.html", "Figures", "<p>żółć</p>")
    assert "font-face" not in (tmp_path / "latin.html").read_text(encoding="utf-8")


def test_hangul_labels_are_drawn_as_letters(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    report = make_side({0}, "m")[0]
    assert report.confusion is not None
    save_confusion(report.confusion, tmp_path / "confusion.png")
    # Matplotlib warns of every glyph that it replaces by an empty box.
    assert [str(one.message) for one in recwarn if "Glyph" in str(one.message)] == []


def test_reports_that_cannot_be_compared_exit_2(
    sides: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(sides[0]), "--out", str(tmp_path / "out")]) == 2
    assert main(["compare", str(sides[0]), str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert main(["compare", *map(str, sides), "--out", str(sides[0])]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: ") for line in said] == [True] * 3
    assert not (tmp_path / "out").exists()


def test_a_report_on_paper_lists_what_has_no_answer(tmp_path: Path) -> None:
    rows = [make_row(i, one, None if i == 4 else LABELS[i % 2]) for i, one in enumerate(TRUTH)]
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"step": 2, "eval_loss": 1.5}, {"epoch": 1.0}]
    answered = Answered(LABELS, tuple(rows), {})
    report = build_report(answered, _about(history), resamples=50)
    assert [point.eval_loss for point in report.loss or ()] == [None, None, 1.5]
    save_report(report, {}, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Without an answer: 1, counted as wrong" in page
    assert "set row 4" in page
    assert "generated by a program" in page
    assert "Loss while it was trained" in page
    assert read_report(tmp_path) == report


def _about(history: list[dict[str, float]]) -> About:
    data = make_side(set(), "m")[0].data
    return About("m", "m", False, "fine-tuned", data, None, None, "python -m training evaluate", True, history)
