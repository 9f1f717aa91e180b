"""Generated charts: answers recomputed from the figures by another way, boxes checked against the pixels."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from random import Random

import numpy as np
import pyarrow.parquet as pq
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from training.__main__ import main
from training.chart_data import CHART_KINDS, ChartData, read_topics
from training.chart_drawing import draw_chart
from training.chart_questions import KIND, RISE, ChartQuestion
from training.chart_style import draw_style
from training.charts import Chart, make_chart, picture_seed, write_charts
from training.errors import DataError

QUESTION_KINDS = {"value", "extremum", "difference", "count", "trend", "yes-no", "title"}


@pytest.fixture(scope="module")
def charts() -> list[Chart]:
    return [make_chart(picture_seed(11, index), questions=10) for index in range(40)]


def _pixels(chart: Chart) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(chart.drawing.png)).convert("RGB")).astype(int)


def _named(data: ChartData) -> dict[str, Decimal]:
    """How a question calls each mark -> its value."""
    return {
        data.call.format(name=name, group=group): value
        for group, row in zip(data.series, data.values, strict=True)
        for name, value in zip(data.names, row, strict=True)
    }


def _found(text: str, names: list[str]) -> list[str]:
    """The names in a text, in their order there."""
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.findall(rf"(?<!\w)(?:{pattern})(?!\w)", text)


def _row_asked_about(data: ChartData, text: str) -> dict[str, Decimal]:
    series = _found(text, list(data.series)) if data.series != ("",) else []
    row = data.values[data.series.index(series[-1]) if series else 0]
    return dict(zip(data.names, row, strict=True))


def _answer_by_reading(data: ChartData, question: ChartQuestion) -> str | Decimal:
    """The answer from the words of the question and the figures alone."""
    text, named = question.text, _named(data)
    mentioned = _found(text, list(named))
    row = _row_asked_about(data, text)
    if question.kind == "title":
        return data.title
    if question.kind == "value":
        return named[mentioned[0]]
    if question.kind == "difference":
        return abs(named[mentioned[0]] - named[mentioned[1]])
    if question.kind == "extremum":
        extreme = (max if re.search("highest|largest", text) else min)(row, key=row.__getitem__)
        return row[extreme] if text.startswith("What") else extreme
    if question.kind == "trend" and "from its beginning to its end" in text:
        risen = {values[-1] - values[0] for values in data.values}
        assert all(gain > 0 for gain in risen) or all(gain < 0 for gain in risen)
        return "yes" if max(risen) > 0 else "no"
    if question.kind == "trend":
        first, last = _found(text, list(data.names))
        return "rose" if row[last] > row[first] else "fell"
    threshold = re.search(r"(above|greater than|below|less than) (\d+)", text)
    if question.kind == "count" and threshold:
        sign = 1 if threshold[1] in ("above", "greater than") else -1
        return Decimal(sum(sign * value > sign * Decimal(threshold[2]) for value in row.values()))
    if question.kind == "count":
        if "lines" in text:
            return Decimal(len(data.series))
        return Decimal(len(data.names) * len(data.series) if "bars" in text else len(data.names))
    one = named[mentioned[0]]
    other = Decimal(threshold[2]) if threshold else named[mentioned[1]]
    return "yes" if (one < other if "smaller" in text else one > other) else "no"


def test_every_kind_of_chart_and_of_question_occurs(charts: list[Chart]) -> None:
    assert {chart.data.kind for chart in charts} == set(CHART_KINDS)
    assert {question.kind for chart in charts for question in chart.questions} == QUESTION_KINDS


def test_answers_equal_those_read_from_question_and_figures(charts: list[Chart]) -> None:
    for chart in charts:
        for question in chart.questions:
            expected = _answer_by_reading(chart.data, question)
            given = Decimal(question.answer) if isinstance(expected, Decimal) else question.answer
            assert given == expected, (question.text, chart.data)


def test_no_name_of_a_topic_hides_in_another() -> None:
    for topic in read_topics():
        for name in topic.names:
            assert _found(name, list(topic.names)) == [name]


def test_boxes_of_bars_are_filled_with_the_bar_to_their_edges(charts: list[Chart]) -> None:
    checked = 0
    for chart in charts:
        if "bar" not in chart.data.kind:
            continue
        pixels = _pixels(chart)
        for mark, box in chart.drawing.boxes_xyxy.items():
            colour = np.array(to_rgb(chart.drawing.colours[mark])) * 255
            near = np.abs(pixels - colour).max(axis=-1) <= 3
            x0, y0, x1, y1 = (round(side) for side in box)
            inner = near[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2]
            if min(inner.shape) < 8:
                continue
            # A figure written inside covers some of a bar, never its rim.
            assert inner.mean() > 0.5
            rim = np.concatenate([inner[0], inner[-1], inner[:, 0], inner[:, -1]])
            assert rim.mean() > 0.95, (chart.seed, mark)
            # Two pixels beyond the bar's far end it is over.
            beyond = near[max(y0 - 3, 0), x0 + 2 : x1 - 2] if _stands(chart) else near[y0 + 2 : y1 - 2, x1 + 2]
            assert beyond.mean() < 0.5, (chart.seed, mark)
            checked += 1
    assert checked > 60


def _stands(chart: Chart) -> bool:
    """Whether the bars stand: then they share their lower edge."""
    bottoms = {round(box[3]) for box in chart.drawing.boxes_xyxy.values()}
    return len(bottoms) == 1


@pytest.mark.parametrize(("kind", "share"), [("line", 0.25), ("pie", 0.15)])
def test_boxes_of_points_and_slices_hold_their_colour(charts: list[Chart], kind: str, share: float) -> None:
    of_kind = [chart for chart in charts if chart.data.kind == kind]
    assert of_kind
    for chart in of_kind:
        pixels = _pixels(chart)
        for mark, box in chart.drawing.boxes_xyxy.items():
            x0, y0, x1, y1 = (round(side) for side in box)
            near = np.abs(pixels[y0:y1, x0:x1] - np.array(to_rgb(chart.drawing.colours[mark])) * 255).max(axis=-1) <= 40
            assert near.mean() > share, (chart.seed, mark)


def test_a_slice_of_a_full_pie_ends_at_its_box(charts: list[Chart]) -> None:
    chart = next(chart for chart in charts if chart.data.kind == "pie")
    boxes = np.array(list(chart.drawing.boxes_xyxy.values()))
    width = boxes[:, 2].max() - boxes[:, 0].min()
    height = boxes[:, 3].max() - boxes[:, 1].min()
    assert width == pytest.approx(height, abs=0.5)  # together the slices are a circle


def test_answer_box_surrounds_all_marks_that_answer(charts: list[Chart]) -> None:
    for chart in charts:
        width, height = chart.drawing.size_px
        for question in chart.questions:
            x0, y0, x1, y1 = chart.answer_box(question)
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height
            for mark in question.marks:
                a0, b0, a1, b1 = chart.drawing.boxes_xyxy[mark]
                assert x0 <= a0
                assert y0 <= b0
                assert a1 <= x1
                assert b1 <= y1
            if question.kind == "title":
                assert (x0, y0, x1, y1) == chart.drawing.title_xyxy


def test_figures_not_written_stand_on_or_half_way_between_gridlines(charts: list[Chart]) -> None:
    bare = [chart.data for chart in charts if not chart.data.annotated and chart.data.kind != "pie"]
    assert bare
    for data in bare:
        assert all(value % (data.tick / 2) == 0 for row in data.values for value in row)


def test_shares_of_a_pie_are_distinct_and_sum_to_a_hundred(charts: list[Chart]) -> None:
    for chart in charts:
        if chart.data.kind == "pie":
            assert sum(chart.data.values[0]) == 100
            assert len(set(chart.data.values[0])) == len(chart.data.names)


@pytest.mark.parametrize(
    ("names", "width", "drawn"),
    [
        (("Railway Museum", "Science Hall", "Harbour Museum"), 330, False),  # the names run into each other
        (tuple("abcdefgh"), 300, False),  # the figures are wider than their bars
        (tuple("abcdefgh"), 900, True),
    ],
)
def test_looks_with_colliding_texts_are_refused(names: tuple[str, ...], width: int, drawn: bool) -> None:
    row = tuple(Decimal("20.5") + i for i in range(len(names)))
    data = ChartData("bar", "", "S", "percent", ("a", "b"), names, ("",), "{name}", (row,), True, Decimal(10))
    style = replace(
        draw_style(Random(0), data),
        size_px=(width, 400), text_px=15, turned=0, horizontal=False, labels="inside", unit_at="none", source="",
    )  # fmt: skip
    assert (draw_chart(data, style) is not None) is drawn


def test_workers_do_not_change_the_file(tmp_path: Path) -> None:
    write_charts(tmp_path / "one", 6, seed=3, questions=3)
    write_charts(tmp_path / "two", 6, seed=3, questions=3, workers=2)
    one, two = (tmp_path / name / "charts.parquet" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    write_charts(tmp_path / "other", 6, seed=4, questions=3)
    mine, others = (
        set(pq.read_table(tmp_path / name / "charts.parquet")["seed"].to_pylist()) for name in ("one", "other")
    )
    assert not mine & others


def test_written_rows_open_in_the_datasets_library(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    summary = write_charts(tmp_path / "set", 3, seed=5)
    loaded = datasets.Dataset.from_parquet(str(tmp_path / "set" / "charts.parquet"), cache_dir=str(tmp_path / "cache"))
    assert loaded.column_names == [
        "image", "question", "answer", "question_kind", "answer_box_xyxy", "chart_kind", "seed",
    ]  # fmt: skip
    assert len(loaded) == summary["questions"] == sum(summary["question_kinds"].values())
    again = make_chart(loaded[0]["seed"])
    assert np.array_equal(np.asarray(loaded[0]["image"].convert("RGB")), _pixels(again))
    assert loaded[0]["answer_box_xyxy"] == pytest.approx(again.answer_box(again.questions[0]), abs=0.01)


def test_pictures_shared_by_questions_are_stored_once(tmp_path: Path) -> None:
    write_charts(tmp_path, 4, seed=6, questions=6)
    images = {row["bytes"] for row in pq.read_table(tmp_path / "charts.parquet")["image"].to_pylist()}
    assert len(images) == 4
    assert (tmp_path / "charts.parquet").stat().st_size < 1.5 * sum(map(len, images))


def test_command_writes_and_then_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["charts", "--out", str(tmp_path / "set"), "--count", "2", "--seed", "1", "--json"]
    assert main(command) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((tmp_path / "set" / "charts.json").read_text())
    assert summary["pictures"] == sum(summary["chart_kinds"].values()) == 2
    assert main(command) == 2
    assert "holds charts already" in capsys.readouterr().err


def test_only_what_was_named_is_asked_and_charts_it_does_not_fit_are_left_out(tmp_path: Path) -> None:
    summary = write_charts(tmp_path / "set", 24, seed=5, questions=3, ask=["rise"])
    rows = pq.read_table(tmp_path / "set" / "charts.parquet").to_pylist()
    assert 0 < summary["pictures"] < 24
    assert summary["asked"] == ["rise"]
    assert len(rows) == summary["pictures"]
    assert {(row["chart_kind"], row["question"]) for row in rows} == {("line", RISE)}
    shown = make_chart(picture_seed(5, 0), questions=2, ask=["shown"])
    assert all(question.text.startswith("How many") for question in shown.questions)
    assert {int(question.answer) for question in shown.questions} <= {
        *(len(shown.data.names), len(shown.data.series), len(shown.data.marks))
    }
    (kind,) = make_chart(picture_seed(5, 0), questions=2, ask=["kind"]).questions
    assert (kind.text, kind.answer, kind.marks) == (KIND, shown.data.kind, shown.data.marks)
    with pytest.raises(DataError, match="choose among value, extremum"):
        write_charts(tmp_path / "other", 1, seed=5, ask=["colour"])


def test_unfinished_charts_are_made_again(tmp_path: Path) -> None:
    (tmp_path / "charts.parquet").write_bytes(b"without charts.json it is not finished")
    write_charts(tmp_path, 1, seed=2, questions=1)
    assert pq.read_table(tmp_path / "charts.parquet").num_rows == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["charts.json", "charts.parquet"]


def test_no_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 1"):
        write_charts(tmp_path, 0, seed=0)
