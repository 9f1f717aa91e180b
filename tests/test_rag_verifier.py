"""Verifier: signals that can be worked out by hand, the region they rest on, and verdicts that never go beyond them."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models.schema import Detections, LoadState, ModelStatus
from rag.fusion import Falsehood, Fusion, SignalScale
from rag.looks import Look, crop_grid, look_at, regions_of
from rag.probe import ProbeSettings, Sample, fit_probe, load_probe, place_features, save_probe
from rag.schema import Chunk, Claim, Evidence, Source, measure_reliability
from rag.signals import claim_texts, measure_signals, object_forms
from rag.verifier import Verifier, explain
from tests.colour_clip import ColourClip, halves

ROOT_HALF = math.sqrt(0.5)


def claim_of(text: str) -> Claim:
    return Claim(text, 0, len(text))


def detections_of(*found: tuple[str, float], size_wh: tuple[int, int] = (100, 100)) -> Detections:
    boxes = np.array([[10.0 * at, 0, 10.0 * at + 20, 40] for at in range(len(found))], np.float32).reshape(-1, 4)
    status = ModelStatus(LoadState.BUNDLED)
    confidence = np.array([one[1] for one in found], np.float32)
    return Detections(boxes, confidence, tuple(one[0] for one in found), size_wh, "finder", status)


def weighed(**weights: float) -> Fusion:
    return Fusion(
        clip="colours",
        weights_sha256="c0ffee",
        domain="photographs",
        about="made up",
        signals={name: SignalScale(mean=0.0, scale=1.0) for name in weights},
        falsehoods={"made up": Falsehood(intercept=0.0, weights=weights)},
        refuted_below=0.4,
        supported_from=0.6,
        target_precision=0.9,
        base_rate=0.5,
    )


def test_the_grid_covers_the_picture_and_stays_inside() -> None:
    for size_wh in ((256, 256), (500, 375), (31, 400), (3, 3)):
        covered = np.zeros((size_wh[1], size_wh[0]), bool)
        for x0, y0, x1, y1 in crop_grid(size_wh):
            assert x0 >= 0
            assert y0 >= 0
            assert x1 <= size_wh[0] + 1e-6
            assert y1 <= size_wh[1] + 1e-6
            assert x1 - x0 == pytest.approx(y1 - y0)
            covered[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)] = True
        assert covered.all() or size_wh == (31, 400)


def test_detections_become_regions_after_the_grid() -> None:
    boxes = regions_of((100, 100), detections_of(("dog", 0.9), ("cat", 0.5)))
    assert boxes[-2:] == ((0.0, 0.0, 20.0, 40.0), (10.0, 0.0, 30.0, 40.0))


def test_signals_of_a_two_coloured_picture_are_those_worked_out_by_hand() -> None:
    clip: Any = ColourClip()
    look = look_at(halves("red", "blue"), clip)
    texts = claim_texts("A red thing.")
    signals = measure_signals(look, texts, clip.embed_texts(texts.all))
    values = signals.values
    assert values["whole"] == pytest.approx(ROOT_HALF, abs=1e-6)
    # Crops of 38 % at the left edge are red throughout.
    assert values["region"] == pytest.approx(1.0, abs=1e-6)
    assert signals.region_xyxy is not None
    assert signals.region_xyxy[2] <= 50
    # The best region of each word: "thing" is grey, 2/sqrt(6) with the mixture of both.
    assert signals.words == pytest.approx({"red": 1.0, "thing": math.sqrt(2 / 3)}, abs=1e-3)
    assert values["words"] == pytest.approx((1 + math.sqrt(2 / 3)) / 2, abs=1e-3)
    assert values["weakest_word"] == pytest.approx(math.sqrt(2 / 3), abs=1e-3)
    # The best foil says blue (as good as red), or a colour that the model takes for grey (better than either).
    grey = math.sqrt(2 / 3)
    assert values["foils"] == pytest.approx(ROOT_HALF - grey, abs=1e-6)
    assert signals.foils[0].score == pytest.approx(grey, abs=1e-6)
    assert values["region_foils"] == pytest.approx(0.0, abs=1e-6)
    assert not {"detector", "count", "vqa", "captions", "probe"} & set(values)


def test_the_detector_speaks_of_objects_it_knows_only() -> None:
    look = Look((100, 100), (), np.array([1, 0, 0], np.float32), np.zeros((0, 3), np.float32))
    seen = detections_of(("dog", 0.8), ("dog", 0.5), ("person", 0.9))

    def values(claim: str, detections: Detections | None = seen) -> dict[str, float]:
        own = Look(look.size_wh, (), look.whole, look.regions, detections, ("dog", "person", "sheep"))
        texts = claim_texts(claim)
        return dict(measure_signals(own, texts, ColourClip().embed_texts(texts.all)).values)

    assert values("A man with a dog")["detector"] == pytest.approx(0.8)
    assert "count" not in values("A man with a dog")
    assert values("Three dogs")["count"] == -1.0
    assert values("Two dogs")["count"] == 0.0
    assert values("A sheep and a dog")["detector"] == 0.0
    assert "detector" not in values("A hotdog stand")
    assert "detector" not in values("A dog", None)


def test_people_are_found_under_the_names_people_use() -> None:
    assert {"person", "persons", "man", "women"} <= set(object_forms("person"))
    assert "buses" in object_forms("bus")
    assert "teddy bears" in object_forms("teddy bear")


def test_a_verdict_carries_its_signals_and_what_each_of_them_added() -> None:
    clip: Any = ColourClip()
    verifier = Verifier(clip, weighed(whole=2.0, region=1.0))
    verdict = verifier.verify(halves("red", "blue"), [claim_of("A red thing.")])[0]
    assert verdict.contributions == pytest.approx({"whole": 2 * ROOT_HALF, "region": 1.0}, abs=1e-6)
    assert verdict.support == pytest.approx(1 / (1 + math.exp(-2 * ROOT_HALF - 1)), abs=1e-6)
    assert verdict.verdict == "supported"
    assert verdict.thresholds == (0.4, 0.6)
    assert verdict.doubts == {"made up": 1.0}
    shares = explain(verdict)
    assert [share.name for share in shares[:2]] == ["whole", "region"]
    assert {share.name for share in shares} == set(verdict.signals)
    assert all(share.contribution == 0 for share in shares[2:])


def test_all_texts_of_all_claims_are_one_batch() -> None:
    clip: Any = ColourClip()
    Verifier(clip, weighed(whole=1.0)).verify(
        halves("red", "blue"), [claim_of("A red thing."), claim_of("A green thing.")]
    )
    assert len(clip.text_batches) == 1


def test_without_a_calibration_nothing_is_settled_but_everything_is_shown() -> None:
    clip: Any = ColourClip()
    verdict = Verifier(clip).verify(halves("red", "blue"), [claim_of("A red thing.")])[0]
    assert (verdict.verdict, verdict.support, verdict.thresholds) == ("not_enough_evidence", 0.5, None)
    assert "whole" in verdict.signals
    assert verdict.foils


def test_a_claim_in_another_language_is_not_settled_and_the_others_keep_their_place() -> None:
    clip: Any = ColourClip()
    claims = [claim_of("빨간 물건이 있다."), claim_of("A red thing.")]
    verdicts = Verifier(clip, weighed(whole=5.0)).verify(halves("red", "red"), claims)
    assert [one.claim for one in verdicts] == claims
    assert [one.verdict for one in verdicts] == ["not_enough_evidence", "supported"]
    assert not verdicts[0].signals


def test_no_claims_give_no_verdicts() -> None:
    clip: Any = ColourClip()
    assert Verifier(clip).verify(halves("red", "blue"), []) == []


def test_a_vision_language_model_is_asked_as_vqascore_asks() -> None:
    asked: list[str] = []

    class Vlm:
        def asking(self, *, answers: dict[str, str]) -> Any:
            assert answers == {"Yes": "yes", "No": "no"}
            return self

        def ask(self, image: Any, questions: list[str]) -> list[Any]:
            asked.extend(questions)
            return [SimpleNamespace(logits={"yes": -0.5, "no": -2.5}) for _ in questions]

    clip: Any = ColourClip()
    vlm: Any = Vlm()
    verdict = Verifier(clip, weighed(vqa=1.0), vlm=vlm).verify(halves("red", "blue"), [claim_of("A red thing.")])[0]
    assert asked == ["Does this figure show 'A red thing'?"]
    assert verdict.signals["vqa"] == 2.0
    assert verdict.support == pytest.approx(1 / (1 + math.exp(-2)))


def test_retrieved_captions_of_pictures_speak_and_passages_do_not() -> None:
    class Sentences:
        def embed(self, texts: list[str]) -> Any:
            return np.array([[1.0, 0.0] if "red" in text else [0.0, 1.0] for text in texts], np.float32)

    clip: Any = ColourClip()
    sentences: Any = Sentences()
    verifier = Verifier(clip, weighed(captions=1.0), sentences=sentences)

    def signal(kind: Any, text: str) -> float | None:
        evidence = [Evidence(Chunk(Source("a", kind, ""), 0, text), 1.0)]
        return verifier.verify(halves("red", "red"), [claim_of("A red thing.")], evidence=evidence)[0].signals.get(
            "captions"
        )

    assert signal("image", "a blue thing\nsome red thing") == 1.0
    assert signal("image", "a blue thing") == 0.0
    assert signal("text", "a red thing") is None


def test_the_weakest_claim_is_named() -> None:
    clip: Any = ColourClip()
    claims = [claim_of("A red thing."), claim_of("A green thing."), claim_of("A blue thing.")]
    verdicts = Verifier(clip, weighed(whole=4.0)).verify(halves("red", "red"), claims)
    reliability = measure_reliability(verdicts)
    assert (reliability.claims, reliability.supported) == (3, 1)
    assert reliability.weakest is verdicts[1]


def probe_samples(count: int, seed: int) -> list[Sample]:
    """A claim (first or second half of the vector) holds where any region shows it; the other regions are noise."""
    random = np.random.default_rng(seed)
    basis = np.eye(8, dtype=np.float32)
    samples = []
    for _ in range(count):
        shown, place = int(random.integers(4)), int(random.integers(5))
        regions = 0.3 * random.normal(size=(5, 8)).astype(np.float32)
        regions[place] = basis[shown]
        texts = np.stack([basis[4 + shown], basis[4 + (shown + 1) % 4]])
        about = np.zeros((2, 5), bool)
        about[:, place] = True
        boxes = [(20.0 * at, 0.0, 20.0 * at + 20, 20.0) for at in range(5)]
        samples.append(
            Sample(regions.mean(0), regions, place_features(boxes, (100, 20)), texts, np.array([True, False]), about)
        )
    return samples


def test_a_probe_learns_to_read_and_to_look_and_survives_being_stored(tmp_path: Any) -> None:
    probe = fit_probe(probe_samples(300, 0), ProbeSettings(width=16, epochs=30), {"made of": "toy vectors"})
    right = hit = 0
    tests = probe_samples(100, 1)
    for sample in tests:
        odds, attention = probe.read(sample.whole, sample.regions, sample.places, sample.texts)
        right += int(odds[0] > odds[1])
        hit += int(bool(sample.about[0, attention[0].argmax()]))
        assert attention.sum(1) == pytest.approx([1, 1], abs=1e-5)
    assert right >= 95
    assert hit >= 95
    save_probe(probe, tmp_path / "p.safetensors")
    stored = load_probe(tmp_path / "p.safetensors")
    assert stored.about == {"made of": "toy vectors"}
    one = tests[0]
    expected = probe.read(one.whole, one.regions, one.places, one.texts)[0]
    assert stored.read(one.whole, one.regions, one.places, one.texts)[0] == pytest.approx(expected, abs=0.05)


def test_place_features_are_shares_of_the_picture() -> None:
    features = place_features([(0.0, 0.0, 50.0, 20.0), (0.0, 0.0, 100.0, 20.0)], (100, 20))
    assert features == pytest.approx(np.array([[-0.5, 0, 0.25, 0, 0.5, 1], [0, 0, 0, 0, 1, 1]]))
