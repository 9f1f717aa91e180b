"""Rows about pictures with whatever columns their source has: what every layout of a data set becomes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.errors import DataError

DEFAULT_NAMES = ("fake", "real")
# What the columns are called elsewhere; the first one found counts.
QUESTION_COLUMNS = ("question", "query")
ANSWER_COLUMNS = ("answer", "label", "answers")
PICTURE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ROWS_PER_GROUP = 256  # of a written file, so that a reader need not hold it whole
_DTYPES = {"double": "float64", "float": "float32", "halffloat": "float16", "large_string": "string"}


@dataclass(frozen=True)
class PictureTable:
    """Encoded pictures and rows about them.

    Attributes:
        where: what messages call the source.
        pictures: the encoded bytes, or the path of a file. Where rows ask questions each picture stands once; otherwise
            every row has its own.
        places: int64 (n,) index in ``pictures`` of each row.
        columns: n rows of all columns but the picture.
        sources: where each row came from, for messages (``file.parquet row 7``).
        features: what the library ``datasets`` wrote about a column, by its name; ``label`` may have ``names``.
    """

    where: str
    pictures: tuple[bytes | Path, ...] = field(repr=False)
    places: NDArray[np.int64] = field(repr=False)
    columns: pa.Table = field(repr=False)
    sources: tuple[str, ...] = field(repr=False)
    features: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.places)

    def get_list(self, name: str) -> list[Any]:
        """The values of a column.

        Raises:
            DataError: if there is none of that name.
        """
        return list(self.columns[self.find_column((name,))].to_pylist())

    def find_column(self, wanted: Sequence[str]) -> str:
        """The first of some columns that is there.

        Raises:
            DataError: if none is.
        """
        there = self.columns.column_names
        for name in wanted:
            if name in there:
                return name
        raise DataError(f"{self.where}: no column {' or '.join(wanted)}; it has {', '.join(['image', *there])}.")

    def take(self, pictures: Sequence[int]) -> PictureTable:
        """The table of some pictures only, in the order given; their rows keep their order in the table."""
        renumbered = {old: new for new, old in enumerate(pictures)}
        rows = [row for row, place in enumerate(self.places.tolist()) if place in renumbered]
        return PictureTable(
            self.where,
            tuple(self.pictures[old] for old in pictures),
            np.array([renumbered[int(self.places[row])] for row in rows], dtype=np.int64),
            self.columns.take(pa.array(rows, pa.int64())),
            tuple(self.sources[row] for row in rows),
            self.features,
        )

    def set_column(self, name: str, values: pa.Array, feature: Mapping[str, Any] | None = None) -> PictureTable:
        """The table with a column added or replaced."""
        columns = self.columns.drop_columns([name]) if name in self.columns.column_names else self.columns
        features = {key: value for key, value in self.features.items() if key != name}
        if feature is not None:
            features[name] = dict(feature)
        columns = columns.append_column(name, values)
        return PictureTable(self.where, self.pictures, self.places, columns, self.sources, features)

    def name_labels(self, names: Sequence[str] | None = None) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """The column ``label`` as indices into names.

        Args:
            names: for numbers that the source does not name; ``fake, real`` when not given.

        Returns:
            Index of each row, and the names: the source's own, else those given, else the labels in sorted order.

        Raises:
            DataError: if there is no such column, a row has no label, or a number has no name.
        """
        values = self.get_list("label")
        texts = ["" if value is None else str(value).strip() for value in values]
        if "" in texts:
            raise DataError(f"{self.sources[texts.index('')]}: has no label.")
        written = (self.features.get("label") or {}).get("names")
        names = tuple(written or names or ())
        if all(re.fullmatch(r"-?\d+", text) for text in texts):
            known = names or DEFAULT_NAMES
            outside = {int(text) for text in texts if not 0 <= int(text) < len(known)}
            if outside:
                raise DataError(
                    f"{self.where}: label {max(outside, key=abs)} has no name (the names are {', '.join(known)}); "
                    "give all with --label-names A,B,C."
                )
            return tuple(int(text) for text in texts), known
        known = names if names and set(texts) <= set(names) else tuple(sorted(set(texts)))
        places = {name: place for place, name in enumerate(known)}
        return tuple(places[text] for text in texts), known


def write_text(value: Any) -> str | None:  # noqa: ANN401 - any cell
    """A cell as text, of several values the first; None if it is empty."""
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return None if value in (None, "") else str(value)


def unify_labels(tables: Sequence[PictureTable], names: Sequence[str] | None = None) -> list[PictureTable]:
    """The tables with their labels numbered by one common list of names.

    Raises:
        DataError: see ``PictureTable.name_labels``.
    """
    labelled = [table.name_labels(names) for table in tables]
    common = list(dict.fromkeys(name for _, known in labelled for name in known))
    feature = {"names": common, "_type": "ClassLabel"}
    return [
        table.set_column("label", pa.array([common.index(known[one]) for one in labels], pa.int64()), feature)
        for table, (labels, known) in zip(tables, labelled, strict=True)
    ]


def join_tables(tables: Sequence[PictureTable], names: Sequence[str] | None = None) -> PictureTable:
    """Several tables as one; a column that one of them lacks is empty in its rows.

    Args:
        tables: at least one. Labels that are numbered differently are numbered anew, by their names.
        names: label names for numbers that a table does not name.

    Raises:
        DataError: if a number has no name, or a column holds different kinds of values.
    """
    if len(tables) == 1:
        return tables[0]
    if all("label" in table.columns.column_names for table in tables):
        kinds = {(str(t.columns.schema.field("label").type), json.dumps(t.features.get("label"))) for t in tables}
        tables = unify_labels(tables, names) if len(kinds) > 1 else tables
    where = ", ".join(table.where for table in tables)
    try:
        columns = pa.concat_tables([table.columns for table in tables], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{where}: cannot be joined ({' '.join(str(error).split())[:200]}).") from error
    pictures: list[bytes | Path] = []
    known: dict[bytes | Path, int] = {}
    places: list[int] = []
    for table in tables:
        if any(name in table.columns.column_names for name in QUESTION_COLUMNS):
            numbers = []
            for picture in table.pictures:
                numbers.append(known.setdefault(picture, len(pictures)))
                pictures += [picture] if numbers[-1] == len(pictures) else []
        else:
            numbers = list(range(len(pictures), len(pictures) + len(table.pictures)))
            pictures += table.pictures
        places += [numbers[place] for place in table.places]
    return PictureTable(
        where,
        tuple(pictures),
        np.array(places, dtype=np.int64),
        columns,
        tuple(source for table in tables for source in table.sources),
        {name: feature for table in reversed(tables) for name, feature in table.features.items()},
    )


def write_table(table: PictureTable, path: Path) -> None:
    """Write a parquet file that ``datasets`` reads, the pictures' bytes untouched.

    Args:
        table: what to write; its pictures must be readable.
        path: file to write.
    """
    described = {
        column.name: table.features.get(column.name) or describe_type(column.type) for column in table.columns.schema
    }
    schema = pa.schema(
        [("image", PICTURE_TYPE), *((column.name, column.type) for column in table.columns.schema)],
        metadata={"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}, **described}}})},
    )
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(table), ROWS_PER_GROUP):
            pictures = [table.pictures[place] for place in table.places[start : start + ROWS_PER_GROUP]]
            images = [{"bytes": one if isinstance(one, bytes) else one.read_bytes(), "path": None} for one in pictures]
            part = table.columns.slice(start, ROWS_PER_GROUP)
            writer.write_table(
                pa.Table.from_arrays([pa.array(images, PICTURE_TYPE), *part.itercolumns()], schema=schema)
            )


def describe_type(kind: pa.DataType) -> dict[str, Any]:
    """How the library ``datasets`` writes down a type of Arrow."""
    if pa.types.is_fixed_size_list(kind):
        return {"feature": describe_type(kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return {"feature": describe_type(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {part.name: describe_type(part.type) for part in kind}
    return {"dtype": _DTYPES.get(str(kind), str(kind)), "_type": "Value"}
