"""How far to believe the maps, on the page: measured after they are shown, model by model, ended when asked."""

import json
from base64 import b64decode
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from PIL import Image

from explain.faithfulness_schema import FaithfulnessSettings
from models.imaging import read_image
from models.schema import LoadState
from ui import faithfulness, results
from ui.faithfulness import find_faithfulness, measure_steps, unmeasured_models
from ui.faithfulness_charts import draw_curves
from ui.faithfulness_listeners import Trusting
from ui.faithfulness_markup import cell_marks, render_mark, render_trust
from ui.pictures import View, find_map
from ui.services import Services
from ui.text import LANGUAGES

QUICK = FaithfulnessSettings(steps=3, random=4, badge_steps=2, average_drop=False)
VIEW = View("tiny-resnet", "gradcam")


@pytest.fixture
def services(tiny_loader, tmp_path, monkeypatch) -> Services:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    monkeypatch.setattr("ui.services.REPORT_EVERY_S", 0.01)
    measured = faithfulness.measure_faithfulness
    monkeypatch.setattr(
        faithfulness, "measure_faithfulness", lambda ex, ld, mt, how, told: measured(ex, ld, mt, how or QUICK, told)
    )
    return Services(zoo=tiny_loader.zoo, loader=tiny_loader, examples=())


@pytest.fixture
def examined(services, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)
    settings = services.settings("deepfake", ("tiny-resnet", "tiny-vit"), ("gradcam", "eigencam"))
    *_, last = services.examine(read_image(path), settings)
    return last


def test_models_are_measured_one_after_the_other_in_the_order_of_the_maps(services, examined):
    steps = list(measure_steps(services, examined, ("tiny-vit", "tiny-resnet"), Event()))
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[-1].done == 1
    done = steps[-1].examination
    assert [(o.model_id, o.method) for o in done.faithfulness] == [(h.model_id, h.method) for h in examined.heatmaps]
    assert done.heatmaps == examined.heatmaps
    assert unmeasured_models(done, small=False) == ()


def test_only_bundled_models_are_measured_unasked(services, examined):
    assert unmeasured_models(examined, small=False) == ("tiny-resnet", "tiny-vit")
    assert unmeasured_models(examined, small=True) == ()
    behind = replace(examined.predictions[1].status, state=LoadState.BUNDLED)
    stand_in = replace(examined.predictions[1], status=behind)
    fallen_back = replace(examined, predictions=(examined.predictions[0], stand_in))
    assert unmeasured_models(fallen_back, small=True) == ("tiny-vit",)


def test_measuring_ends_when_asked_and_keeps_what_was_ready(services, examined):
    stopping = Event()
    steps = measure_steps(services, examined, ("tiny-resnet", "tiny-vit"), stopping)
    kept = next(step for step in steps if step.examination.faithfulness)
    stopping.set()
    assert list(steps) == []
    assert {one.model_id for one in kept.examination.faithfulness} == {"tiny-resnet"}


def test_page_shows_badges_curves_and_progress(services, examined):
    trusting, result = Trusting(services), results.make_result(examined)
    before = trusting.show("en", result, VIEW)
    assert before["curves"]["visible"] is False
    assert before["measure"]["visible"] is True
    assert "Not measured yet" in before["trust"]["value"]
    measuring = trusting.begin("en", None)["measuring"]["value"]
    # With nothing to measure, something is yielded all the same: Gradio empties what an empty generator may change.
    assert list(trusting.measure("en", None, result, VIEW, small=False)) == [{}]
    steps = [step for step in trusting.measure("en", measuring, result, VIEW, small=False) if step]
    assert "Measuring the maps of Tiny resnet" in steps[0]["measured"]["value"]
    assert "Maps measured: 4" in steps[-1]["measured"]["value"]
    grids = [step["grid"]["value"] for step in steps if "grid" in step]
    assert [grid.count('class="mark"') for grid in grids] == [2, 4]
    last = next(step["result"]["value"] for step in reversed(steps) if "result" in step)
    after = trusting.show("en", last, VIEW)
    assert after["measure"]["visible"] is False
    assert "random maps" in after["badge"]["value"]
    traces = json.loads(after["curves"]["value"].plot)["data"]
    assert [trace.get("name") for trace in traces if trace.get("name")].count("this map") == 2


def test_a_new_examination_ends_the_measuring_of_the_former(services, examined):
    trusting, result = Trusting(services), results.make_result(examined)
    measuring = trusting.begin("en", None)["measuring"]["value"]
    steps = trusting.measure("en", measuring, result, VIEW, small=False)
    assert next(steps) == {}
    next(steps)
    assert trusting.renew("en", measuring)["measuring"]["value"] is not measuring
    assert [step for step in steps if "result" in step] == []


def test_badges_say_good_and_bad_in_words_in_every_language(services, examined):
    measured = faithfulness.measure_all(services, examined, ("tiny-resnet",))
    found = find_faithfulness(measured, "tiny-resnet", "gradcam")
    good = replace(found, badge=replace(found.badge, better_than=4, gain=1.0, centre_gain=0.0))
    bad = replace(found, badge=replace(found.badge, better_than=1, gain=0.0, centre_gain=0.5, class_blind=True))
    assert "✓ Better than 4 of 4 random maps" in render_mark("en", good)
    assert "do not rely on this map" in render_mark("en", bad)
    assert "beats 1 of 4" in render_mark("en", bad)
    assert "Class-blind" in render_mark("en", bad)
    assert "Class-blind" not in render_mark("en", good)
    assert render_mark("en", None) == ""
    shown = find_map(examined, "tiny-resnet", "gradcam")
    said = [render_trust("en", replace(measured, faithfulness=(one,)), shown, small=True) for one in (good, bad)]
    assert "also beats a blob" in said[0]
    assert "look at the middle" in said[1]
    for language in LANGUAGES:
        marks = cell_marks(language, replace(measured, faithfulness=(good,)))
        assert marks["tiny-resnet|gradcam"].startswith("✓ ")
        assert draw_curves(language, bad).plot


def test_band_and_blob_stand_beside_the_curve(services, examined):
    measured = faithfulness.measure_all(services, examined, ("tiny-resnet",))
    found = measured.faithfulness[0]
    high, low, blob, own = json.loads(draw_curves("en", found).plot)["data"][:4]
    curves = found.badge.curves
    decode = [np.frombuffer(b64decode(trace["y"]["bdata"]), np.float64) for trace in (high, low, blob, own)]
    assert decode[0] == pytest.approx(curves.insertion.max(axis=0))
    assert decode[1] == pytest.approx(curves.insertion.min(axis=0))
    assert decode[2] == pytest.approx(curves.centre_insertion)
    assert decode[3] == pytest.approx(found.insertion.scores)
