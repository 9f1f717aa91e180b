"""The one way in for a data set, in whichever of the usual layouts it comes.

A source is a parquet file (or a folder of them), a folder per class, a CSV / JSON / JSONL list of pictures with labels
or questions, ChartQA's folder (Masry et al. 2022: ``png/`` with lists of ``imgname``, ``query``, ``label`` beside it),
GenImage's (Zhu et al. 2023: ``generator/split/ai`` and ``nature``), or ``hub:OWNER/NAME@REVISION#SPLIT``, a data set
of the Hugging Face hub.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.errors import DataError
from training.picture_table import (
    ANSWER_COLUMNS,
    PICTURE_TYPE,
    QUESTION_COLUMNS,
    PictureTable,
    join_tables,
    write_text,
)

Source = Path | str
HUB = "hub:"
PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"}
)
LIST_SUFFIXES = (".json", ".jsonl", ".csv")
LIST_KEYS = ("path", "image", "file_name")
FOLDER_LISTS = ("metadata.csv", "metadata.jsonl")
GENIMAGE_NAMES = ("fake", "real")
GENIMAGE_FOLDERS = {"ai": 0, "nature": 1}
BATCH_ROWS = 256
LAYOUTS = (
    "a parquet file, a folder per class, a CSV / JSON / JSONL list, the folder of ChartQA or GenImage, "
    "or hub:OWNER/NAME#SPLIT"
)


def read_table(source: Source) -> PictureTable:
    """Read one data set; pictures are not decoded, files not opened.

    Args:
        source: a file, a folder, or ``hub:OWNER/NAME@REVISION#SPLIT`` (``@REVISION`` may be left out, and ``#SPLIT`` if
            the data set has only one).

    Returns:
        Its pictures and all other columns.

    Raises:
        DataError: if there is nothing there, it is none of the layouts, or a row lacks its picture.
    """
    if is_hub(source):
        return _from_hub(str(source).removeprefix(HUB))
    path = Path(source)
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder.")
    if path.is_dir():
        return _from_folder(path)
    if path.suffix == ".parquet":
        return _from_parquet(path)
    if path.suffix in LIST_SUFFIXES:
        return _from_list(path)
    raise DataError(f"{path.name}: not {LAYOUTS}.")


def is_hub(source: Source) -> bool:
    """Whether a source names a data set of the hub."""
    return str(source).startswith(HUB)


def locate(root: Path, source: str) -> Source:
    """A source below a folder; one of the hub stands by itself."""
    return source if is_hub(source) else root / source


def _from_folder(folder: Path) -> PictureTable:
    if (folder / "split.json").exists():
        parts = ", ".join(sorted(file.name for file in folder.glob("*.parquet")))
        raise DataError(f"{folder}: holds a split; name one of its files ({parts}).")
    if parquet := sorted(folder.glob("*.parquet")):
        return join_tables([_from_parquet(file) for file in parquet])
    if listed := [folder / name for name in FOLDER_LISTS if (folder / name).is_file()]:
        return _from_list(listed[0])
    charts = [one for one in (folder, *_list_folders(folder)) if (one / "png").is_dir() and _find_lists(one)]
    if charts:
        return join_tables([_from_chart_list(file, folder) for one in charts for file in _find_lists(one)])
    return _from_genimage(folder) or _from_classes(folder)


def _from_chart_list(path: Path, folder: Path) -> PictureTable:
    """One list of ChartQA; below the whole data set its folder is its split."""
    table = _from_list(path)
    if path.parent == folder or not len(table):
        return table
    return table.set_column("split", pa.array([path.parent.name] * len(table)))


def _list_folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _find_lists(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in LIST_SUFFIXES)


def _from_classes(folder: Path) -> PictureTable:
    classes = _list_folders(folder)
    found = [
        (file, label)
        for label, child in enumerate(classes)
        for file in sorted(child.rglob("*"))
        if file.suffix.lower() in PICTURE_SUFFIXES
    ]
    if len(classes) < 2 or not found:
        raise DataError(
            f"{folder.name}: has no sub-folder per class with pictures (for instance fake/ and real/), "
            "no parquet file, and is not the layout of ChartQA (png/ with lists beside it) or GenImage."
        )
    files, labels = zip(*found, strict=True)
    feature = {"names": [child.name for child in classes], "_type": "ClassLabel"}
    return _from_files(folder, files, {"label": labels}, {"label": feature})


def _from_genimage(folder: Path) -> PictureTable | None:
    """The pictures of all generators, of some, of one, or of one split; None if the folder has not this layout."""
    found = [
        (file, label, *place)
        for name, label in GENIMAGE_FOLDERS.items()
        for kind in sorted(folder.rglob(name))
        if kind.is_dir() and (place := _place_in_genimage(folder, kind))
        for file in sorted(kind.iterdir())
        if file.suffix.lower() in PICTURE_SUFFIXES
    ]
    if not found:
        return None
    files, labels, generators, splits = zip(*found, strict=True)
    feature = {"names": list(GENIMAGE_NAMES), "_type": "ClassLabel"}
    columns = {"label": labels, "generator": generators, "split": splits}
    return _from_files(folder, files, columns, {"label": feature})


def _place_in_genimage(folder: Path, kind: Path) -> tuple[str, str] | None:
    """Generator and split of a folder ``ai`` or ``nature``; None if it lies elsewhere."""
    parents = kind.relative_to(folder).parts[:-1]
    if not all((kind.parent / name).is_dir() for name in GENIMAGE_FOLDERS) or len(parents) > 3:
        return None
    here = folder.resolve()
    if not parents:  # a split given by itself
        return here.parent.name, here.name
    return (parents[0] if len(parents) > 1 else here.name, parents[-1])


def _from_files(
    folder: Path, files: Sequence[Path], columns: Mapping[str, Sequence[Any]], features: Mapping[str, Any]
) -> PictureTable:
    sources = tuple(str(file.relative_to(folder)) for file in files)
    table = pa.table({name: list(values) for name, values in columns.items()})
    return PictureTable(folder.name, tuple(files), np.arange(len(files)), table, sources, features)


def _from_parquet(path: Path) -> PictureTable:
    try:
        file = pq.ParquetFile(path)
        features = _read_features(file.schema_arrow.metadata or {})
        batches = (pa.Table.from_batches([batch]) for batch in file.iter_batches(BATCH_ROWS))
        empty = file.schema_arrow.empty_table()
        return _from_arrow([empty, *batches], features, path.name, path.parent)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path.name}: cannot be read as parquet ({str(error).splitlines()[0]}).") from error


def _read_features(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}  # written by something else than `datasets`
    return features if isinstance(features, dict) else {}


def _from_list(path: Path) -> PictureTable:
    rows = _read_rows(path)
    images = [
        {"bytes": None, "path": _find_listed(row, f"{path.name}: entry {number}")} for number, row in enumerate(rows)
    ]
    columns = {
        name: _to_array(name, [row.get(name) for row in rows])
        for name in dict.fromkeys(key for row in rows for key in row)
        if name not in (*LIST_KEYS, "imgname")
    }
    return _from_arrow([pa.table({"image": pa.array(images, PICTURE_TYPE), **columns})], {}, path.name, path.parent)


def _find_listed(row: Mapping[str, Any], where: str) -> str:
    if row.get("imgname"):
        return f"png/{row['imgname']}"
    file = next((row[key] for key in LIST_KEYS if row.get(key)), None)
    if not isinstance(file, str):
        raise DataError(f"{where} has no picture; it needs {' or '.join((*LIST_KEYS, 'imgname'))}.")
    return file


def _to_array(name: str, values: list[Any]) -> pa.Array:
    """A column of a list. Questions, answers and labels are text, of several answers the first; so is what is mixed."""
    if name not in (*QUESTION_COLUMNS, *ANSWER_COLUMNS):
        try:
            return pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            pass  # such as 12.5 beside "Poland"
    return pa.array([write_text(value) for value in values], pa.string())


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            return [
                {key: value or None for key, value in row.items() if key} for row in csv.DictReader(text.splitlines())
            ]
        rows = (
            [json.loads(line) for line in text.splitlines() if line.strip()]
            if path.suffix == ".jsonl"
            else json.loads(text)
        )
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path.name}: cannot be read as a list ({error}).") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path.name}: expected a list of objects, each with a picture and its label or question.")
    return rows


def _from_hub(text: str) -> PictureTable:
    from datasets import Image, get_dataset_split_names, load_dataset
    from datasets.exceptions import DatasetsError

    place, _, split = text.partition("#")
    dataset, _, revision = place.partition("@")
    try:
        if not split:
            splits = get_dataset_split_names(dataset, revision=revision or None)
            if len(splits) != 1:
                raise DataError(
                    f"{HUB}{place}: has the splits {', '.join(splits)}; name one, {HUB}{place}#{splits[0]}."
                )
            split = splits[0]
        loaded = load_dataset(dataset, split=split, revision=revision or None)
    except (OSError, ValueError, DatasetsError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{HUB}{text}: cannot be had from the hub ({reason}); check its name and split, or where there is no "
            "network download it elsewhere and give its folder or files."
        ) from error
    for name, feature in loaded.features.items():
        if isinstance(feature, Image):  # undecoded: pictures are read in one place only, with its checks
            loaded = loaded.cast_column(name, Image(decode=False))
    batches = loaded.with_format("arrow").iter(BATCH_ROWS)
    empty = loaded.features.arrow_schema.empty_table()
    return _from_arrow([empty, *batches], loaded.features.to_dict(), f"{dataset} {split}", None)


def _from_arrow(
    parts: Iterable[pa.Table], features: Mapping[str, Any], where: str, folder: Path | None
) -> PictureTable:
    """Collect tables with a column of pictures, given one after the other so that shared pictures are held once."""
    pictures: list[bytes | Path] = []
    known: dict[bytes | Path, int] = {}
    places: list[int] = []
    rest: list[pa.Table] = []
    for part in parts:
        image = _find_special("image", "Image", part.column_names, features, where)
        shared = any(name in part.column_names for name in QUESTION_COLUMNS)
        for cell in part[image].to_pylist():
            picture = _to_picture(cell, f"{where} row {len(places)}", folder)
            place = known.setdefault(picture, len(pictures)) if shared else len(pictures)
            if place == len(pictures):
                pictures.append(picture)
            places.append(place)
        rest.append(part.drop_columns([image]))
    columns = pa.concat_tables(rest, promote_options="permissive").replace_schema_metadata(None)
    described = {name: feature for name, feature in features.items() if name in columns.column_names}
    if places and not columns.num_columns:
        raise DataError(f"{where}: has pictures and nothing else; a label, or a question and its answer, is needed.")
    if "label" not in columns.column_names and not any(name in columns.column_names for name in QUESTION_COLUMNS):
        label = _find_typed("ClassLabel", columns.column_names, features)
        if label is not None:
            columns = columns.rename_columns(["label" if name == label else name for name in columns.column_names])
            described["label"] = described.pop(label)
    sources = tuple(f"{where} row {row}" for row in range(len(places)))
    return PictureTable(where, tuple(pictures), np.array(places, dtype=np.int64), columns, sources, described)


def _find_special(name: str, kind: str, there: Sequence[str], features: Mapping[str, Any], where: str) -> str:
    found = name if name in there else _find_typed(kind, there, features)
    if found is None:
        raise DataError(f"{where}: no column {name}; it has {', '.join(there)}.")
    return found


def _find_typed(kind: str, there: Sequence[str], features: Mapping[str, Any]) -> str | None:
    """The only column of a kind known to ``datasets``, whatever its name."""
    found = [name for name in there if isinstance(features.get(name), dict) and features[name].get("_type") == kind]
    return found[0] if len(found) == 1 else None


def _to_picture(image: Any, where: str, folder: Path | None) -> bytes | Path:  # noqa: ANN401 - any cell
    if isinstance(image, bytes):
        return image
    if isinstance(image, Mapping) and image.get("bytes"):
        return bytes(image["bytes"])
    if isinstance(image, Mapping) and image.get("path"):
        return (folder or Path()) / image["path"]
    raise DataError(f"{where} has neither image bytes nor a path.")
