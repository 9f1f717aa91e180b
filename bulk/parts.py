"""The plan of a run and the parts of its result: files that are whole or not there, whatever is killed meanwhile."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from bulk.claims import Statement
from bulk.sources import Item

if TYPE_CHECKING:
    from bulk.shortlist import Choice

PLAN = "plan.parquet"


@dataclass(frozen=True)
class Job:
    """What every worker has to know.

    Attributes:
        out: folder of the run, seen by all workers.
        task: the question.
        models: zoo ids.
        zoo: the user's zoo file, or ``None``.
        choice: which pictures are looked into afterwards; ``None`` for none.
        keep_originals: whether evidence bundles hold the pictures, or only their hashes.
        claims: that are checked against the pictures that are looked into.
        domain: kind of pictures that claims are calibrated for.
    """

    out: str
    task: str
    models: tuple[str, ...]
    zoo: str | None = None
    choice: Choice | None = None
    keep_originals: bool = True
    claims: tuple[Statement, ...] = ()
    domain: str = "photographs"

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.out)


def write_plan(items: Iterable[Item], folder: Path, chunk: int) -> tuple[int, int]:
    """List the pictures into the plan, one row group per chunk; what a resumed run reads instead of listing anew.

    Returns:
        Number of pictures and of chunks.
    """
    draft = folder / f".{PLAN}"
    schema = pa.schema(
        [("source", "string"), ("member", "string"), ("offset", "int64"), ("size", "int64"), ("problem", "string")]
    )
    pictures = chunks = 0
    rest = iter(items)
    with pq.ParquetWriter(draft, schema) as writer:
        while part := list(islice(rest, chunk)):
            writer.write_table(pa.Table.from_pylist([asdict(one) for one in part], schema), row_group_size=chunk)
            pictures, chunks = pictures + len(part), chunks + 1
    draft.replace(folder / PLAN)
    return pictures, chunks


def part_path(folder: Path, chunk: int) -> Path:
    """Where the rows of a chunk lie; a folder holds a thousand parts."""
    return folder / "rows" / f"block={chunk // 1000:05d}" / f"part-{chunk:07d}.parquet"


def draft_path(target: Path) -> Path:
    """A new empty file beside the one that it will become."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    os.close(handle)
    return Path(name)


def write_whole(table: pa.Table, target: Path) -> None:
    """Write a parquet file that appears only when it is whole."""
    draft = draft_path(target)
    try:
        pq.write_table(table, draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
