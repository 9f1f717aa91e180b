"""The localisation benchmark: what is not here is a line of its own, chance is where it belongs, winners are earned."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks import localisation_sheet
from benchmarks.localisation import draw_table, make_figures
from benchmarks.localisation_measure import (
    METHODS,
    Row,
    find_winners,
    measure,
    measure_sets,
    read_results,
    shrink,
    summarise,
)
from benchmarks.localisation_sets import SETS, Case, GroundTruth, _wrong_answer, boxed, chart_cases, scene_cases
from benchmarks.report import RESULTS
from explain.targets import default_target
from models.errors import ExhibitError
from models.loading import ModelLoader
from models.registry import load_zoo


@pytest.fixture(scope="module")
def loader(tiny_zoo_file) -> ModelLoader:
    return ModelLoader(load_zoo(tiny_zoo_file), offline=True, device="cpu")


def draw_cases(live, label: str | None = None, count: int = 12):
    random = np.random.default_rng(0)
    for number in range(count):
        image = Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        yield Case(image, boxed(image.size, [(8, 8, 24, 24)]), live, default_target(live, "fake"), label, number)


def test_every_method_stands_beside_random_maps_and_the_blob(loader):
    live = loader.load("tiny-resnet")
    measured = measure(draw_cases(live), 10, only_right=True)
    rows = summarise("toy", live, measured)
    assert [row.method for row in rows] == list(METHODS)
    assert (measured.asked, measured.right, len(measured.centre)) == (10, 10, 10)
    for row in rows:
        assert row.value("energy", "lead") == pytest.approx(row.value("energy") - row.value("energy", "random"))
        assert 0.02 < row.value("energy", "random") < 0.3  # the region is a twelfth of the picture
        assert row.value("energy", "own", "low") <= row.value("energy") <= row.value("energy", "own", "high")
    assert rows[0].value("energy", "centre") == rows[1].value("energy", "centre")
    assert "toy, tiny-resnet: right on 10 of 10" in draw_table(rows)
    assert [figure.name for figure in make_figures(rows)] == ["pointing_toy_tiny_resnet"]


def test_wrong_answers_are_left_out_where_the_model_was_taught(loader):
    live = loader.load("tiny-resnet")
    said = [one.label for one in live.predict([case.image for case in draw_cases(live)])]
    label = max(set(said), key=said.count)
    right = said.count(label)
    taught, untaught = (measure(draw_cases(live, label), 12, only_right=only) for only in (True, False))
    assert (taught.asked, taught.right, len(taught.pictures)) == (12, right, right)
    assert (untaught.right, len(untaught.pictures)) == (right, 12)
    with pytest.raises(ExhibitError, match="right on 0 of 3: too few"):
        summarise("toy", live, measure(draw_cases(live, "neither", 3), 3, only_right=True))


def test_what_is_not_here_is_said_and_the_rest_is_measured(loader):
    truth = GroundTruth("toy", "a box", ("not-trained-yet", "tiny-resnet"), draw_cases)
    rows, missing = measure_sets(loader, [truth], 10)
    assert {row.model for row in rows} == {"tiny-resnet"}
    assert [(one["set"], one["model"]) for one in missing] == [("toy", "not-trained-yet")]
    assert "no model is called" in missing[0]["reason"]


def test_a_stand_in_is_not_measured_in_the_place_of_a_model(tiny_zoo_file, tmp_path):
    file = tmp_path / "zoo.yaml"
    file.write_text(
        tiny_zoo_file.read_text()
        + "- {id: absent, name: A, task: deepfake, kind: classifier, source: ./none, fallback: bundled-resnet, "
        "licence: MIT, size_mb: 1, memory_mb: 1}\n"
    )
    loader = ModelLoader(load_zoo(file), offline=True, device="cpu")
    rows, missing = measure_sets(loader, [GroundTruth("toy", "a box", ("absent",), draw_cases)], 10)
    assert not rows and len(missing) == 1


def make_row(method: str, score: float, low: float, *, name: str = "one", kind: str = "classifier") -> Row:
    one = {"value": score, "low": low, "high": 1.0}
    figures = {
        "score": {"lead": one},
        "pointing": {"own": {**one, "value": score + 0.25}, "random": {**one, "value": 0.25}},
    }
    return Row(name, "m", kind, method, 20, 20, 20, 0, figures)


def test_saved_lines_are_read_back_as_they_were(tmp_path):
    file = RESULTS / "localisation.json"
    rows, missing = read_results(file)
    assert missing == json.loads(file.read_text())["missing"]
    assert [row.to_json() for row in rows] == json.loads(file.read_text())["rows"]
    assert len(make_figures(rows)) == len({(row.set, row.model) for row in rows})
    assert read_results(tmp_path / "none.json") == ([], [])


def test_the_winner_looks_at_the_label_and_is_ahead_where_a_method_is_ahead_at_all():
    rows = [
        *(make_row("gradcam", 0.2, 0.1), make_row("layercam", 0.4, 0.3), make_row("eigencam", 0.9, 0.8)),
        *(make_row("gradcam", 0.4, 0.3, name="two"), make_row("layercam", 0.3, 0.2, name="two")),
        *(make_row("gradcam", 0.9, -0.1, name="luck"), make_row("layercam", 0.0, -0.2, name="luck")),
        make_row("gradcam", 0.1, -0.1, kind="clip"),
    ]
    found = find_winners(rows)
    assert set(found) == {"classifier"}  # of clip, nothing is known
    assert found["classifier"] == {
        "method": "layercam",
        "scores": {"gradcam": 0.3, "layercam": 0.35},
        "pointing": 0.6,
        "chance": 0.25,
        "sets": ["one/m", "two/m"],
    }


def test_a_region_thinner_than_a_working_pixel_is_kept():
    truth = np.zeros((512, 256), bool)
    truth[100, 40:200] = True
    case = Case(Image.new("RGB", (256, 512)), truth, None, None, None, 0)  # type: ignore[arg-type]
    region, tolerance_px = shrink(case)
    assert region.shape == (128, 64) and tolerance_px == 15 / 4
    assert region[25, 12:48].any() and not region[30].any()


def test_generated_pictures_hold_what_decides(loader, page_zoo_file):
    asked = ("unrelated", "drug chat", "drug deal place", "drug substance")
    case = next(scene_cases(SimpleNamespace(labels=asked, spec=loader.load("tiny-resnet").spec)))
    assert case.label == "drug chat" and case.target.name == "logit:drug chat"
    assert case.truth.shape == case.image.size[::-1] and case.truth.any()
    with pytest.raises(TypeError, match="answers no questions"):
        next(chart_cases(loader.load("tiny-resnet")))
    talking = ModelLoader(load_zoo(page_zoo_file), offline=True, device="cpu").load("tiny-paligemma")
    charted = measure(chart_cases(talking), 3, only_right=False)
    assert (charted.asked, len(charted.centre)) == (3, 3)
    assert any(charted.own["layercam"])
    assert {truth.name for truth in SETS} == {"tampered", "inpainted", "photographs", "scenes", "charts"}


def test_the_sheet_shows_no_photograph_of_the_data(loader, tmp_path, monkeypatch):
    sets = [
        GroundTruth("toy", "a box", ("tiny-resnet", "not-trained-yet"), draw_cases),
        GroundTruth("secret", "a face", ("tiny-resnet",), lambda _live: pytest.fail("read"), Path("faces.parquet")),
    ]
    monkeypatch.setattr(localisation_sheet, "SETS", sets)
    localisation_sheet.draw_sheet(loader, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 8 * localisation_sheet.CELL_PX
        rows = localisation_sheet.DRAWN * (localisation_sheet.CELL_PX + localisation_sheet.TEXT_PX)
        assert sheet.height == rows + localisation_sheet.TEXT_PX


def test_pictures_of_packages_stand_for_those_that_may_not_be_shown(loader):
    live = SimpleNamespace(labels=("tampered", "authentic"), spec=loader.load("tiny-resnet").spec)
    cases = list(localisation_sheet.tampered_package_cases(live))
    assert [case.note for case in cases] == ["re-rendered", "replaced", "recompressed"]
    assert all(case.truth.shape == (256, 256) and 0.05 < case.truth.mean() < 0.26 for case in cases)
    with pytest.raises(TypeError, match="compares no texts"):
        next(localisation_sheet.package_cases(live))


@pytest.mark.parametrize(
    ("answer", "others", "names", "wrong"),
    [
        ("yes", (), (), "no"),
        ("fell", (), (), "rose"),
        ("Oslo", (), ("Oslo", "Riga"), "Riga"),
        ("4.5", ("4.5", "7", "yes"), (), "7"),
        ("4.5", ("4.5", "no"), (), None),
        ("Sales by month", ("3",), ("Oslo",), None),
    ],
)
def test_a_wrong_answer_is_of_the_same_kind(answer, others, names, wrong):
    assert _wrong_answer(answer, others, names) == wrong
