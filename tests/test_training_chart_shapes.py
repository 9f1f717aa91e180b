"""Shapes of charts: labels worked out by hand, masks that lie on the marks, files that are the same for any workers."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from training.__main__ import main
from training.chart_data import CHART_KINDS, ChartData, ChartKind
from training.chart_shapes import SHAPES, draw_mask, shape_of, write_shapes
from training.charts import Chart, make_chart
from training.errors import DataError
from training.labelled import read_labelled
from training.masks import read_masks

RECIPE = Path("training/recipes/charts-vit.yaml")


def data_of(kind: ChartKind, *rows: tuple[int, ...]) -> ChartData:
    names = tuple(str(at) for at in range(len(rows[0])))
    series = tuple(str(at) for at in range(len(rows)))
    values = tuple(tuple(Decimal(value) for value in row) for row in rows)
    return ChartData(kind, "", "", "", ("", ""), names, series, "{name}", values, False, Decimal(1))


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        (data_of("bar", (3, 1, 2)), "bar 3"),
        (data_of("pie", (30, 20, 40, 10)), "pie 4"),
        (data_of("grouped bar", (1, 2), (3, 4), (5, 6)), "grouped bar 2 x 3"),
        (data_of("line", (1, 5, 2)), "line 1 rising"),
        (data_of("line", (3, 5, 2), (9, 9, 8)), "line 2 falling"),
        (data_of("line", (1, 5, 2), (9, 9, 8)), "line 2 mixed"),
        (data_of("line", (4, 5, 4)), "line 1 mixed"),
    ],
)
def test_a_shape_is_what_shows_without_reading(data: ChartData, shape: str) -> None:
    assert shape_of(data) == shape
    assert shape in SHAPES


def test_every_drawn_chart_has_a_shape_of_the_recipe() -> None:
    assert tuple(yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["labels"]) == SHAPES
    kinds = set()
    for seed in range(40):
        chart = make_chart(seed)
        kinds.add(chart.data.kind)
        assert shape_of(chart.data) in SHAPES
    assert kinds == set(CHART_KINDS)


@pytest.fixture(scope="module")
def charts() -> dict[str, Chart]:
    found: dict[str, Chart] = {}
    for seed in range(40):
        chart = make_chart(seed)
        found.setdefault(chart.data.kind, chart)
    return found


@pytest.mark.parametrize("kind", CHART_KINDS)
def test_a_mask_lies_on_the_marks_and_nowhere_else(charts: dict[str, Chart], kind: str) -> None:
    chart = charts[kind]
    mask = np.asarray(draw_mask(chart)) > 0
    assert mask.shape[::-1] == chart.drawing.size_px
    boxes = list(chart.drawing.boxes_xyxy.values())
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    around = np.zeros_like(mask)
    around[int(min(tops)) - 4 : int(max(bottoms)) + 5, int(min(lefts)) - 4 : int(max(rights)) + 5] = True
    assert not mask[~around].any()
    if kind != "pie":  # a ring may have a hole in the middle of its box
        middles = [(int((x0 + x1) / 2), int((y0 + y1) / 2)) for x0, y0, x1, y1 in boxes]
        assert all(mask[min(y, mask.shape[0] - 1), min(x, mask.shape[1] - 1)] for x, y in middles)


def test_the_file_is_what_finetune_reads_whatever_the_number_of_workers(tmp_path: Path) -> None:
    counted = write_shapes(tmp_path / "one", 6, 7)
    write_shapes(tmp_path / "two", 6, 7, workers=2)
    one, two = tmp_path / "one" / "shapes.parquet", tmp_path / "two" / "shapes.parquet"
    assert pq.read_table(one).equals(pq.read_table(two))
    assert sum(counted["shapes"].values()) == 6
    labelled = read_labelled(one)
    assert labelled.names == SHAPES
    assert len(labelled) == 6
    masks = read_masks(one, range(6), 32)
    assert masks.shape == (6, 1, 32, 32)
    assert all(mask.max() > 0 for mask in masks)


def test_a_bad_number_or_a_full_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="at least 1"):
        write_shapes(tmp_path, 0, 1)
    command = ["charts", "--shapes", "--out", str(tmp_path / "a"), "--count", "2"]
    assert main(command) == 0
    assert "2 charts of 31 shapes" in capsys.readouterr().out
    assert main([*command, "--ask", "rise"]) != 0
    assert "asks nothing" in capsys.readouterr().err
    assert main(command) != 0
    assert "holds shapes already" in capsys.readouterr().err
