"""Labelled sets in their three forms, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from training.errors import DataError
from training.labelled import LabelledSet, read_labelled, write_parquet


def _save_picture(path: Path, shade: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (shade, shade, shade)).save(path)
    return path


def _write_table(path: Path, **columns: list[object]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_keeps_bytes_names_and_text_columns(tmp_path: Path) -> None:
    written = LabelledSet((b"one", b"two"), (1, 0), ("fake", "real"), ("a", "b"), {"generator": ("camera", "sd")})
    write_parquet(written, tmp_path / "set.parquet")
    read = read_labelled(tmp_path / "set.parquet")
    assert read.pictures == (b"one", b"two")
    assert (read.labels, read.names, read.extras) == ((1, 0), ("fake", "real"), {"generator": ("camera", "sd")})


def test_written_parquet_opens_in_the_datasets_library(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    picture = _save_picture(tmp_path / "a.png", 7).read_bytes()
    write_parquet(LabelledSet((picture,), (1,), ("fake", "real"), ("a",)), tmp_path / "set.parquet")
    loaded = datasets.Dataset.from_parquet(str(tmp_path / "set.parquet"), cache_dir=str(tmp_path / "cache"))
    assert loaded.features["label"].names == ["fake", "real"]
    assert loaded[0]["image"].getpixel((0, 0)) == (7, 7, 7)


def test_numbers_without_names_are_fake_and_real_unless_named(tmp_path: Path) -> None:
    path = _write_table(tmp_path / "set.parquet", image=[b"x", b"y"], label=[0, 1])
    assert read_labelled(path).names == ("fake", "real")
    assert read_labelled(path, ("cat", "dog")).names == ("cat", "dog")


def test_a_number_beyond_the_names_is_refused(tmp_path: Path) -> None:
    path = _write_table(tmp_path / "set.parquet", image=[b"x"], label=[2])
    with pytest.raises(DataError, match="label 2 has no name"):
        read_labelled(path)


def test_folder_per_class_names_labels_by_folder(tmp_path: Path) -> None:
    for name in ("real/b.png", "fake/a.png", "fake/deeper/c.jpg"):
        _save_picture(tmp_path / name)
    (tmp_path / "fake" / "notes.txt").write_text("not a picture")
    read = read_labelled(tmp_path)
    assert read.names == ("fake", "real")
    assert [(Path(str(p)).name, read.names[label]) for p, label in zip(read.pictures, read.labels, strict=True)] == [
        ("a.png", "fake"),
        ("c.jpg", "fake"),
        ("b.png", "real"),
    ]


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_lists_give_paths_relative_to_themselves(tmp_path: Path, kind: str) -> None:
    picture = _save_picture(tmp_path / "pictures" / "a.png")
    rows = [{"path": "pictures/a.png", "label": "real"}, {"path": "pictures/a.png", "label": "fake"}]
    text = {
        "csv": "path,label\n" + "\n".join(f"{row['path']},{row['label']}" for row in rows),
        "json": json.dumps(rows),
        "jsonl": "\n".join(json.dumps(row) for row in rows),
    }[kind]
    (tmp_path / f"list.{kind}").write_text(text)
    read = read_labelled(tmp_path / f"list.{kind}")
    assert read.read_bytes(0) == picture.read_bytes()
    assert [read.names[label] for label in read.labels] == ["real", "fake"]


def test_several_sets_share_one_list_of_names(tmp_path: Path) -> None:
    first = _write_table(tmp_path / "first.parquet", image=[b"x", b"y"], label=["real", "fake"])
    second = _write_table(tmp_path / "second.parquet", image=[b"z"], label=["real"])
    joined = read_labelled([second, first])
    assert [joined.names[label] for label in joined.labels] == ["real", "real", "fake"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.parquet", None, "no such file"),
        ("text.parquet", "not parquet", "cannot be read as parquet"),
        ("list.csv", "path\na.png\n", "has pictures and nothing else"),
        ("list.csv", "path,label\na.png,\n", "list.csv row 0: has no label"),
        ("list.csv", "label\nreal\n", "entry 0 has no picture; it needs path or image"),
        ("list.json", '{"path": "a.png"}', "list of objects"),
        ("list.csv", "path,label\n", "holds no labelled picture"),
        ("notes.txt", "hello", "not a parquet file"),
    ],
)
def test_unusable_sources_are_refused_in_one_line(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_labelled(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_parquet_without_the_columns_names_those_it_has(tmp_path: Path) -> None:
    path = _write_table(tmp_path / "set.parquet", picture=[b"x"], label=[0])
    with pytest.raises(DataError, match="no column image; it has picture, label"):
        read_labelled(path)
