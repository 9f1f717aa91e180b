"""A cosine beside what picture and claim have with strangers: by hand, stored, and as a signal of the verifier."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import ExhibitError
from rag.looks import look_at
from rag.strangers import NEAREST, Strangers, load_strangers, save_strangers
from rag.verifier import Verifier
from tests.colour_clip import ColourClip, halves


def test_what_each_has_with_its_nearest_is_taken_off_by_half() -> None:
    x, y = np.eye(2, dtype=np.float32)
    # As many strangers as count on each side, so their mean is that of all.
    pictures = np.stack([x] * NEAREST)
    captions = np.stack([y] * (NEAREST // 2) + [x] * (NEAREST // 2))
    found = Strangers(pictures, captions).beside(x, np.stack([x, y]))
    # The picture x has 0.5 with captions on average; claim x has 1 with pictures, claim y has 0.
    assert found == pytest.approx([1 - (0.5 + 1) / 2, 0 - (0.5 + 0) / 2])


def test_only_the_nearest_count() -> None:
    x, y = np.eye(2, dtype=np.float32)
    many = np.stack([x] * NEAREST + [y] * 50)
    assert Strangers(many, many).beside(x, x[None]) == pytest.approx([0.0])


def test_stored_ones_come_back_in_half_precision(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kept = Strangers(*(rng.normal(size=(count, 4)).astype(np.float32) for count in (3, 5)))
    save_strangers(kept, tmp_path / "s.safetensors")
    read = load_strangers(tmp_path / "s.safetensors")
    assert read.pictures.dtype == np.float32
    assert read.captions == pytest.approx(kept.captions, abs=2e-3)


def test_a_file_of_something_else_is_said(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    (tmp_path / "torn").write_bytes(b"no")
    save_file({"pictures": np.zeros((2, 3), np.float32), "captions": np.zeros((2, 4), np.float32)}, tmp_path / "odd")
    for name in ("missing", "torn", "odd"):
        with pytest.raises(ExhibitError, match="cannot be read as strangers' vectors"):
            load_strangers(tmp_path / name)


def test_it_is_a_signal_where_there_are_strangers_and_absent_elsewhere() -> None:
    clip: Any = ColourClip()
    look = look_at(halves("red", "red"), clip)
    grey = clip.embed_texts(["a thing"])
    strangers = Strangers(np.repeat(grey, NEAREST, 0), np.repeat(grey, NEAREST, 0))
    (alone,) = Verifier(clip).measure(look, ["A red thing."])
    (beside,) = Verifier(clip, strangers=strangers).measure(look, ["A red thing."])
    assert "strangers" not in alone.values
    claim = clip.embed_texts(["A red thing."])[0]
    wanted = claim @ look.whole - (look.whole @ grey[0] + claim @ grey[0]) / 2
    assert beside.values["strangers"] == pytest.approx(float(wanted), abs=1e-6)
