"""Faithfulness measured: by hand, beside torchcam and Quantus, for every kind of model, and remembered."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from explain.attribution import infidelity, max_sensitivity
from explain.cam import explain_batch
from explain.faithfulness import FaithfulnessMeter, FaithfulnessSettings, badges_of, measure_maps
from explain.faithfulness_metrics import Curve
from explain.faithfulness_probe import FunctionProbe, ModelProbe, Probability, make_probe, read_probability
from explain.schema import Heatmap, MapPart
from explain.targets import ClassLogit, PredictedLogit, default_target
from models.errors import IncompatibleMethodError
from models.families import get_family
from models.precision import skeleton
from models.schema import LoadState, ModelSpec, ModelStatus
from models.vlm import VisionLanguageModel
from models.vlm_core import load_core

PEERS = "is not installed: pip install -r requirements-dev.txt"
ZERO = FaithfulnessSettings(steps=4, insertion_baseline="zero", deletion_baseline="zero", random=0)
BADGES = FaithfulnessSettings(steps=4, insertion_baseline="zero", deletion_baseline="zero", random=5)
UNEVEN = np.random.default_rng(2).random((16, 16), np.float32).tolist()


@pytest.fixture(params=["tiny-resnet", "tiny-vit"])
def live(request, tiny_loader):
    return tiny_loader.load(request.param)


def picture(width=60, height=40, seed=5):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def heatmap(values, size_wh=None, method="gradcam", sha=""):
    values = np.asarray(values, np.float32)
    size_wh = size_wh or values.shape[::-1]
    part = MapPart(values, (0.0, 0.0, *map(float, size_wh)))
    return Heatmap((part,), size_wh, float(values.min()), float(values.max()), method, "logit:fake", "layer", "m", sha)


def linear_probe(weights, batch=8):
    """Scores a picture of one channel by a weighted sum, and keeps what it was shown."""
    weights = torch.tensor(weights)
    seen = []

    def score(variants):
        seen.extend(variants)
        return (variants[:, 0] * weights).sum(dim=(1, 2))

    return FunctionProbe(score, torch.ones(1, *weights.shape), batch), seen


def test_curves_of_a_known_score_by_hand():
    probe, seen = linear_probe([[0.5, 0.3], [0.2, 0.0]])
    (found,) = measure_maps(probe, [heatmap([[4, 3], [2, 1]])], ZERO)
    assert found.score == pytest.approx(1)
    assert found.deletion.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.deletion.scores == pytest.approx([1, 0.5, 0.2, 0, 0])
    assert found.insertion.scores == pytest.approx([0, 0.5, 0.8, 1, 1])
    assert found.figures["deletion"] == pytest.approx(0.3)
    assert found.figures["insertion"] == pytest.approx(0.7)
    assert found.figures["gain"] == pytest.approx(0.4)
    # The map is shown alone as 1, 2/3, 1/3 and 0 of each pixel.
    assert found.average_drop == pytest.approx(1 - (0.5 + 0.2 + 0.2 / 3))
    assert found.increase is False
    assert found.sparseness == pytest.approx((-0 - 1 / 3 + 2 / 3 + 3) / (4 * 2))
    assert found.badge is None
    assert found.road is None
    # The whole picture, the empty one, three points of each curve, and the map alone: nothing twice.
    assert len(seen) == 1 + 1 + 3 + 3 + 1


def test_the_right_map_beats_the_wrong_one_in_every_figure():
    probe, _ = linear_probe([[0.5, 0.3], [0.2, 0.0]])
    settings = replace(ZERO, road_fractions=(0.25, 0.5))
    right, wrong = measure_maps(probe, [heatmap([[4, 3], [2, 1]]), heatmap([[1, 2], [3, 4]])], settings)
    assert right.gain == pytest.approx(-wrong.gain)
    assert right.average_drop < wrong.average_drop
    assert right.road_curves[0].fractions.tolist() == [0.25, 0.5]
    assert measure_maps(probe, [], ZERO) == []


def test_road_tells_a_planted_cause_from_its_opposite():
    """A bright disc makes the score; imputing it from the dark around it takes the score away."""
    y, x = np.mgrid[:48, :48]
    disc = ((x - 15) ** 2 + (y - 30) ** 2 < 64).astype(np.float32)
    weights = torch.from_numpy(disc / disc.sum())
    probe = FunctionProbe(lambda v: (v[:, 0] * weights).sum(dim=(1, 2)), torch.from_numpy(disc)[None])
    settings = replace(ZERO, road_fractions=(0.1, 0.3, 0.5))
    right, wrong = measure_maps(probe, [heatmap(disc + 0.001 * x), heatmap(1 - disc + 0.001 * x)], settings)
    assert right.road > 0.35
    assert wrong.road == pytest.approx(-right.road, abs=0.1)


def test_badges_tell_a_planted_cause_from_noise():
    y, x = np.mgrid[:64, :64]
    blob = np.exp(-((x - 14) ** 2 + (y - 45) ** 2) / 80).astype(np.float32)
    weights = torch.from_numpy(blob / blob.sum())
    probe = FunctionProbe(lambda v: (v[:, 0] * weights).sum(dim=(1, 2)), torch.ones(1, 64, 64))
    far = np.exp(-((x - 50) ** 2 + (y - 10) ** 2) / 80).astype(np.float32)
    settings = replace(ZERO, random=20)
    maps = [heatmap(blob), heatmap(far), heatmap(blob, method="eigencam")]
    right, wrong, blind = badges_of(probe, maps, settings)
    assert right.trusted
    assert right.better_than == 20
    assert right.beats_centre
    assert not right.class_blind
    assert not wrong.trusted
    assert not wrong.beats_centre
    assert blind.class_blind
    assert len(right.random) == 20
    assert right.control_px == pytest.approx(right.length_px, rel=0.5)
    # Badges of the full measurement are the same ones.
    full = measure_maps(probe, maps, settings)
    assert [one.badge.text for one in full] == [one.text for one in (right, wrong, blind)]
    np.testing.assert_array_equal(full[0].badge.random, right.random)
    with pytest.raises(ValueError, match="random maps"):
        badges_of(probe, maps, ZERO)


class Extractor:
    """What torchcam's metrics ask of an extractor: here it hands over a map that is there already."""

    def __init__(self, module, cam):
        self.model, self._cam = module, cam

    def __call__(self, class_idx=None, scores=None, **_):
        return [self._cam]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return contextlib.nullcontext()


class Logits(torch.nn.Module):
    def __init__(self, live):
        super().__init__()
        self.network = live.module

    def forward(self, pixels):
        return self.network(pixel_values=pixels).logits


def distinct_maps(live, count=3):
    """Maps without ties, whose order leaves no choice, for a picture of the model's own size."""
    rng = np.random.default_rng(7)
    side = live.prepare([picture()])["pixel_values"].shape[-1]
    return [heatmap(rng.permutation(side * side).reshape(side, side)) for _ in range(count)], side


@pytest.mark.parametrize("steps", [7, 20])
def test_insertion_deletion_and_drop_equal_those_of_torchcam(live, steps):
    metrics = pytest.importorskip("torchcam.metrics", reason=f"torchcam {PEERS}")
    maps, side = distinct_maps(live)
    probe = make_probe(live, picture(side, side), ClassLogit("real", live.labels))
    label = live.labels.index("real")
    for heat, found in zip(maps, measure_maps(probe, maps, replace(ZERO, steps=steps)), strict=True):
        extractor = Extractor(Logits(live), torch.from_numpy(probe.place(heat))[None])
        softmax = torch.nn.Softmax(dim=-1)
        theirs = metrics.DeletionInsertionMetric(extractor, softmax, steps=steps)
        theirs.update(probe.picture[None], label)
        assert theirs.summary()["deletion_auc"] == pytest.approx(found.deletion.auc, abs=1e-5)
        assert theirs.summary()["insertion_auc"] == pytest.approx(found.insertion.auc, abs=1e-5)
        shown = metrics.ClassificationMetric(extractor, softmax)
        shown.update(probe.picture[None], label)
        assert shown.summary()["avg_drop"] == pytest.approx(found.average_drop, abs=1e-5)
        assert shown.summary()["conf_increase"] == found.increase


def test_deletion_and_insertion_equal_pixel_flipping_of_quantus(tiny_loader):
    quantus = pytest.importorskip("quantus", reason=f"Quantus {PEERS}")
    live = tiny_loader.load("tiny-resnet")
    # Quantus takes steps that divide the pixels of one channel and counts values of all three: 24 x 24 in 6 steps.
    inputs = {"pixel_values": torch.nn.functional.interpolate(live.prepare([picture()])["pixel_values"], (24, 24))}
    heat = heatmap(np.random.default_rng(7).permutation(576).reshape(24, 24))
    probe = ModelProbe(live, inputs, (0, 0, 24, 24), Probability(1))
    (found,) = measure_maps(probe, [heat], replace(ZERO, steps=6))
    options = {"features_in_step": 288, "perturb_baseline": 0.0, "disable_warnings": True, "abs": False}
    flipping = quantus.PixelFlipping(**options, normalise=False)
    values, shown = probe.place(heat)[None, None], inputs["pixel_values"].numpy()
    # The hottest pixels first delete; the coldest first, read backwards, insert.
    first, last = (
        flipping(Logits(live).eval(), shown, np.array([1]), a_batch=order.copy(), device="cpu", softmax=True)[0]
        for order in (values, -values)
    )
    np.testing.assert_allclose(found.deletion.scores[1:], first, atol=1e-5)
    np.testing.assert_allclose(found.insertion.scores[:-1], last[::-1], atol=1e-5)


def test_the_model_is_asked_about_the_part_that_it_sees(live):
    """A centre crop shows the model the middle; the map must be cut in the same way."""
    processor = live.processor
    inputs = live.prepare([picture(96, 64)])
    values = np.tile(np.arange(96, dtype=np.float32), (64, 1))
    probe = ModelProbe(live, inputs, (16.0, 0.0, 80.0, 64.0), Probability(0))
    placed = probe.place(heatmap(values))
    side = processor.size["height"]
    np.testing.assert_allclose(placed[0], (16 + (np.arange(side) + 0.5) * 64 / side - 0.5) / 95, atol=1e-3)


@pytest.mark.parametrize("label", ["fake", "real"])
def test_the_score_of_the_whole_picture_is_the_prediction(live, label):
    probe = make_probe(live, picture(), ClassLogit(label, live.labels))
    expected = live.predict([picture()])[0].probabilities[label]
    assert probe.score(probe.picture[None].repeat(3, 1, 1, 1)).tolist() == pytest.approx([expected] * 3, abs=1e-6)


def test_the_predicted_label_is_held_fast(live):
    """Without a picture the model may predict another label; the curve still tells of the first one."""
    prediction = live.predict([picture()])[0]
    probe = make_probe(live, picture(), PredictedLogit(live.labels))
    grey = torch.zeros_like(probe.picture)[None]
    logits = live.module(pixel_values=grey).logits.softmax(1)[0]
    assert probe.score(grey).item() == pytest.approx(logits[live.labels.index(prediction.label)].item(), abs=1e-6)


def test_names_of_targets_are_read_back():
    labels = ("a", "a-b", "b")
    assert read_probability("logit:a-b", labels) == Probability(1)
    assert read_probability("margin:a-b", labels) == Probability(0, 2)
    assert read_probability("margin:a-b-a", labels) == Probability(1, 0)
    with pytest.raises(IncompatibleMethodError, match="a, a-b, b"):
        read_probability("logit:c", labels)


FAMILIES = ("paligemma", "llava_next", "qwen2_vl", "smolvlm")


@pytest.fixture(params=FAMILIES)
def asked(request, tiny_vlm):
    spec = ModelSpec(
        id="tiny", name="Tiny", task="deepfake", kind="vlm", source="tiny", licence="MIT", size_mb=1, memory_mb=1,
        family=request.param, question="Is it?", answers={"0": "fake", "1 for real": "real", "yes": "unsure"},
    )  # fmt: skip
    folder = tiny_vlm(request.param)
    core = load_core(get_family(request.param), folder, "fp32", skeleton(folder), torch.device("cpu"), "tiny")
    return VisionLanguageModel(spec, ModelStatus(LoadState.FINE_TUNED, "tiny"), core)


def test_vision_language_models_are_scored_by_their_margin(asked):
    image = picture(90, 60)
    answer = explain_batch(asked, [image], methods=["layercam", "eigencam"])[0]
    logits = sorted(answer.prediction.logits.values())
    probe = make_probe(asked, image, default_target(asked))
    expected = 1 / (1 + np.exp(logits[-2] - logits[-1]))
    assert probe.score(probe.picture[None]).item() == pytest.approx(expected, abs=1e-5)
    assert isinstance(probe, ModelProbe) == (asked.spec.family == "paligemma")
    settings = FaithfulnessSettings(steps=2, random=2, badge_steps=2, road_fractions=(0.5,))
    found = measure_maps(probe, answer.heatmaps, settings)
    assert [one.method for one in found] == [one.method for one in answer.heatmaps]
    for one in found:
        assert one.score == pytest.approx(expected, abs=1e-5)
        assert one.insertion.scores[-1] == one.deletion.scores[0] == one.score
        assert ((one.insertion.scores > 0) & (one.insertion.scores < 1)).all()
        assert -0.5 <= one.road <= 0.5
        assert len(one.badge.random) == 2


def test_what_was_measured_is_remembered(live, monkeypatch):
    image = picture()
    maps = [replace(one, image_sha256="ab") for one in explain_batch(live, [image], methods=["gradcam"])[0].heatmaps]
    target = PredictedLogit(live.labels)
    settings = FaithfulnessSettings(steps=3, random=3)
    meter = FaithfulnessMeter(kept=2)
    first = meter.measure(live, image, maps, target, settings)
    monkeypatch.setattr(live, "forward", None)
    assert meter.measure(live, image, maps, target, settings)[0] is first[0]
    for other in (
        (live, image, maps, target, replace(settings, steps=4)),
        (live, image, maps, ClassLogit("real", live.labels), settings),
        (live, image, [replace(maps[0], image_sha256="cd")], target, settings),
        (live, image, [replace(maps[0], image_sha256="")], target, settings),
    ):
        with pytest.raises(TypeError):
            meter.measure(*other)
    monkeypatch.undo()
    meter.measure(live, image, maps, target, replace(settings, steps=4))
    meter.measure(live, image, maps, target, replace(settings, steps=5))
    assert meter.measure(live, image, maps, target, settings)[0] is not first[0]


def test_infidelity_is_0_for_the_true_weights_of_a_linear_score():
    weights = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    probe = FunctionProbe(
        lambda v: (v[:, 0] * torch.from_numpy(weights)).sum(dim=(1, 2)),
        torch.from_numpy(np.random.default_rng(1).normal(size=(1, 6, 6))).float(),
    )
    # Any scale of the map will do, since a class activation map has no unit.
    assert infidelity(probe, 5 * weights) == pytest.approx(0, abs=1e-6)
    assert infidelity(probe, np.ones((6, 6), np.float32)) > 1e-3


def test_max_sensitivity_by_hand():
    shown = torch.ones(1, 4, 4)
    assert max_sensitivity(lambda v: torch.ones(len(v), 4, 4), shown) == 0
    # A map that is the picture moves as the picture does: each value by at most the radius.
    moved = max_sensitivity(lambda v: v[:, 0], shown, radius=0.1)
    assert 0.03 < moved <= 0.1


def test_sensitivity_and_infidelity_of_real_maps(live):
    heat = explain_batch(live, [picture()], methods=["gradcam", "eigencam"])[0].heatmaps
    probe = make_probe(live, picture(), PredictedLogit(live.labels))
    settings = replace(ZERO, infidelity_samples=8, sensitivity_samples=3)
    for found in measure_maps(probe, heat, settings):
        assert found.infidelity >= 0
        assert 0 < found.max_sensitivity < 2
        assert {"infidelity", "max_sensitivity"} <= set(found.figures)


def test_badges_keep_the_curves_of_their_controls_and_progress_is_told():
    probe, _ = linear_probe(UNEVEN)
    shares: list[float] = []
    (found, *_) = measure_maps(probe, [heatmap(UNEVEN)], BADGES, shares.append)
    curves = found.badge.curves
    gains = [
        Curve(curves.fractions, one).auc - Curve(curves.fractions, other).auc
        for one, other in zip(curves.insertion, curves.deletion, strict=True)
    ]
    assert gains == pytest.approx(found.badge.random.tolist())
    centre = Curve(curves.fractions, curves.centre_insertion).auc - Curve(curves.fractions, curves.centre_deletion).auc
    assert centre == pytest.approx(found.badge.centre_gain)
    assert shares[0] == 0 and shares == sorted(shares) and shares[-1] < 1


def test_what_is_raised_while_progress_is_told_ends_the_measuring():
    probe, _ = linear_probe(UNEVEN)

    def stop(share):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        measure_maps(probe, [heatmap(UNEVEN)], BADGES, stop)
