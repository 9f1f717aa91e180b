"""A small corpus, and encoders over a tiny image-text model that need no training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from models.clip_loading import load_clip
from models.schema import LoadState, ModelSpec, ModelStatus
from rag.embedding import Embedder
from rag.ranking import normalise_words
from tests.tiny_clips import build_clip


class WordHashes:
    """A sentence encoder without weights: texts that share words have similar vectors."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), 1024), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in normalise_words(text).split() or [""]:
                row[int(hashlib.sha256(word.encode()).hexdigest(), 16) % 1024] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_embedder(folder: Path, model_id: str = "tiny-clip") -> Embedder:
    """Encoders whose pictures differ by what they show, since random weights still tell colours apart."""
    spec = ModelSpec(
        id=model_id, name="Tiny", task="photograph", kind="clip", source="./tiny",
        answers={"a dog": "dog", "a car": "car"}, licence="-", size_mb=1, memory_mb=1,
    )  # fmt: skip
    status = ModelStatus(LoadState.BUNDLED, loaded_from=str(folder), weights_sha256="00")
    clip = load_clip(
        spec, build_clip("clip", folder / model_id), status, answers=spec.answers, device=torch.device("cpu")
    )
    return Embedder(clip, WordHashes(), "word hashes")


def striped(first: str, second: str) -> Image.Image:
    """A picture of 96 x 64 px, its left half of one colour, its right of another."""
    picture = Image.new("RGB", (96, 64), first)
    picture.paste(second, (48, 0, 96, 64))
    return picture


def write_corpus(root: Path) -> Path:
    """Three pictures, two of them captioned, a note and a page."""
    (root / "photos").mkdir(parents=True)
    striped("red", "white").save(root / "photos" / "car.png")
    (root / "photos" / "car.txt").write_text("A red car stands on a street.\n", encoding="utf-8")
    striped("green", "black").save(root / "photos" / "tree.png")
    (root / "photos" / "tree.txt").write_text("A green tree at night.\n", encoding="utf-8")
    striped("blue", "yellow").save(root / "photos" / "plain.png")
    (root / "note.md").write_text(
        "# Case 7\n\nThe red car belongs to Kowalski. It was seen on 12.05.2024.\n\n"
        "## Lab\n\nThe powder weighs 3.5 g.\n",
        encoding="utf-8",
    )
    (root / "page.html").write_text("<h1>Trees</h1><p>Oaks grow slowly.</p>", encoding="utf-8")
    return root
