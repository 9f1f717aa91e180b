"""Examinations with a vision-language model: asked as wished, compared with its base, kept, reported and replayed."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml
from PIL import Image

from explain.__main__ import main
from explain.bundle import SCHEMA_VERSION
from explain.examination import Settings, examine
from explain.replay import replay
from explain.targets import same_margin
from models.errors import BundleError, ExhibitError
from models.imaging import read_image
from models.loading import ModelLoader
from models.registry import load_zoo
from tests.tiny_adapters import build_adapter

QUESTION = "Is this image made by AI?"
TUNED = Settings("deepfake", ("tiny-tuned",), ("layercam", "gradcam", "eigencam"), detector=None)
COMPARED = replace(TUNED, compare_base=True)


def picture():
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return read_image(buffer.getvalue(), "photo.png")


@pytest.fixture(scope="module")
def zoo_file(tiny_vlm, tiny_folders, tmp_path_factory):
    """A tiny PaliGemma with an adapter, the same without, and a classifier."""
    root = tmp_path_factory.mktemp("asked")
    base = tiny_vlm("paligemma")
    adapter = build_adapter("paligemma", base, root / "adapter")
    common = {"task": "deepfake", "licence": "MIT", "size_mb": 1, "memory_mb": 10}
    asked = {
        "kind": "vlm",
        "family": "paligemma",
        "question": QUESTION,
        "answers": {"0": "fake", "1": "real"},
        "hint": "Fakes have odd shadows.",
    }
    entries = [
        {"id": "tiny-tuned", "name": "Tuned", "source": str(adapter), "base": str(base), **asked, **common},
        {"id": "tiny-whole", "name": "Whole", "source": str(base), **asked, **common},
        {"id": "tiny-vit", "name": "ViT", "source": str(tiny_folders["vit"]), "kind": "classifier", **common},
    ]
    path = root / "zoo.yaml"
    path.write_text(yaml.safe_dump({"models": entries}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def loader(zoo_file):
    return ModelLoader(load_zoo(zoo_file), offline=True)


def test_a_detector_and_a_vision_language_model_stand_side_by_side(loader):
    found = examine(picture(), replace(TUNED, models=("tiny-vit", "tiny-tuned")), loader)
    assert [prediction.question for prediction in found.predictions] == [None, QUESTION]
    assert found.verdict is not None
    assert {heatmap.model_id for heatmap in found.heatmaps} == {"tiny-vit", "tiny-tuned"}
    assert {heatmap.image_sha256 for heatmap in found.heatmaps} == {found.source.sha256}
    assert [words.model_id for words in found.words] == ["tiny-tuned"]
    assert found.heatmap("tiny-tuned", "layercam").target == same_margin(found.predictions[1]).name
    assert found.heatmap("tiny-vit", "layercam").target == f"logit:{found.predictions[0].label}"
    assert (found.base_predictions, found.differences) == ((), ())


def test_question_and_style_are_asked_and_kept(loader):
    asked = replace(TUNED, question="Real or fake?", style="informed")
    found = examine(picture(), asked, loader)
    (prediction,) = found.predictions
    assert (prediction.question, prediction.style) == ("Fakes have odd shadows. Real or fake?", "informed")
    assert found.words[0].question == prediction.question
    (how,) = found.asked
    assert (how.question, how.style, how.precision) == ("Real or fake?", "informed", "fp32")
    assert re.fullmatch("[0-9a-f]{64}", how.adapter_sha256)
    plain = examine(picture(), TUNED, loader).predictions[0]
    assert plain.probabilities != prediction.probabilities


def test_a_label_asked_for_is_explained_by_its_margin(loader):
    for label, name in [("fake", "margin:fake-real"), ("real", "margin:real-fake")]:
        found = examine(picture(), replace(COMPARED, target=label), loader)
        assert {heatmap.target for heatmap in found.heatmaps if heatmap.method != "eigencam"} <= {name}
        assert {words.target for words in found.words} == {name}


def test_the_tower_is_looked_into_unless_another_part_is_wished_for(loader):
    live = loader.load("tiny-tuned")
    stages = {}
    for layer in (None, "tower", "projector", "language"):
        found = examine(picture(), replace(TUNED, layer=layer), loader)
        (name,) = {heatmap.layer for heatmap in found.heatmaps}
        stages[layer] = live.core.family.stage(live.module, name)
    assert stages == {None: "tower", "tower": "tower", "projector": "projector", "language": "language"}


def test_fine_tuned_and_base_are_explained_alike_and_subtracted(loader):
    found = examine(picture(), COMPARED, loader)
    (tuned,), (base,) = found.predictions, found.base_predictions
    assert (tuned.model_id, base.model_id) == ("tiny-tuned", "tiny-tuned@base")
    assert tuned.probabilities != base.probabilities
    assert base.probabilities == pytest.approx(loader.load("tiny-whole").predict([picture().rgb])[0].probabilities)
    assert found.verdict.weights == {"tiny-tuned": 1.0}
    assert found.verdict.probabilities == pytest.approx(tuned.probabilities)
    assert [asked.adapter_sha256 == "" for asked in found.asked] == [False, True]
    assert {words.target for words in found.words} == {same_margin(tuned).name}
    assert found.differences
    for difference in found.differences:
        ours = found.heatmap("tiny-tuned", difference.tuned.method)
        theirs = found.heatmap("tiny-tuned@base", difference.tuned.method)
        assert (difference.tuned, difference.base) == (ours, theirs)
        assert found.difference("tiny-tuned", ours.method) is difference
        assert np.abs(difference.values).max() <= 1
    # The tower has no adapter here, so a map that asks nothing is the same with and without it.
    assert not found.difference("tiny-tuned", "eigencam").values.any()
    assert found.difference("tiny-tuned", "layercam").values.any()
    assert found.difference("tiny-tuned", "hirescam") is None


def test_a_base_can_be_examined_for_itself(loader):
    found = examine(picture(), replace(TUNED, models=("tiny-tuned@base",)), loader)
    whole = loader.load("tiny-whole").predict([picture().rgb])[0]
    assert found.predictions[0].model_id == "tiny-tuned@base"
    assert found.predictions[0].probabilities == pytest.approx(whole.probabilities)


def test_a_model_without_a_base_is_a_problem_and_its_own_results_stay(loader):
    found = examine(picture(), replace(COMPARED, models=("tiny-whole", "tiny-vit")), loader)
    assert [prediction.model_id for prediction in found.predictions] == ["tiny-whole", "tiny-vit"]
    assert found.base_predictions == ()
    (problem,) = [problem for problem in found.problems if problem.subject.startswith("tiny-whole@base")]
    assert "has no base" in problem.message


def test_without_methods_the_words_are_scored_all_the_same(loader):
    found = examine(picture(), replace(TUNED, methods=()), loader)
    assert found.heatmaps == ()
    assert [len(words.words) for words in found.words] == [6]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"models": ("tiny-tuned@base",), "compare_base": True}, "examined with tiny-tuned when bases are compared"),
        ({"style": "rude"}, "no prompt style is called 'rude'"),
        ({"layer": "cellar"}, "no layer 'cellar'; choose one of tower, projector, language"),
        ({"precision": "fp8"}, "no precision 'fp8'; choose one of auto, fp32"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_before_anything_runs(loader, change, words):
    with pytest.raises(ExhibitError, match=words):
        examine(picture(), replace(TUNED, **change), loader)


def test_a_bundle_holds_words_and_differences_and_replays_equal(loader, tmp_path):
    settings = replace(COMPARED, question="Is it <b>real</b> & true?", style="informed", precision="fp32")
    found = examine(picture(), settings, loader)
    folder = found.save(tmp_path / "b")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["schema_version"] == SCHEMA_VERSION
    assert manifest["settings"]["question"] == settings.question
    assert [one["adapter_sha256"] for one in manifest["asked"]] == [found.asked[0].adapter_sha256, ""]
    assert [one["precision"] for one in manifest["asked"]] == ["fp32", "fp32"]
    assert manifest["predictions"][0]["style"] == "informed"
    assert manifest["base_predictions"][0]["model_id"] == "tiny-tuned@base"
    assert len(manifest["differences"]) == len(found.differences)
    for entry in manifest["differences"]:
        assert Image.open(folder / entry["overlay"]).size == (60, 40)
    for entry in manifest["words"]:
        for word in entry["words"]:
            assert entry["question"][slice(*word["span"])] == word["text"]
    compared = replay(folder, loader)
    assert {row.outcome for row in compared} == {"equal"}
    assert {"words tiny-tuned", "words tiny-tuned@base", "prediction tiny-tuned@base"} <= {row.item for row in compared}


def test_the_report_shows_words_and_differences_and_escapes_the_question(loader, tmp_path):
    found = examine(picture(), replace(COMPARED, question="Is it <b>real</b> & true?"), loader)
    text = (found.save(tmp_path / "b") / "report.html").read_text()
    assert "<b>" not in text
    assert "What fine-tuning changed" in text
    assert "tiny-tuned minus tiny-tuned@base" in text
    marked = re.findall(r'<span style="background:#[0-9a-f]{6}" title="[^"]+">([^<]+)</span>', text)
    assert "real" in marked
    assert not re.search(r"(src|href)=\"(?!data:)", text)


def test_a_replay_says_that_words_changed(loader, tmp_path):
    folder = examine(picture(), TUNED, loader).save(tmp_path / "b")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["words"][0]["words"][0]["score"] += 1
    manifest["asked"][0]["precision"] = "bf16"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (row,) = [row for row in replay(folder, loader) if row.outcome == "different"]
    assert row.item == "words tiny-tuned"
    assert "precision of tiny-tuned bf16 then, fp32 now" in row.detail


def test_a_bundle_of_the_first_schema_still_replays_and_unknown_settings_are_refused(loader, tmp_path):
    folder = examine(picture(), replace(TUNED, models=("tiny-vit",)), loader).save(tmp_path / "b")
    manifest = json.loads((folder / "manifest.json").read_text())
    old = {**manifest, "schema_version": 1}
    for name in ("base_predictions", "differences", "words", "asked"):
        del old[name]
    old["settings"] = {key: manifest["settings"][key] for key in ("task", "models", "methods", "target", "detector")}
    for prediction in old["predictions"]:
        del prediction["question"], prediction["style"]
    (folder / "manifest.json").write_text(json.dumps(old))
    assert {row.outcome for row in replay(folder, loader)} == {"equal"}
    for broken, words in [
        ({**manifest, "schema_version": SCHEMA_VERSION + 1}, f"has schema {SCHEMA_VERSION + 1}"),
        ({**manifest, "settings": {**manifest["settings"], "mood": "good"}}, r"does not know \(mood\)"),
        ({**manifest, "settings": {}}, "no task or no models"),
    ]:
        (folder / "manifest.json").write_text(json.dumps(broken))
        with pytest.raises(BundleError, match=words):
            replay(folder, loader)


def test_the_command_line_asks_and_compares(zoo_file, tmp_path, capsys):
    image = tmp_path / "photo.png"
    image.write_bytes(picture().original)
    options = ["--task", "deepfake", "--model", "tiny-tuned", "--method", "layercam", "--detector", "none"]
    asked = ["--question", "Real or fake?", "--style", "plain", "--layer", "projector", "--compare-base"]
    end = ["--out", str(tmp_path / "b"), "--zoo", str(zoo_file)]
    assert main(["examine", str(image), *options, *asked, *end]) == 0
    shown = capsys.readouterr().out
    assert "tiny-tuned@base: " in shown
    assert "words of tiny-tuned, margin:" in shown
    assert main(["replay", str(tmp_path / "b"), "--zoo", str(zoo_file)]) == 0
    wrong = ["--out", str(tmp_path / "c"), "--zoo", str(zoo_file), "--style", "rude"]
    assert main(["examine", str(image), *options, *wrong]) == 2
    assert "known are: plain, informed, captioned" in capsys.readouterr().err
