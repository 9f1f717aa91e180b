"""What the tests of the Verify tab share: a zoo of tiny models, uploads, and answers as the page keeps them."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest
import yaml
from PIL import Image

from models.loading import ModelLoader
from models.registry import load_zoo
from rag.schema import Claim, ClaimVerdict, measure_reliability
from tests.tiny_clips import build_clip
from tests.tiny_rag import write_corpus
from ui.progress import ProgressBoard
from ui.services import Services
from ui.verify_desk import EXTRACTIVE, Checked, Judges
from ui.verify_listeners import Verifying, Wish

EVIL = "<img src=x onerror=alert(1)>${evil}"
CLIP, OTHER_CLIP, LOST_CLIP, VLM = "tiny-clip", "tiny-siglip", "lost-clip", "tiny-vlm"


def open_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which Gradio keeps what visitors upload."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


def write_zoo(root: Path, vlm_folder: Path) -> Path:
    """Two image-text models and a vision-language model of tiny random weights, and one that cannot be had."""
    common = {"licence": "MIT", "size_mb": 1, "memory_mb": 1}
    clip = common | {"task": "photograph", "kind": "clip", "answers": {"a dog": "dog", "a car": "car"}}
    vlm = common | {"task": "deepfake", "kind": "vlm", "family": "paligemma", "answers": {"0": "fake", "1": "real"}}
    entries = [
        clip | {"id": CLIP, "name": "Tiny CLIP", "source": str(build_clip("clip", root / "clip"))},
        clip | {"id": OTHER_CLIP, "name": "Tiny SigLIP", "source": str(build_clip("siglip", root / "siglip"))},
        clip | {"id": LOST_CLIP, "name": "Lost CLIP", "source": str(root / "nowhere")},
        vlm | {"id": VLM, "name": "Tiny VLM", "source": str(vlm_folder), "question": "Is it?"},
    ]
    path = root / "zoo.yaml"
    path.write_text(yaml.safe_dump({"models": entries}), encoding="utf-8")
    return path


def make_services(zoo_file: Path) -> Services:
    board = ProgressBoard()
    loader = ModelLoader(load_zoo(zoo_file), offline=True, device="cpu", progress=board.tell)
    return Services(zoo=loader.zoo, loader=loader, examples=(), board=board)


def uploaded(folder: Path, name: str, data: bytes | Image.Image) -> dict[str, str]:
    path = folder / "abc" / name
    path.parent.mkdir(exist_ok=True)
    data.save(path) if isinstance(data, Image.Image) else path.write_bytes(data)
    return {"path": str(path), "orig_name": name}


def wish(**given) -> Wish:
    usual = {"picture": None, "question": "", "index": "", "answerer": EXTRACTIVE, "text": "", "domain": "photographs"}
    return Wish(**usual | {"clip": CLIP} | given)


def built_index(verifying: Verifying, folder: Path, clip: str = CLIP) -> Path:
    files = [
        {"path": str(path), "orig_name": path.name}
        for path in sorted(write_corpus(folder / "corpus").rglob("*"))
        if path.is_file()
    ]
    index: Path = list(verifying.build("en", files, Event(), clip))[-1]["own"]["value"]
    return index


def checked_region(photo: Image.Image, box: tuple[float, float, float, float] | None, **more) -> Checked:
    one = verdict("a red car", 0, 9, region_xyxy=box, signals={"whole": 0.1})
    given = {"size_wh": photo.size, "judges": Judges(CLIP)} | more
    return Checked(photo, text="a red car", verdicts=(one,), reliability=measure_reliability([one]), **given)


def verdict(text: str, start: int, end: int, name: str = "supported", **more) -> ClaimVerdict:
    return ClaimVerdict(Claim(text, start, end), name, 0.9, **more)  # type: ignore[arg-type]
