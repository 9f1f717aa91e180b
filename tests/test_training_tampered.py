"""Tampered faces: the same from the same seed, changed inside the mask alone, and encoded alike."""

from __future__ import annotations

import io
import json
from pathlib import Path
from random import Random

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from training.__main__ import main
from training.errors import DataError
from training.labelled import LabelledSet, write_parquet
from training.recipe import read_recipe
from training.tampered import KINDS, LABEL_NAMES, make_tampered, read_faces, tamper, write_tampered


def draw_face(seed: int, side: int = 96) -> np.ndarray:
    random = np.random.default_rng(seed)
    soft = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((side, side))
    return (np.asarray(soft, float) + random.normal(0, 12, (side, side, 3))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = []
    for seed in range(6):
        buffer = io.BytesIO()
        Image.fromarray(draw_face(seed)).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    path = tmp_path_factory.mktemp("faces") / "faces.parquet"
    write_parquet(LabelledSet(tuple(pictures), (1, 1, 0, 1, 1, 1), ("fake", "real"), ("",) * 6), path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_region_changes_and_the_mask_covers_it(kind: str):
    face, other = draw_face(1), draw_face(2)
    made = tamper(face, other, Random(5), kind)
    moved = np.abs(made.pixels.astype(int) - face).max(axis=2)
    rows, columns = np.nonzero(made.mask)
    far = np.ones_like(made.mask)  # beyond the soft edge
    far[max(rows.min() - 5, 0) : rows.max() + 6, max(columns.min() - 5, 0) : columns.max() + 6] = False
    assert made.kind == kind
    assert 0.05 < made.mask.mean() < 0.26
    assert not moved[far].any()
    assert (moved[made.mask] > 0).mean() > 0.8


def test_each_kind_leaves_its_own_trace():
    face, other = draw_face(1), draw_face(2)
    replaced = tamper(face, other, Random(5), "replaced")
    rows, columns = np.nonzero(replaced.mask)
    middle = round(rows.mean()), round(columns.mean())
    assert (replaced.pixels[middle] == other[middle]).all()
    recompressed = tamper(face, other, Random(5), "recompressed")
    whole = slice(rows.min() + 6, rows.max() - 5), slice(columns.min() + 6, columns.max() - 5)
    grain = [np.abs(np.diff(pixels[whole].astype(int), axis=1)).mean() for pixels in (recompressed.pixels, face)]
    assert grain[0] < 0.6 * grain[1]


def test_a_face_and_its_change_depend_on_seed_and_number_alone(faces: Path):
    known = read_faces([faces])
    assert len(known) == 5
    one, again, other = (make_tampered(known, seed, 2)[1] for seed in (1, 1, 2))
    assert (one.pixels == again.pixels).all() and not (one.mask == other.mask).all()
    with pytest.raises(DataError, match="no such face"):
        make_tampered(known, 1, 5)


def test_every_face_comes_twice_encoded_alike_with_its_mask(faces: Path, tmp_path: Path):
    summary = write_tampered([faces], tmp_path / "set", 5, seed=3, size=96)
    rows = pq.read_table(tmp_path / "set" / "tampered.parquet").to_pylist()
    assert [LABEL_NAMES[row["label"]] for row in rows] == ["tampered", "authentic"] * 5
    assert {row["kind"] for row in rows[1::2]} == {"authentic"}
    assert sum(summary["kinds"].values()) == 10 and summary["faces"] == 5
    tables = set()
    for changed, own in zip(rows[::2], rows[1::2], strict=True):
        assert changed["face"] == own["face"]
        pictures = [Image.open(io.BytesIO(row["image"]["bytes"])) for row in (changed, own)]
        tables |= {json.dumps(picture.quantization) for picture in pictures}
        masks = [np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"]))) for row in (changed, own)]
        assert masks[0].shape == (96, 96) and masks[0].max() == 1 and not masks[1].any()
    assert len(tables) == 1  # nothing in the file tells the two apart


def test_close_ups_are_cut_alike_around_the_region(faces: Path, tmp_path: Path):
    for close, name in ((False, "whole"), (True, "train")):
        write_tampered([faces], tmp_path, 3, seed=3, size=96, close=close, name=name)
    whole, near = (pq.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in ("whole", "train"))
    shares = []
    for changed, own in zip(near[::2], near[1::2], strict=True):
        pixels, plain, mask = (
            np.asarray(Image.open(io.BytesIO(one["bytes"])))
            for one in (changed["image"], own["image"], changed["mask"])
        )
        assert pixels.shape == plain.shape == (36, 36, 3)
        shares.append(mask.mean())
        assert (
            np.abs(pixels.astype(int) - plain)[mask > 0].mean() > np.abs(pixels.astype(int) - plain)[mask == 0].mean()
        )
    masks = [np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"]))) for row in whole[::2]]
    assert min(shares) > 0.3 and np.mean(shares) > 2 * np.mean([mask.mean() for mask in masks])


def test_what_cannot_be_made_is_said(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_tampered([faces], tmp_path / "set", 1, seed=3, size=64)
    with pytest.raises(DataError, match="holds a set already"):
        write_tampered([faces], tmp_path / "set", 1, seed=3)
    with pytest.raises(DataError, match="no kind"):
        tamper(draw_face(1), draw_face(2), Random(1), "painted")
    assert main(["tampered", str(faces), "--out", str(tmp_path / "more"), "--count", "9"]) == 2
    assert "must be 1 to 5" in capsys.readouterr().err
    assert main(["tampered", str(faces), "--out", str(tmp_path / "more"), "--count", "1", "--label", "none"]) == 2


def test_the_recipes_read_the_labels_of_the_set():
    for name in ("tampered-close", "tampered-resnet"):
        assert read_recipe(Path(f"training/recipes/{name}.yaml")).labels == LABEL_NAMES
