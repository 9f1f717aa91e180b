"""What was measured of a model, beside its weights: written, read, and used for its answers and no other's."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from models.calibration import HeldOut
from models.doubt import (
    Doubt,
    DoubtFacts,
    assess,
    expect_verdict,
    hash_processor,
    predict_assessed,
    read_doubt,
    write_doubt,
)
from models.ensemble import combine
from models.errors import ModelUnavailableError
from models.loading import ModelLoader
from models.novelty import Familiar, describe_pictures, fit_familiar
from models.registry import Zoo, load_zoo, weights_folder

RNG = np.random.default_rng(0)


def pictures(count, seed=0):
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)) for _ in range(count)]


def make_doubt(familiar, sha, threshold=1.0, temperature=2.0, **facts):
    held = HeldOut(np.tile([3.0, 0.0], (40, 1)), np.array([0, 0, 0, 1] * 10, np.intp), ("fake", "real"), "set")
    known = {
        "weights_sha256": sha,
        "processor_sha256": "p",
        "labels": ("fake", "real"),
        "temperature": temperature,
        "threshold": threshold,
        "false_alarm": 0.05,
        "measured_sha256": "set",
        "sets": {},
        "figures": {},
        "command": "python -m training doubt",
    }
    return Doubt(DoubtFacts(**(known | facts)), familiar, held)


def test_distance_is_what_the_main_directions_leave_over():
    # The training pictures lie on one line, so what lies off it is distance and how far along it is not.
    line = np.outer(RNG.normal(size=20), [3.0, 4.0, 0.0]).astype(np.float32) + 1
    familiar = fit_familiar(line, directions=1)
    assert np.abs(familiar.directions[0]) == pytest.approx([0.6, 0.8, 0], abs=1e-4)
    moved = familiar.mean + np.array([[300, 400, 0], [0, 0, 2.5]], np.float32)
    assert familiar.distances(moved) == pytest.approx([0, 2.5], abs=1e-2)
    with pytest.raises(ValueError, match="at least 4"):
        fit_familiar(line[:3], directions=2)


def test_features_of_a_picture_do_not_depend_on_the_batch(tiny_loader):
    for model_id in ("tiny-resnet", "tiny-vit"):
        live = tiny_loader.load(model_id)
        together = describe_pictures(live, pictures(3))
        alone = describe_pictures(live, pictures(3)[2:])
        assert together[2] == pytest.approx(alone[0], abs=1e-4)
        assert np.square(together).sum(axis=1) == pytest.approx([len(live.layers)] * 3, rel=1e-4)
        assert not live.module.training
        assert all(not part._forward_hooks for part in live.module.modules())


@pytest.fixture
def measured(tiny_loader, tmp_path):
    """A copy of the tiny ResNet with its statistics, under a loader of its own."""
    spec = tiny_loader.zoo.get("tiny-resnet")
    folder = tmp_path / "model"
    shutil.copytree(spec.source, folder)
    live = tiny_loader.load("tiny-resnet")
    familiar = fit_familiar(describe_pictures(live, pictures(40)), directions=8)
    distances = familiar.distances(describe_pictures(live, pictures(20, seed=1)))
    prepared = {"processor_sha256": hash_processor(live.processor)}
    doubt = make_doubt(familiar, live.status.weights_sha256, threshold=float(distances.max() * 1.2), **prepared)
    write_doubt(doubt, folder)
    return ModelLoader(Zoo({spec.id: spec.model_copy(update={"source": str(folder)})}), offline=True), folder, doubt


def test_probabilities_are_calibrated_and_the_raw_ones_kept(measured, tiny_loader):
    loader, _, _ = measured
    image = pictures(1)
    raw = tiny_loader.load("tiny-resnet").predict(image)[0]
    calibrated = loader.load("tiny-resnet").predict(image)[0]
    assert raw.raw is raw.temperature is raw.expected is None
    assert calibrated.raw == pytest.approx(raw.probabilities)
    assert calibrated.logits == pytest.approx(raw.logits)
    assert calibrated.label == raw.label
    odds = raw.probabilities["fake"] / raw.probabilities["real"]
    assert calibrated.probabilities["fake"] / calibrated.probabilities["real"] == pytest.approx(odds**0.5)


def test_a_picture_unlike_all_the_model_learned_gets_no_confident_verdict(measured):
    loader, _, _ = measured
    live = loader.load("tiny-resnet")
    flat = Image.new("RGB", (40, 40), "white")
    usual, strange = assess(live, [pictures(1, seed=2)[0], flat], live.predict([pictures(1, seed=2)[0], flat]))
    assert not usual.novelty.unfamiliar
    assert strange.novelty.unfamiliar
    assert strange.novelty.distance > strange.novelty.threshold > usual.novelty.distance
    assert combine([usual], {}).confident
    verdict = combine([strange], {})
    assert not verdict.confident
    assert verdict.unfamiliar == ("tiny-resnet",)
    knows = replace(usual, model_id="other", status=replace(usual.status, weights_sha256="other"))
    assert not combine([strange, knows], {}).confident  # half of the weight is enough
    assert combine([strange, knows], {"other": 0.9, "tiny-resnet": 0.6}).confident


def test_the_verdict_is_expected_to_be_right_as_often_as_it_was(measured):
    loader, _, doubt = measured
    live = loader.load("tiny-resnet")
    verdict = combine(live.predict(pictures(1)), {})
    sure = replace(verdict, probabilities={**verdict.probabilities, verdict.label: 0.81})
    # exp(3 / 2) / (1 + exp(3 / 2)) = 0.82, of which three in four were right.
    assert expect_verdict(sure, {"tiny-resnet": doubt}).expected.accuracy == 0.75
    assert expect_verdict(sure, {"tiny-resnet": None}).expected is None


def test_what_was_written_is_read_for_these_weights_and_this_processor_only(measured):
    loader, folder, doubt = measured
    processor = loader.load("tiny-resnet").processor
    again = read_doubt(folder, doubt.facts.weights_sha256, processor)
    assert again.facts == doubt.facts
    assert again.held.logits == pytest.approx(doubt.held.logits)
    some = doubt.familiar.mean + RNG.normal(size=(3, len(doubt.familiar.mean))).astype(np.float32)
    assert again.familiar.distances(some) == pytest.approx(doubt.familiar.distances(some), rel=1e-3)
    assert read_doubt(folder, "0" * 64, processor) is None
    assert read_doubt(folder.parent, doubt.facts.weights_sha256, processor) is None
    other = type(processor)(**processor.to_dict() | {"size": {"height": 16, "width": 16}})
    assert read_doubt(folder, doubt.facts.weights_sha256, other) is None
    (folder / "doubt.safetensors").write_bytes(b"no")
    with pytest.raises(ModelUnavailableError, match="damaged; remove both"):
        read_doubt(folder, doubt.facts.weights_sha256, processor)


def test_one_pass_gives_the_answer_and_how_strange_the_picture_is(measured):
    loader, _, _ = measured
    live = loader.load("tiny-resnet")
    images = [*pictures(17, seed=4), Image.new("RGB", (40, 40), "white")]
    passes = []
    assert live.layers  # found by a pass of its own, once
    hook = live.module.register_forward_hook(lambda *_: passes.append(1))
    together = predict_assessed(live, images)
    hook.remove()
    assert len(passes) == 2  # of 16 and of 2 pictures
    apart = assess(live, images, live.predict(images))
    for one, other in zip(together, apart, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
        assert one.novelty.distance == pytest.approx(other.novelty.distance, rel=1e-5)
    assert [one.novelty.unfamiliar for one in together] == [one.novelty.unfamiliar for one in apart]
    assert together[-1].novelty.unfamiliar


def test_model_without_statistics_answers_without_them(tiny_loader):
    live = tiny_loader.load("tiny-vit")
    (said,) = predict_assessed(live, pictures(1))
    assert said.novelty is None
    assert said.probabilities == live.predict(pictures(1))[0].probabilities


@pytest.mark.parametrize("model_id", ["bundled-resnet", "bundled-vit", "bundled-paligemma-deepfake"])
def test_what_lies_beside_bundled_weights_was_measured_of_them(model_id):
    zoo = load_zoo()
    folder = weights_folder(zoo.get(model_id).source)
    if not (folder / "doubt.json").is_file():
        pytest.skip(f"{model_id} has not been measured: python -m training doubt --model {model_id}")
    live = ModelLoader(zoo, offline=True).load(model_id)
    assert live.doubt is not None, f"measured of other weights; run: python -m training doubt --model {model_id}"
    facts = live.doubt.facts
    assert facts.figures["outside"]["charts"]["auroc"] > 0.9
    card = (folder / "README.md").read_text("utf-8")
    for name, one in facts.figures["outside"].items():
        assert f"| {name} | {one['pictures']:,} | {one['auroc']:.3f} |" in card
    # Noise is nothing like a face.
    noise = [Image.fromarray(np.random.default_rng(3).integers(0, 256, (240, 320, 3), dtype=np.uint8))]
    assert assess(live, noise, live.predict(noise))[0].novelty.unfamiliar


def test_statistics_hold_for_the_labels_and_question_they_were_measured_with():
    familiar = Familiar(np.zeros(2, np.float32), np.eye(2, dtype=np.float32)[:1])
    doubt = make_doubt(familiar, "s", question="Is it?", style="plain")
    assert doubt.fits(("fake", "real"), "Is it?", "plain")
    assert not doubt.fits(("fake", "real"), "Was it?", "plain")
    assert not doubt.fits(("real", "fake"), "Is it?", "plain")
