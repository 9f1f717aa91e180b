"""What is stored for the bundled image-text model belongs to the weights that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.clip import ImageTextModel
from models.errors import ExhibitError
from models.loading import ModelLoader
from models.registry import load_zoo
from rag.clues import ClueLibrary, find_clue_calibration
from rag.fusion import CALIBRATIONS
from rag.signals import SIGNALS
from rag.verifier import DOMAINS, load_verifier

REMEDY = "the weights were replaced: run benchmarks.verifier_calibration, and benchmarks.clues --calibrate"


@pytest.fixture(scope="module")
def loader() -> ModelLoader:
    return ModelLoader(load_zoo(), offline=True, device="cpu")


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_bundled_model_is_calibrated_for_every_kind_of_pictures(loader: ModelLoader, domain: str) -> None:
    verifier = load_verifier(loader, domain=domain, detector=None)
    assert verifier.fusion is not None, REMEDY
    assert set(verifier.fusion.signals) <= set(SIGNALS)
    assert verifier.fusion.data
    assert 0 <= verifier.fusion.refuted_below < verifier.fusion.supported_from
    if verifier.fusion.probe:
        assert verifier.probe is not None
        assert verifier.probe.dims == verifier.clip.embed_texts(["a dog"]).shape[1]
        assert verifier.probe.about["clip_weights_sha256"] == verifier.clip.status.weights_sha256, REMEDY


def test_without_a_reader_the_page_says_what_to_install(
    loader: ModelLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install tesseract-ocr" in load_verifier(loader, domain="casework", detector=None).note
    photographs = load_verifier(loader, domain="photographs", detector=None)  # whose calibration weighs no text
    assert photographs.reader is None
    assert "tesseract" not in photographs.note


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"clip": "bundled-resnet"}, "no image-text model; choose one of kind clip"),
        ({"detector": "bundled-openclip"}, "no detector; choose one of kind detector"),
        ({"vlm": "bundled-openclip"}, "no vision-language model; choose one of kind vlm"),
        ({"domain": "moon"}, "photographs"),
    ],
)
def test_a_model_of_another_kind_is_refused(loader: ModelLoader, asked: dict[str, str], message: str) -> None:
    with pytest.raises(ExhibitError, match=message):
        load_verifier(loader, **{"detector": None} | asked)


def test_the_clues_are_calibrated_for_the_bundled_model(loader: ModelLoader) -> None:
    live = loader.load("bundled-openclip")
    assert isinstance(live, ImageTextModel)
    calibration = find_clue_calibration(live.status.weights_sha256)
    assert calibration is not None, REMEDY
    ClueLibrary(live, calibration)


def test_calibrations_are_small_and_hold_nothing_but_numbers_and_words() -> None:
    files = list(CALIBRATIONS.iterdir())
    assert {file.suffix for file in files} <= {".json", ".safetensors"}
    assert sum(file.stat().st_size for file in files) < 2_000_000
