"""What the bundled models state beside their weights, against their bars and against what they answer here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.registry import load_zoo, weights_folder
from training.answering import ask_labels
from training.labelled import read_labelled
from training.opening import open_model

ROOT = Path(__file__).parents[1]
FACES = ROOT.parent / "shared" / "data" / "deepfake_faces" / "validation.parquet"
needs_faces = pytest.mark.skipif(not FACES.exists(), reason="the shared deepfake faces are not on this machine")


@pytest.mark.parametrize(
    ("name", "bar"),
    [
        ("resnet-deepfake", 0.95),
        ("vit-deepfake", 0.88),
        ("paligemma-deepfake", 0.86),
    ],
)
def test_bundled_detectors_state_an_accuracy_above_the_bar(name: str, bar: float) -> None:
    folder = ROOT / "assets" / "bundled" / name
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures["training"]["finished"]
    assert figures["validation"]["accuracy"] >= bar
    assert figures["validation"]["pictures"] == 1200
    card = (folder / "README.md").read_text()
    for name_of_set in ("validation", "distorted", "generators"):
        # An interval in brackets may follow.
        assert (
            f"| {name_of_set} | {figures[name_of_set]['pictures']:,} | {figures[name_of_set]['accuracy']:.4f} " in card
        )
    assert "at chance on generators it never saw" in card


def test_the_bundled_base_is_near_chance_before_its_adapter() -> None:
    figures = json.loads((ROOT / "assets" / "bundled" / "paligemma" / "metrics.json").read_text())
    assert figures["validation"]["pictures"] == 1200
    assert 0.4 <= figures["validation"]["accuracy"] <= 0.6


def test_bundled_weights_stay_small() -> None:
    weights = list((ROOT / "assets" / "bundled").rglob("*.safetensors"))
    assert len(weights) >= 5
    assert sum(file.stat().st_size for file in weights) < 60e6


@needs_faces
@pytest.mark.parametrize("model", ["bundled-resnet", "bundled-vit", "bundled-paligemma-deepfake"])
def test_bundled_detectors_answer_as_their_figures_say(model: str) -> None:
    classifier = open_model(model)
    folder = weights_folder(load_zoo().get(model).source)
    assert folder is not None
    stated = json.loads((folder / "metrics.json").read_text())
    answered = ask_labels(classifier, read_labelled(FACES).select(range(200)))
    accuracy = float(np.mean([row.right for row in answered.rows]))
    # 200 of the 1,200 pictures: within three standard errors of the whole.
    expected = stated["validation"]["accuracy"]
    assert abs(accuracy - expected) < 3 * (expected * (1 - expected) / 200) ** 0.5
