"""The index of a corpus: one LanceDB table of chunks with their vectors and words. The only file that knows LanceDB.

The table lies in a folder, or at an ``s3://`` or ``gs://`` address that a cluster shares. Every change is one version
of the table, committed whole or not at all: a writer that is killed loses its last batch and nothing else, and readers
see the latest whole version, while it is written too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.errors import ExhibitError
from rag.ranking import normalise_words
from rag.schema import SOURCE_KINDS, Chunk, Source, SourceKind

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["EVERYTHING", "Filter", "Found", "Index", "IndexUnusableError", "Origin", "Row"]

Vector = NDArray[np.float32]
PICTURE, SENTENCE = SPACES = ("picture", "sentence")
APPROXIMATE_FROM = 50_000
"""Vectors from which a search of a part of them pays; below, all are compared in some 30 ms."""

_LOG = logging.getLogger(__name__)
_TABLE = "chunks"
_VERSION = 1
_META = b"exhibit"
_ROWS_A_CELL = 1000
# One bit per entry is compared in many cells, whole vectors only of the nearest: of a million drawn vectors of
# 512, 400 of 1000 cells find 0.98 of the exact results in 26 ms; whole vectors in 25 cells found 0.72 in 33 ms.
_LEAST_CELLS, _SHARE_SEARCHED, _LOOKED_AT_AGAIN = 6, 0.4, 10
_WHOLE_BYTES = 8  # entries, of which the bits of a vector must be a multiple; those of all known encoders are
_KEEP_OLD_S = 3600
_COLUMNS = ("id", "source", "kind", "sha256", "number", "text", "heading", "page", "preview")


class IndexUnusableError(ExhibitError):
    """There is no index, it is not one of ours, or it was built with other models."""


@dataclass(frozen=True)
class Origin:
    """What an index was built with; vectors of other models cannot be compared with its own.

    Attributes:
        picture_model: zoo id of the image-text model.
        picture_weights: hex SHA-256 of its weights.
        picture_width: length of its vectors.
        sentence_model: name of the sentence encoder.
        sentence_width: length of its vectors.
    """

    picture_model: str
    picture_weights: str
    picture_width: int
    sentence_model: str
    sentence_width: int


@dataclass(frozen=True)
class Row:
    """A chunk with its vectors, each of length 1; None where it has no picture or no text."""

    chunk: Chunk
    picture: Vector | None
    sentence: Vector | None


@dataclass(frozen=True)
class Filter:
    """Which chunks count.

    Attributes:
        kinds: of their sources; all when empty.
        within: path that their sources' ids begin with, such as ``photos/``.
    """

    kinds: tuple[SourceKind, ...] = ()
    within: str = ""

    def condition(self) -> str:
        """As SQL; empty for no condition.

        Raises:
            IndexUnusableError: no such kind.
        """
        unknown = [kind for kind in self.kinds if kind not in SOURCE_KINDS]
        if unknown:
            raise IndexUnusableError(f"{unknown[0]!r} is no kind of source; choose among {', '.join(SOURCE_KINDS)}.")
        parts = [_one_of("kind", self.kinds)] if self.kinds else []
        if self.within:
            parts.append(f"starts_with(source, {_quoted(self.within)})")
        return " AND ".join(parts)


EVERYTHING = Filter()


@dataclass(frozen=True)
class Found:
    """A chunk that a search found, and that search's own score: a cosine, or BM25."""

    chunk: Chunk
    score: float


class Index:
    """An opened index; safe to share between threads.

    Attributes:
        address: folder or URL.
        origin: what it was built with.
    """

    def __init__(self, address: str, table: Any, origin: Origin) -> None:  # noqa: ANN401
        self.address = address
        self.origin = origin
        self._table = table

    @classmethod
    def open(cls, address: str | Path) -> Index:
        """An index that was built.

        Raises:
            IndexUnusableError: there is none, or another version of Exhibit built it.
        """
        place = _place(address)
        if "://" not in place and not Path(place).is_dir():
            raise IndexUnusableError(
                f"{place}: there is no index; build one: python -m rag build CORPUS --index {place}"
            )
        with _explained(place):
            database = _connect(place)
            if _TABLE not in database.list_tables().tables:
                raise IndexUnusableError(
                    f"{place}: holds no index; build one: python -m rag build CORPUS --index {place}"
                )
            table = database.open_table(_TABLE)
            return cls(place, table, _read_origin(place, table.schema))

    @classmethod
    def create(cls, address: str | Path, origin: Origin) -> Index:
        """An index to write to: the one that is there, or a new and empty one.

        Raises:
            IndexUnusableError: the one that is there was built with other models, or the place cannot be written.
        """
        from lancedb.index import FTS

        place = _place(address)
        with _explained(place):
            database = _connect(place)
            table = _opened(database)
            if table is None:
                table = database.create_table(_TABLE, schema=_schema(origin))
            found = cls(place, table, _read_origin(place, table.schema))
            found.check(origin)
            if not any("words" in each.columns for each in found._table.list_indices()):
                words = FTS(base_tokenizer="whitespace", stem=False, remove_stop_words=False, ascii_folding=False)
                found._table.create_index("words", config=words)
            return found

    def check(self, origin: Origin) -> None:
        """Refuse models whose vectors are not comparable with the index's.

        Raises:
            IndexUnusableError: they are not those that it was built with.
        """
        if origin == self.origin:
            return
        if origin.picture_model != self.origin.picture_model:
            raise IndexUnusableError(
                f"{self.address}: was built with {self.origin.picture_model}, not {origin.picture_model}; "
                "name that model, or build a new index elsewhere."
            )
        raise IndexUnusableError(f"{self.address}: was built with other weights; build a new index elsewhere.")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Held around a build, so that two do not do the same work; readers need not wait.

        Raises:
            IndexUnusableError: another build is writing to the same folder.
        """
        from filelock import FileLock, Timeout

        if "://" in self.address:  # a bucket has no lock; there the later of two commits is tried again
            yield
            return
        lock = FileLock(Path(self.address) / ".writing.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise IndexUnusableError(f"{self.address}: another build is writing to it; wait for its end.") from error
        try:
            yield
        finally:
            lock.release()

    def __len__(self) -> int:
        """Chunks in the latest version."""
        return int(self._table.count_rows())

    def sources(self) -> dict[str, str]:
        """Ids of all sources with their hashes."""
        found = self._table.search().select(["source", "sha256"]).limit(None).to_arrow()
        return dict(zip(found["source"].to_pylist(), found["sha256"].to_pylist(), strict=True))

    def replace(self, sources: Collection[str], rows: Sequence[Row], *, known: bool = True) -> None:
        """Put these rows in the place of all that the index has of these sources, in one version.

        Args:
            sources: ids; those without a row are removed.
            rows: of these sources only.
            known: whether the index may have any of the sources; appending is faster.
        """
        import pyarrow as pa

        table = pa.Table.from_pylist([_to_record(row) for row in rows], schema=self._table.schema)
        with _explained(self.address):
            if known:
                merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
                merge.when_not_matched_by_source_delete(_one_of("source", sources)).execute(table)
            elif rows:
                self._table.add(table)

    def remove(self, sources: Collection[str]) -> None:
        """Remove all that the index has of these sources, in one version."""
        if sources:
            with _explained(self.address):
                self._table.delete(_one_of("source", sources))

    def optimise(self) -> None:
        """Bring the search structures up to date, join small files, and build the approximate index where it pays.

        Versions older than an hour go: no reader holds one that long.
        """
        from lancedb.index import IvfRq

        with _explained(self.address):
            self._table.optimize(cleanup_older_than=timedelta(seconds=_KEEP_OLD_S))
            have = {column for each in self._table.list_indices() for column in each.columns}
            for space, width in zip(SPACES, (self.origin.picture_width, self.origin.sentence_width), strict=True):
                count = int(self._table.count_rows(f"{space} IS NOT NULL"))
                if space not in have and count >= APPROXIMATE_FROM and width % _WHOLE_BYTES == 0:
                    # RaBitQ (Gao and Long 2024, arXiv:2405.12497).
                    cells = IvfRq(distance_type="cosine", num_partitions=count // _ROWS_A_CELL)
                    self._table.create_index(space, config=cells)
                    _LOG.info("Built the approximate index of %d %s vectors", count, space)

    def search_vector(
        self, space: str, vector: Vector, limit: int, only: Filter = EVERYTHING, *, exact: bool = False
    ) -> list[Found]:
        """Chunks by the cosine of their vector with another, the best first.

        Args:
            space: ``picture`` or ``sentence``.
            vector: float32 (d,), of length 1.
            limit: most chunks.
            only: which count.
            exact: compare with every vector even where an approximate index stands.
        """
        query = self._table.search(vector, vector_column_name=space).distance_type("cosine")
        cells = 0 if exact else self._cells(space)
        if cells:
            query = query.nprobes(max(_LEAST_CELLS, round(cells * _SHARE_SEARCHED))).refine_factor(_LOOKED_AT_AGAIN)
        else:
            query = query.bypass_vector_index()
        return [Found(chunk, 1 - distance) for chunk, distance in self._run(query, "_distance", limit, only)]

    def search_words(self, text: str, limit: int, only: Filter = EVERYTHING) -> list[Found]:
        """Chunks by the words of a text in them (BM25), the best first; none where no word counts."""
        words = normalise_words(text)
        if not words:
            return []
        query = self._table.search(words, query_type="fts", fts_columns="words")
        return [Found(chunk, score) for chunk, score in self._run(query, "_score", limit, only)]

    def _cells(self, space: str) -> int:
        """Cells of the approximate index; 0 where there is none."""
        for index in self._table.list_indices():
            if space in index.columns:
                return max(1, (index.num_indexed_rows or 0) // _ROWS_A_CELL)
        return 0

    def _run(self, query: Any, score: str, limit: int, only: Filter) -> list[tuple[Chunk, float]]:  # noqa: ANN401
        condition = only.condition()
        if condition:
            query = query.where(condition)
        with _explained(self.address):
            records = query.select([*_COLUMNS, score]).limit(limit).to_list()
        return [(_to_chunk(record), float(record[score])) for record in records]


def _place(address: str | Path) -> str:
    text = str(address)
    return text if "://" in text else str(Path(text).expanduser())


def _connect(place: str) -> Any:  # noqa: ANN401 - lancedb is imported late
    import lancedb

    # An interval of nothing: every reader looks for the latest version before it reads.
    return lancedb.connect(place, read_consistency_interval=timedelta(0))


def _opened(database: Any) -> Any | None:  # noqa: ANN401
    """The table; nothing where there is none, or one that was begun and never written."""
    try:
        return database.open_table(_TABLE)
    except ValueError:
        return None


@contextmanager
def _explained(place: str) -> Iterator[None]:
    """What LanceDB raises on a damaged table or a place out of reach, as one line."""
    try:
        yield
    except (RuntimeError, OSError, ValueError) as error:
        detail = " ".join(str(error).split())[:200]
        raise IndexUnusableError(f"{place}: the index cannot be used ({detail}).") from error


def _schema(origin: Origin) -> pa.Schema:
    import pyarrow as pa

    text, number = pa.string(), pa.int32()
    return pa.schema(
        [
            *(pa.field(name, text, nullable=False) for name in ("id", "source", "kind", "sha256", "text", "heading")),
            pa.field("number", number, nullable=False),
            pa.field("page", number),
            pa.field("preview", pa.binary()),
            pa.field("words", text, nullable=False),
            pa.field(PICTURE, pa.list_(pa.float32(), origin.picture_width)),
            pa.field(SENTENCE, pa.list_(pa.float32(), origin.sentence_width)),
        ],
        metadata={_META: json.dumps({"version": _VERSION, **vars(origin)}).encode()},
    )


def _read_origin(place: str, schema: pa.Schema) -> Origin:
    try:
        settings: Mapping[str, Any] = json.loads((schema.metadata or {})[_META])
        if settings["version"] != _VERSION:
            raise IndexUnusableError(f"{place}: another version of Exhibit built the index; build it anew elsewhere.")
        return Origin(**{name: value for name, value in settings.items() if name != "version"})
    except (KeyError, TypeError, ValueError) as error:
        raise IndexUnusableError(f"{place}: holds a table that Exhibit did not build.") from error


def _to_record(row: Row) -> dict[str, Any]:
    chunk = row.chunk
    return {
        "id": chunk.id,
        "source": chunk.source.id,
        "kind": chunk.source.kind,
        "sha256": chunk.source.sha256,
        "number": chunk.number,
        "text": chunk.text,
        "heading": chunk.heading,
        "page": chunk.page,
        "preview": chunk.picture,
        "words": normalise_words(f"{chunk.heading} {chunk.text}"),
        PICTURE: row.picture,
        SENTENCE: row.sentence,
    }


def _to_chunk(record: Mapping[str, Any]) -> Chunk:
    source = Source(record["source"], record["kind"], record["sha256"])
    return Chunk(source, record["number"], record["text"], record["heading"], record["page"], record["preview"])


def _one_of(column: str, values: Collection[str]) -> str:
    return f"{column} IN ({', '.join(map(_quoted, values))})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
