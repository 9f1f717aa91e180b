"""Faithfulness within an examination: measured afterwards, kept in the bundle, and replayed."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from explain.__main__ import main
from explain.examination import Settings, examine, measure_faithfulness
from explain.faithfulness import FaithfulnessMeter
from explain.faithfulness_schema import FaithfulnessSettings
from explain.replay import replay
from models.errors import BundleError
from models.imaging import read_image

QUICK = FaithfulnessSettings(steps=3, random=3, badge_steps=2, road_fractions=(0.5,))


@pytest.fixture
def loader(tiny_loader):
    return tiny_loader


@pytest.fixture
def examined(loader):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    settings = Settings("deepfake", ("tiny-resnet", "tiny-vit"), ("gradcam", "eigencam"), detector=None)
    return examine(read_image(buffer.getvalue(), "photo.png"), settings, loader)


def test_every_map_gets_its_figures_after_it_is_shown(examined, loader):
    assert examined.faithfulness == ()
    meter = FaithfulnessMeter()
    measured = measure_faithfulness(examined, loader, meter, QUICK)
    named = [(heatmap.model_id, heatmap.method) for heatmap in examined.heatmaps]
    assert [(one.model_id, one.method) for one in measured.faithfulness] == named
    assert measured.heatmaps == examined.heatmaps
    for one in measured.faithfulness:
        prediction = next(p for p in measured.predictions if p.model_id == one.model_id)
        # The class-blind map has no target of its own and is measured by what the others explain.
        assert one.score == pytest.approx(prediction.probabilities[prediction.label], abs=1e-5)
        assert one.badge.class_blind == (one.method == "eigencam")
    again = measure_faithfulness(examined, loader, meter, QUICK)
    assert all(a is b for a, b in zip(again.faithfulness, measured.faithfulness, strict=True))


def test_a_bundle_keeps_the_figures_and_replays_them(examined, loader, tmp_path):
    measured = measure_faithfulness(examined, loader, FaithfulnessMeter(), QUICK)
    folder = measured.save(tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    kept = manifest["faithfulness"][0]
    assert kept["figures"]["insertion"] == pytest.approx(measured.faithfulness[0].insertion.auc)
    assert kept["badge"]["text"] == measured.faithfulness[0].badge.text
    assert kept["settings"]["road_fractions"] == [0.5]
    report = (folder / "report.html").read_text("utf-8")
    assert "How far to believe the heatmaps" in report
    assert all(one.badge.text in report for one in measured.faithfulness)
    assert f"{measured.faithfulness[0].insertion.auc:.3f}" in report
    outcomes = {one.item: one.outcome for one in replay(folder, loader)}
    assert outcomes["faithfulness tiny-resnet gradcam"] in ("equal", "within tolerance")
    assert len([item for item in outcomes if item.startswith("faithfulness")]) == len(measured.faithfulness)
    # A figure that was changed by hand does not come out again.
    kept["figures"]["insertion"] += 0.01
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    outcomes = {one.item: one.outcome for one in replay(folder, loader)}
    assert outcomes["faithfulness tiny-resnet gradcam"] == "different"
    kept["settings"]["charm"] = 1
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(BundleError, match="does not know"):
        replay(folder, loader)


def test_a_bundle_without_figures_replays_as_before(examined, loader, tmp_path):
    folder = examined.save(tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert manifest["faithfulness"] == []
    old = {key: value for key, value in manifest.items() if key != "faithfulness"} | {"schema_version": 2}
    (folder / "manifest.json").write_text(json.dumps(old), "utf-8")
    assert "How far to believe" not in (folder / "report.html").read_text("utf-8")
    compared = replay(folder, loader)
    assert compared
    assert not [one for one in compared if one.item.startswith("faithfulness")]


def test_the_command_line_measures_when_asked(tiny_zoo_file, examined, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    photo.write_bytes(examined.source.original)
    command = ["examine", str(photo), "--task", "deepfake", "--model", "tiny-resnet", "--method", "gradcam"]
    command += ["--detector", "none", "--zoo", str(tiny_zoo_file), "--out", str(tmp_path / "b"), "--faithfulness"]
    assert main(command) == 0
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text("utf-8"))
    assert f"gradcam of tiny-resnet: {manifest['faithfulness'][0]['badge']['text']}" in capsys.readouterr().out
