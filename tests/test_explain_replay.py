"""A replay says of each item whether it is equal, within tolerance or different, and then what else is different."""

import json

import pytest
import yaml
from safetensors.torch import load_file, save_file

from explain.examination import Settings, examine
from explain.replay import replay
from models.imaging import read_image
from models.loading import ModelLoader
from models.registry import load_zoo
from tests.signed_pictures import picture, signed_picture

SETTINGS = Settings(task="deepfake", models=("tiny-resnet",), methods=("gradcam",), detector=None)


@pytest.fixture
def bundle(tiny_loader, tmp_path):
    return examine(read_image(picture(), "a.jpg"), SETTINGS, tiny_loader).save(tmp_path / "bundle")


def _change(bundle, change) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def _told(bundle, loader) -> dict[str, tuple[str, str]]:
    return {row.item: (row.outcome, row.detail) for row in replay(bundle, loader) if not row.item.startswith("file ")}


def test_same_weights_and_versions_are_equal(bundle, tiny_loader):
    told = _told(bundle, tiny_loader)
    assert {"verdict", "prediction tiny-resnet", "heatmap tiny-resnet gradcam"} <= set(told)
    assert {outcome for outcome, _ in told.values()} == {"equal"}


def test_small_difference_is_within_tolerance(bundle, tiny_loader):
    def change(manifest):
        shares = manifest["predictions"][0]["probabilities"]
        shares["fake"], shares["real"] = shares["fake"] + 5e-4, shares["real"] - 5e-4

    _change(bundle, change)
    outcome, detail = _told(bundle, tiny_loader)["prediction tiny-resnet"]
    assert outcome == "within tolerance"
    assert "5.0e-04" in detail


def test_content_credentials_are_kept_shown_and_compared(tiny_loader, tmp_path, bundle):
    signed = examine(read_image(signed_picture(), "s.jpg"), SETTINGS, tiny_loader).save(tmp_path / "signed")
    told = json.loads((signed / "manifest.json").read_text())["image"]["credentials"]
    assert (told["signature"], told["issuer"], told["ai_generated"]) == ("valid", "Exhibit Test", True)
    report = (signed / "report.html").read_text()
    assert "valid: signed, and neither" in report
    assert "Exhibit Test" in report
    assert "yes, wholly or in part" in report
    assert "carries no content credentials" in (bundle / "report.html").read_text()
    assert _told(signed, tiny_loader)["content credentials"] == ("equal", "")
    assert _told(bundle, tiny_loader)["content credentials"] == ("equal", "")
    _change(signed, lambda manifest: manifest["image"]["credentials"].update(issuer="Somebody <b>"))
    outcome, detail = _told(signed, tiny_loader)["content credentials"]
    assert outcome == "different"
    assert "issuer 'Somebody <b>' then, 'Exhibit Test' now" in detail
    _change(signed, lambda manifest: manifest["image"].update(credentials=None))
    assert _told(signed, tiny_loader)["content credentials"] == ("different", "none then, some now")


def test_bundle_of_an_earlier_schema_still_replays(bundle, tiny_loader):
    def change(manifest):
        manifest["schema_version"] = 4
        del manifest["image"]["credentials"], manifest["claims"]

    _change(bundle, change)
    told = _told(bundle, tiny_loader)
    assert "content credentials" not in told
    assert {outcome for outcome, _ in told.values()} == {"equal"}


def test_other_version_is_named_beside_what_differs(bundle, tiny_loader):
    def change(manifest):
        manifest["versions"]["torch"] = "0.1"
        manifest["verdict"]["probabilities"] = {"fake": 0.2, "real": 0.8}
        manifest["verdict"]["label"] = "nothing"

    _change(bundle, change)
    told = _told(bundle, tiny_loader)
    assert told["verdict"][0] == "different"
    assert "torch 0.1 then" in told["verdict"][1]
    assert told["heatmap tiny-resnet gradcam"][0] == "equal"  # another version alone changes nothing


def test_other_weights_are_named_beside_every_item_that_differs(bundle, tiny_folders, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    for file in tiny_folders["resnet"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    noisy = {name: tensor * 1.5 if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    save_file(noisy, folder / "model.safetensors", {"format": "pt"})
    entry = {"id": "tiny-resnet", "name": "Other", "task": "deepfake", "kind": "classifier", "source": str(folder)}
    zoo = tmp_path / "zoo.yaml"
    zoo.write_text(yaml.safe_dump({"models": [entry | {"licence": "x", "size_mb": 1, "memory_mb": 10}]}))
    told = _told(bundle, ModelLoader(load_zoo(zoo), offline=True))
    assert told["prediction tiny-resnet"][0] == "different"
    assert "other weights" in told["prediction tiny-resnet"][1]
    outcome, detail = told["heatmap tiny-resnet gradcam"]
    assert outcome == "different"
    assert "weights of tiny-resnet" in detail
