"""Labelled sets of pictures, from every layout that ``training.layouts`` reads.

A parquet file is what Hugging Face ``datasets`` writes: a column ``image`` (a struct of ``bytes`` and ``path``, or
plain bytes) and a column ``label`` (a name, or a number with the names in the file's metadata).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from training.errors import DataError
from training.layouts import Source, read_table
from training.picture_table import PictureTable, join_tables, write_table

AUGMENTED_FROM = "augmented_from"
"""Column with the SHA-256 of the original where a picture is a changed copy of it; see ``training.augment_rare``."""


@dataclass(frozen=True)
class LabelledSet:
    """Pictures as files or bytes, not yet decoded, and what each one shows.

    Attributes:
        pictures: the encoded bytes, or the path of a file.
        labels: index into ``names`` of each picture.
        names: label names by index.
        sources: where each picture came from, for messages (``file.parquet row 7``).
        extras: further columns of the file by name (for instance ``generator``), aligned with ``pictures``.
    """

    pictures: tuple[bytes | Path, ...] = field(repr=False)
    labels: tuple[int, ...] = field(repr=False)
    names: tuple[str, ...]
    sources: tuple[str, ...] = field(repr=False)
    extras: dict[str, tuple[Any, ...]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.pictures)

    def select(self, indices: Sequence[int]) -> LabelledSet:
        """The pictures at ``indices``, in that order, with the same names."""
        return LabelledSet(
            pictures=tuple(self.pictures[i] for i in indices),
            labels=tuple(self.labels[i] for i in indices),
            names=self.names,
            sources=tuple(self.sources[i] for i in indices),
            extras={key: tuple(column[i] for i in indices) for key, column in self.extras.items()},
        )

    def originals(self) -> LabelledSet:
        """The set without changed copies of its own pictures: what may be measured on."""
        marks = self.extras.get(AUGMENTED_FROM)
        return self if marks is None else self.select([i for i, mark in enumerate(marks) if not mark])

    def read_bytes(self, index: int) -> bytes:
        """The encoded bytes of one picture."""
        picture = self.pictures[index]
        return picture if isinstance(picture, bytes) else picture.read_bytes()


def read_labelled(paths: Source | Iterable[Source], names: Sequence[str] | None = None) -> LabelledSet:
    """Read one or several labelled sets as one.

    Args:
        paths: files, folders or ``hub:OWNER/NAME#SPLIT``; see ``training.layouts.read_table``.
        names: label names by index, for numbered labels whose file does not name them; ``fake, real`` when not given.

    Returns:
        The pictures of all, their labels on one common list of names, and the columns of text that all have.

    Raises:
        DataError: if a source is missing, of an unknown kind, empty, or labelled by numbers without a name.
    """
    sources = [paths] if isinstance(paths, (Path, str)) else list(paths)
    if not sources:
        raise DataError("no labelled set given; name a parquet file, a folder per class or a CSV / JSON list.")
    tables = [read_table(source) for source in sources]
    for table in tables:
        if not len(table):
            raise DataError(f"{table.where}: holds no labelled picture.")
        table.find_column(("label",))
    joined = join_tables(tables, names)
    labels, known = joined.name_labels(names)
    return LabelledSet(
        pictures=tuple(joined.pictures[place] for place in joined.places),
        labels=labels,
        names=known,
        sources=joined.sources,
        extras={
            name: tuple(joined.columns[name].to_pylist())
            for name in joined.columns.column_names
            if name != "label"
            and pa.types.is_string(joined.columns.schema.field(name).type)
            and all(name in table.columns.column_names for table in tables)
        },
    )


def write_parquet(labelled: LabelledSet, path: Path) -> None:
    """Write a set as the parquet that ``datasets`` reads, bytes untouched and label names in the metadata."""
    columns = {"label": pa.array(labelled.labels, pa.int64())} | {
        key: pa.array(column, pa.string()) for key, column in labelled.extras.items()
    }
    features = {"label": {"names": list(labelled.names), "_type": "ClassLabel"}}
    places = np.arange(len(labelled))
    write_table(PictureTable(path.name, labelled.pictures, places, pa.table(columns), labelled.sources, features), path)
