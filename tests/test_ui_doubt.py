"""How far to believe an answer, on the page: what was measured is said, what was not is said too."""

from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from PIL import Image

from explain.examination import Settings, examine
from explain.faithfulness_sanity import RandomisationCheck
from explain.faithfulness_schema import FaithfulnessSettings
from explain.stability import CHANGES, Stability, Variant
from models.ensemble import combine
from models.imaging import read_image
from models.schema import Expectation, Novelty
from ui import api_describe, faithfulness, results
from ui.doubt_markup import read_stability, render_confidence, render_notes
from ui.faithfulness_listeners import Trusting
from ui.faithfulness_markup import render_check
from ui.markup import render_verdict
from ui.pictures import View, find_map
from ui.services import Services
from ui.text import LANGUAGES

VIEW = View("tiny-resnet", "gradcam")


@pytest.fixture
def services(tiny_loader, tmp_path, monkeypatch) -> Services:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    return Services(zoo=tiny_loader.zoo, loader=tiny_loader, examples=())


@pytest.fixture
def examined(tiny_loader, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)
    settings = Settings("deepfake", ("tiny-resnet",), ("gradcam", "integrated_gradients"), detector=None)
    return examine(read_image(path), settings, tiny_loader)


def doubted(examined, *, unfamiliar):
    """The examination as it would be of a measured model."""
    prediction = replace(
        examined.predictions[0],
        temperature=2.0,
        raw={"fake": 0.123, "real": 0.877},
        expected=Expectation(0.91, 33, 1200, 0.8, 0.87),
        novelty=Novelty(2.0 if unfamiliar else 0.5, 1.0, 0.05, unfamiliar),
    )
    verdict = replace(combine([prediction], {}), expected=Expectation(0.91, 33, 1200, 0.8, 0.87))
    return replace(examined, predictions=(prediction,), verdict=verdict)


def test_a_verdict_stands_with_its_expected_accuracy(services, examined):
    specs = services.zoo.specs
    said = render_confidence("en", doubted(examined, unfamiliar=False).verdict, specs)
    assert "Of 33 held-out pictures on which these models were as sure, they were right on 91%." in said
    assert "was not measured" in render_confidence("en", examined.verdict, specs)


def test_a_picture_that_no_model_knows_has_no_confident_verdict(services, examined):
    specs = services.zoo.specs
    page = results.show_result("en", specs, results.make_result(doubted(examined, unfamiliar=True)), VIEW)
    verdict, rows = page["verdict"]["value"], page["rows"]["value"]
    assert "<strong>No confident verdict</strong>" in verdict
    assert "Has not seen such pictures: Tiny resnet." in verdict
    assert "right on" not in verdict
    assert "✗ This model has not seen such pictures" in rows
    usual = results.show_result("en", specs, results.make_result(doubted(examined, unfamiliar=False)), VIEW)
    assert "No confident" not in usual["verdict"]["value"]
    assert "✗" not in usual["rows"]["value"]


def test_what_is_not_certain_is_not_rounded_up_to_certainty(services, examined):
    specs, verdict = services.zoo.specs, examined.verdict
    for share, shown in ((0.998, "&gt; 99%"), (1.0, ">100%"), (0.994, ">99%")):
        sure = replace(verdict, probabilities={**verdict.probabilities, verdict.label: share})
        assert f"{shown}</span>" in render_verdict("en", sure, examined.predictions, specs)


def test_raw_probabilities_are_shown_as_such(examined):
    assert "not calibrated" in render_notes("en", examined)["tiny-resnet"]
    measured = doubted(examined, unfamiliar=False)
    said = render_notes("en", measured)["tiny-resnet"]
    assert f"calibrated, raw {measured.predictions[0].raw[measured.predictions[0].label]:.1%}" in said
    assert "right on 91% of 33 held-out pictures" in said


def test_an_answer_that_flips_says_so(examined):
    own = examined.predictions[0]
    kept = tuple(Variant(change, own.label, 0.6, {"gradcam": 0.9}) for change in CHANGES)
    stable = replace(examined, stability=(Stability("tiny-resnet", own.label, 0.7, kept),))
    assert "keeps its answer" in render_notes("en", stable)["tiny-resnet"]
    assert "moves by up to 10 pp" in render_notes("en", stable)["tiny-resnet"]
    assert "stays alike: lowest correlation 0.90" in read_stability("en", stable, "tiny-resnet", "gradcam")
    assert read_stability("en", stable, "tiny-resnet", "occlusion") == ""
    turned = (*kept[:3], Variant("crop", "other", 0.1, {"gradcam": 0.2}))
    flips = replace(examined, stability=(Stability("tiny-resnet", own.label, 0.7, turned),))
    for language in LANGUAGES:
        assert "✗" in render_notes(language, flips)["tiny-resnet"]
    assert "Changes its answer when cropped by 5 %" in render_notes("en", flips)["tiny-resnet"]
    assert "moves: lowest correlation 0.20" in read_stability("en", flips, "tiny-resnet", "gradcam")


def test_programs_get_the_same(examined):
    told = api_describe.describe(doubted(examined, unfamiliar=True))
    assert told["verdict"]["confident"] is False
    assert told["verdict"]["expected"]["accuracy"] == 0.91
    assert told["predictions"][0]["raw_probabilities"] == {"fake": 0.123, "real": 0.877}
    assert told["predictions"][0]["novelty"]["unfamiliar"] is True
    signed = next(one for one in told["heatmaps"] if one["method"] == "integrated_gradients")
    assert signed["signed"]
    assert signed["convergence_delta"] >= 0


def test_a_signed_map_has_a_legend_of_its_own(services, examined):
    shown = find_map(examined, "tiny-resnet", "integrated_gradients")
    view = View("tiny-resnet", "integrated_gradients")
    legend = results.describe_view("en", services.zoo.specs, examined, view)["legend"]["value"]
    assert "blue against it" in legend
    assert f"convergence delta {shown.delta:.1%}" in legend
    assert "blue against it" not in results.describe_view("en", services.zoo.specs, examined, VIEW)["legend"]["value"]


def test_the_grid_shows_the_most_faithful_map_of_each_model_first(services, examined):
    quick = FaithfulnessSettings(steps=3, random=3, badge_steps=2, average_drop=False)
    *_, step = faithfulness.measure_steps(services, examined, ("tiny-resnet",), Event(), quick)
    measured = step.examination
    assert [one.model_id for one in measured.stability] == ["tiny-resnet"]
    best = max(measured.faithfulness, key=lambda one: one.gain).method
    grid = results.show_grid("en", services.zoo.specs, results.make_result(measured))
    first = grid.index(f"tiny-resnet|{best}")
    assert all(grid.index(f"tiny-resnet|{one.method}") >= first for one in measured.faithfulness)
    assert "most faithful map" in grid
    assert "most faithful map" not in results.show_grid("en", services.zoo.specs, results.make_result(examined))


def test_a_map_is_checked_against_random_weights_on_request(services, examined):
    before = [part.clone() for part in services.loader.load("tiny-resnet").module.parameters()]
    steps = list(Trusting(services).check("en", results.make_result(examined), VIEW))
    assert "Replacing the weights of Tiny resnet" in steps[1]["checked"]["value"]
    said, kept = steps[-1]["checked"]["value"], steps[-1]["result"]["value"]
    assert "rank correlation" in said
    assert [(one.model_id, one.method) for one in kept.examination.checks] == [("tiny-resnet", "gradcam")]
    trusting = Trusting(services)
    assert trusting.show("en", kept, VIEW)["checked"]["value"] == said
    assert trusting.show("en", kept, View("tiny-resnet", "integrated_gradients"))["checked"]["value"] == ""
    after = services.loader.load("tiny-resnet").module.parameters()
    assert all((one == other).all() for one, other in zip(before, after, strict=True))
    gone = list(Trusting(services).check("en", None, VIEW))
    assert "There is no map of a model here" in gone[-1]["checked"]["value"]
    survived = RandomisationCheck("gradcam", (1.0,), (0.9,), (0.8,), "tiny-resnet")
    gone = replace(survived, rank_correlations=(0.1,), ssim=(0.2,))
    key = ("tiny-resnet", "gradcam")
    assert "✗ This map hardly changes" in render_check("en", replace(examined, checks=(survived,)), *key)
    assert "as it should" in render_check("en", replace(examined, checks=(gone,)), *key)
