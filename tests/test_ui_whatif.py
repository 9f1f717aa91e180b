"""The What-if panel without a browser, and its endpoint: real rooms, tiny real models."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from models.errors import ExhibitError
from models.imaging import read_image
from models.schema import Detections, LoadState, ModelStatus
from ui import results
from ui.pictures import View
from ui.services import Services
from ui.whatif_api import WhatIfEndpoint
from ui.whatif_listeners import BOX, BRUSH, OBJECT, Region, Supposing, read_paint

VIEW = View("tiny-resnet", "gradcam")


@pytest.fixture
def services(tiny_loader, tmp_path, monkeypatch) -> Services:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    return Services(zoo=tiny_loader.zoo, loader=tiny_loader, examples=())


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def result(services, photo):
    settings = services.settings("deepfake", ("tiny-resnet", "tiny-vit"), ("gradcam",))
    *_, last = services.examine(read_image(photo), settings)
    return results.make_result(last)


def with_object(result):
    box, sure = np.array([[10, 5, 30, 25]], np.float32), np.array([0.9], np.float32)
    found = Detections(box, sure, ("person",), (60, 40), "detector", ModelStatus(LoadState.BUNDLED))
    return results.make_result(replace(result.examination, detections=found))


def test_every_kind_of_region_becomes_the_mask_it_means(services, result):
    supposing, examination = Supposing(services), with_object(result).examination

    def area(region, painted=None):
        return int(supposing.mask_of("en", examination, VIEW, region, painted).sum())

    assert area(Region(share=25)) == 600
    assert area(Region(BOX, corners="10, 5, 30, 15")) == 200
    assert area(Region(OBJECT, chosen=0)) == 400
    half = np.zeros((20, 30), bool)  # the editor shows the picture at another size
    half[:10] = True
    assert area(Region(BRUSH), half) == 1200


def test_a_region_that_is_none_is_named_in_one_line(services, result):
    supposing = Supposing(services)
    for region, words in (
        (Region(BOX, corners="here"), "four numbers"),
        (Region(OBJECT), "No object"),
        (Region(BRUSH), "Nothing is painted"),
    ):
        with pytest.raises(ExhibitError, match=words):
            supposing.mask_of("en", result.examination, VIEW, region, None)


def test_models_are_asked_again_and_changes_stand_in_a_table(services, result):
    *_, last = Supposing(services).ask("en", result, VIEW, Region(share=50), None)
    shown = last["found"]["value"]
    assert shown.count('<th scope="row">') == 3  # two models and the verdict
    assert shown.count("<figure>") == 2
    assert "50.0% of the picture" in last["news"]["value"]


def test_smallest_evidence_tells_how_often_it_asked(services, result):
    *_, last = Supposing(services).search("en", result, VIEW, "mean")
    assert "Found with Tiny resnet" in last["news"]["value"]
    assert "Grad-CAM" in last["found"]["value"]


def test_controls_of_the_chosen_kind_show(services, result):
    updates = Supposing(services).choose("en", BOX, result)
    assert [name for name, each in updates.items() if each["visible"]] == ["corners"]
    assert Supposing(services).renew("en", with_object(result))["chosen"]["choices"] == [("1. person 90%", 0)]


def test_paint_is_what_any_layer_covers():
    layer = np.zeros((4, 6, 4), np.uint8)
    layer[1, 2] = (230, 0, 126, 255)
    painted = read_paint({"layers": [Image.fromarray(layer)], "background": None, "composite": None})
    assert painted.shape == (4, 6)
    assert np.argwhere(painted).tolist() == [[1, 2]]
    assert read_paint(None) is None


def test_endpoint_answers_with_changes_evidence_and_pictures(services, photo):
    endpoint = WhatIfEndpoint(services)
    models = ["tiny-resnet", "tiny-vit"]
    answer, files = endpoint.whatif(str(photo), models=models, box=[0, 0, 30, 40], method="gradcam", evidence=True)
    assert answer["share"] == 0.5
    assert [change["model"] for change in answer["changes"]] == models
    assert answer["smallest"]["model"] == "tiny-resnet"
    assert 0 <= answer["smallest"]["keeps_share"] <= 1
    assert len(files) >= 2
    with pytest.raises(ExhibitError, match="two opposite corners"):
        endpoint.whatif(str(photo), models=models, box=[1, 2], method="gradcam")
