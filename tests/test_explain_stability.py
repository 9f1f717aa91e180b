"""Small changes of a picture: what they are, what became of answers and maps, and that it is kept and replayed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from explain.__main__ import main
from explain.examination import Settings, examine
from explain.replay import replay
from explain.schema import Heatmap, MapPart
from explain.stability import CHANGES, Stability, Variant, _likeness, change_picture
from explain.stability_asking import measure_stability
from models.imaging import read_image

RNG = np.random.default_rng(0)


def test_each_change_is_small_and_makes_a_new_picture():
    image = Image.fromarray(RNG.integers(0, 255, (40, 100, 3), dtype=np.uint8))
    kept = image.copy()
    sizes = {change: change_picture(image, change).size for change in CHANGES}
    assert sizes == {"jpeg": (100, 40), "halved": (50, 20), "blur": (100, 40), "crop": (90, 36)}
    assert image.tobytes() == kept.tobytes()
    assert all(change_picture(image, change).tobytes() != image.tobytes() for change in CHANGES)
    assert change_picture(Image.new("RGB", (1, 1)), "halved").size == (1, 1)


def test_flips_spread_and_lowest_correlation():
    found = Stability(
        "m",
        "fake",
        0.9,
        (Variant("jpeg", "fake", 0.8, {"gradcam": 0.9}), Variant("crop", "real", 0.3, {"gradcam": 0.2})),
    )
    assert found.flips == ("crop",)
    assert found.spread == pytest.approx(0.6)
    assert found.correlation("gradcam") == 0.2
    assert found.correlation("layercam") is None


def test_the_map_of_a_crop_is_held_against_the_middle_of_the_map():
    values = RNG.random((20, 20)).astype(np.float32)
    whole = Heatmap((MapPart(values, (0.0, 0.0, 20.0, 20.0)),), (20, 20), 0.0, 1.0, "gradcam", "t", "l", "m")
    middle = Heatmap(
        (MapPart(values[1:19, 1:19], (0.0, 0.0, 18.0, 18.0)),), (18, 18), 0.0, 1.0, "gradcam", "t", "l", "m"
    )
    assert _likeness(whole, middle, "crop") > 0.97
    assert _likeness(whole, middle, "jpeg") < 0.9
    assert _likeness(whole, whole, "jpeg") == pytest.approx(1)
    assert _likeness(whole, None, "jpeg") == 0


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(RNG.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)
    return path


def test_answers_and_maps_under_changes_are_those_of_the_changed_picture(tiny_loader, photo, tmp_path):
    settings = Settings("deepfake", ("tiny-resnet", "tiny-vit"), ("gradcam", "eigencam", "occlusion"), detector=None)
    examined = examine(read_image(photo), settings, tiny_loader)
    shares = []
    measured = measure_stability(examined, tiny_loader, shares.append)
    assert shares == [0, 0.25, 0.5, 0.75] * 2
    assert [one.model_id for one in measured.stability] == ["tiny-resnet", "tiny-vit"]
    for one in measured.stability:
        assert [variant.change for variant in one.variants] == list(CHANGES)
        for variant in one.variants:
            changed = change_picture(examined.source.rgb, variant.change)
            said = tiny_loader.load(one.model_id).predict([changed])[0]
            assert variant.label == said.label
            assert variant.probability == pytest.approx(said.probabilities[one.label], abs=1e-5)
            assert set(variant.correlations) == {"gradcam", "eigencam"} & {
                heatmap.method for heatmap in examined.heatmaps if heatmap.model_id == one.model_id
            }
    folder = measured.save(tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert "<h2>Stability</h2>" in (folder / "report.html").read_text("utf-8")
    outcomes = {one.item: one.outcome for one in replay(folder, tiny_loader)}
    assert outcomes["stability tiny-vit"] in ("equal", "within tolerance")
    manifest["stability"][1]["variants"][0]["probability"] += 0.1
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    outcomes = {one.item: one.outcome for one in replay(folder, tiny_loader)}
    assert outcomes["stability tiny-vit"] == "different"


def test_the_command_line_asks_again_when_told(tiny_zoo_file, photo, tmp_path, capsys):
    command = ["examine", str(photo), "--task", "deepfake", "--model", "tiny-resnet", "--method", "gradcam"]
    command += ["--detector", "none", "--zoo", str(tiny_zoo_file), "--out", str(tmp_path / "b"), "--stability"]
    assert main([*command, "--randomisation"]) == 0
    out = capsys.readouterr().out
    assert "stability of tiny-resnet: " in out
    assert "not calibrated" in out
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text("utf-8"))
    assert f"gradcam of tiny-resnet {manifest['randomisation'][0]['text']}" in out
    assert "<h2>With random weights</h2>" in (tmp_path / "b" / "report.html").read_text("utf-8")
    assert main(["replay", str(tmp_path / "b"), "--zoo", str(tiny_zoo_file)]) == 0
    assert ": randomisation tiny-resnet gradcam" in capsys.readouterr().out
