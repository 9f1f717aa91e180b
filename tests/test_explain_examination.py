"""One image, the whole story: order of results, lost models, bundle, replay, command line."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explain.__main__ import main
from explain.bundle import read_parts
from explain.examination import Settings, examine, examine_steps
from explain.replay import replay
from models.errors import BundleError, ExhibitError
from models.imaging import read_image

METHODS = ("gradcampp", "layercam", "eigencam")
BOTH = Settings("deepfake", ("tiny-resnet", "tiny-vit"), METHODS, detector=None)


def picture(name: str = "photo.png", seed: int = 0, size_wh=(60, 40)):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return read_image(buffer.getvalue(), name)


def test_results_arrive_before_the_last_one_is_ready(tiny_loader):
    states = list(examine_steps(picture(), BOTH, tiny_loader))
    assert [len(state.predictions) for state in states] == [0, 1, 2]
    assert [state.complete for state in states] == [False, False, True]
    assert states[1].verdict is not None
    assert [state.done for state in states] == sorted(state.done for state in states)


def test_maps_are_of_each_models_own_answer_unless_a_label_is_asked_for(tiny_loader):
    own = examine(picture(), BOTH, tiny_loader)
    for prediction in own.predictions:
        heatmap = own.heatmap(prediction.model_id, "layercam")
        if heatmap is not None:
            assert heatmap.target == f"logit:{prediction.label}"
    asked = examine(picture(), replace(BOTH, target="real"), tiny_loader)
    targets = {h.target for h in asked.heatmaps if h.method != "eigencam"}
    assert targets == {"logit:real"}


def test_maps_have_the_size_of_the_picture_and_the_range_of_the_contract(tiny_loader):
    found = examine(picture(), BOTH, tiny_loader)
    assert found.heatmaps
    for heatmap in found.heatmaps:
        values = heatmap.values
        assert values.shape == (40, 60)
        assert values.dtype == np.float32
        assert values.min() >= 0
        assert values.max() <= 1


def test_one_pass_per_model_gives_prediction_and_all_maps(tiny_loader):
    live = tiny_loader.load("tiny-resnet")
    assert live.target_layer  # found by tracing one pass, once per model
    passes = []
    handle = live.module.register_forward_hook(lambda *_: passes.append(1))
    try:
        found = examine(picture(), replace(BOTH, models=("tiny-resnet",)), tiny_loader)
    finally:
        handle.remove()
    assert len(passes) == 1
    assert found.predictions
    assert found.predictions[0].probabilities == pytest.approx(live.predict([picture().rgb])[0].probabilities)


def test_a_model_that_cannot_answer_does_not_lose_the_others(tiny_loader):
    lost = next(spec for spec in tiny_loader.zoo.specs.values() if spec.access == "private")
    assert lost.fallback is None
    settings = replace(BOTH, task=lost.task, models=(lost.id,))
    found = examine(picture(), settings, tiny_loader)
    assert found.complete
    assert (found.predictions, found.verdict) == ((), None)
    assert found.problems[0].subject == lost.id


def test_without_methods_there_is_still_a_verdict(tiny_loader):
    found = examine(picture(), replace(BOTH, methods=()), tiny_loader)
    assert len(found.predictions) == 2
    assert (found.heatmaps, found.problems) == ((), ())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"models": ()}, "no model"),
        ({"models": ("nobody",)}, "nobody"),
        ({"methods": ("magic",)}, "magic"),
        ({"task": "weather"}, "weather"),
        ({"detector": "tiny-vit"}, "not a detector"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_before_anything_runs(tiny_loader, change, words):
    with pytest.raises(ExhibitError, match=words):
        next(examine_steps(picture(), replace(BOTH, **change), tiny_loader))


def test_an_unknown_target_is_a_problem_that_lists_the_labels(tiny_loader):
    found = examine(picture(), replace(BOTH, target="banana"), tiny_loader)
    assert "fake, real" in found.problems[0].message


def test_bundle_holds_everything_and_replays_equal(tiny_loader, tmp_path):
    found = examine(picture("a <b>&.png"), BOTH, tiny_loader)
    folder = found.save(tmp_path / "case" / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (folder / manifest["image"]["original"]).read_bytes() == found.source.original
    assert manifest["image"]["sha256"] == found.source.sha256
    assert {p["model_id"] for p in manifest["predictions"]} == {"tiny-resnet", "tiny-vit"}
    assert all(re.fullmatch(r"[0-9a-f]{64}", p["status"]["weights_sha256"]) for p in manifest["predictions"])
    for entry, heatmap in zip(manifest["heatmaps"], found.heatmaps, strict=True):
        assert (folder / entry["overlay"]).exists()
        assert np.array_equal(read_parts(folder / entry["array"])[0].cam, heatmap.parts[0].cam)
    assert {row.outcome for row in replay(folder, tiny_loader)} == {"equal"}
    assert not [path for path in (tmp_path / "case").iterdir() if path.name.startswith(".")]


def test_report_is_self_contained_and_escapes_what_strangers_wrote(tiny_loader, tmp_path):
    found = examine(picture("<script>alert(1)</script>.png"), BOTH, tiny_loader)
    text = (found.save(tmp_path / "b") / "report.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)


def test_replay_tells_what_changed(tiny_loader, tmp_path):
    folder = examine(picture(), BOTH, tiny_loader).save(tmp_path / "b")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["predictions"][0]["probabilities"] = {"fake": 0.999, "real": 0.001}
    manifest["predictions"][0]["status"]["weights_sha256"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "picture.png").write_bytes(b"changed")
    different = {row.item: row.detail for row in replay(folder, tiny_loader) if row.outcome == "different"}
    assert "changed after" in different["file picture.png"]
    assert "other weights" in different["prediction tiny-resnet"]
    assert set(different) == {"file picture.png", "prediction tiny-resnet"}


def test_without_the_original_the_replay_asks_for_it(tiny_loader, tmp_path):
    found = examine(picture(), BOTH, tiny_loader)
    folder = found.save(tmp_path / "b", include_original=False)
    assert not list(folder.glob("original*"))
    with pytest.raises(BundleError, match="--image"):
        replay(folder, tiny_loader)
    (tmp_path / "same.png").write_bytes(found.source.original)
    assert {row.outcome for row in replay(folder, tiny_loader, tmp_path / "same.png")} == {"equal"}
    (tmp_path / "other.png").write_bytes(picture(seed=1).original)
    with pytest.raises(BundleError, match="not the image"):
        replay(folder, tiny_loader, tmp_path / "other.png")


def test_evidence_is_never_overwritten_and_never_half_written(tiny_loader, tmp_path, monkeypatch):
    found = examine(picture(), BOTH, tiny_loader)
    (tmp_path / "there").mkdir()
    with pytest.raises(BundleError, match="never overwritten"):
        found.save(tmp_path / "there")
    with pytest.raises(BundleError, match="not finished"):
        replace(found, done=0.5).save(tmp_path / "early")

    def full_disk(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("explain.bundle.write_report", full_disk)
    with pytest.raises(BundleError, match="No space left"):
        found.save(tmp_path / "full")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]


def test_a_manifest_cannot_point_outside_its_bundle(tiny_loader, tmp_path):
    folder = examine(picture(), BOTH, tiny_loader).save(tmp_path / "b")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["image"]["original"] = "../../etc/passwd"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="outside the bundle"):
        replay(folder, tiny_loader)


def test_command_line_examines_and_replays(tiny_zoo_file, tmp_path, capsys):
    image = tmp_path / "photo.png"
    image.write_bytes(picture().original)
    options = ["--task", "deepfake", "--model", "tiny-resnet", "--method", "layercam", "--detector", "none"]
    zoo = ["--zoo", str(tiny_zoo_file)]
    assert main(["examine", str(image), *options, "--out", str(tmp_path / "b"), "--json", *zoo]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["predictions"][0]["model_id"] == "tiny-resnet"
    assert main(["replay", answer["bundle"], *zoo]) == 0
    assert "equal: heatmap tiny-resnet layercam" in capsys.readouterr().out


def test_command_line_answers_bad_input_with_one_line(tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("not a picture")
    assert main(["examine", str(tmp_path / "text.jpg"), "--task", "deepfake", "--out", str(tmp_path / "b")]) == 2
    assert main(["replay", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    assert "not an image" in lines[0]
    assert "no evidence bundle" in lines[1]
    assert not Path(tmp_path / "b").exists()
