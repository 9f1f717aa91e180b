"""The rows of a run, read back a part at a time: a million of them need not be in memory together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bulk.parts import PLAN, part_path
from bulk.sources import Item
from models.errors import ExhibitError

MODELS = "models.json"
DISTANCE, UNFAMILIAR = "distance:", "unfamiliar:"
"""Before a model's id: columns of how far a picture lies from its training pictures, and whether that is too far."""


@dataclass(frozen=True, order=True)
class Place:
    """Where a row stands: which part, and which row of it."""

    chunk: int
    row: int


@dataclass(frozen=True)
class Run:
    """A run of ``triage.py`` or of the page, with all or some of its parts.

    Attributes:
        folder: where it lies.
    """

    folder: Path

    def __post_init__(self) -> None:
        """Refuse what is no run.

        Raises:
            ExhibitError: there is no plan in the folder.
        """
        if not (self.folder / PLAN).is_file():
            raise ExhibitError(f"{self.folder} is no run of triage.py: it has no {PLAN}.")

    @property
    def chunks(self) -> int:
        """How many parts the whole run has."""
        with pq.ParquetFile(self.folder / PLAN) as plan:
            return int(plan.num_row_groups)

    @property
    def pictures(self) -> int:
        """How many pictures were found."""
        with pq.ParquetFile(self.folder / PLAN) as plan:
            return int(plan.metadata.num_rows)

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        """Model id to its labels and what was loaded.

        Raises:
            ExhibitError: no model has answered yet.
        """
        try:
            found: dict[str, dict[str, Any]] = json.loads((self.folder / MODELS).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ExhibitError(f"{self.folder} has no {MODELS} yet; finish the run first.") from error
        return found

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the verdicts."""
        return tuple(next(iter(self.models.values()))["labels"])

    @property
    def thresholds(self) -> dict[str, float]:
        """Model id to the distance above which a picture is unlike its training pictures, where it was measured."""
        doubts = {model_id: told.get("doubt") for model_id, told in self.models.items()}
        return {model_id: float(doubt["threshold"]) for model_id, doubt in doubts.items() if doubt}

    def read(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """Number and rows of each part that is there, in order.

        Raises:
            ExhibitError: a part is damaged, or lacks a column.
        """
        for chunk in range(self.chunks):
            path = part_path(self.folder, chunk)
            if path.exists():
                try:
                    yield chunk, pq.read_table(path, columns=columns, partitioning=None)
                except (OSError, pa.ArrowException) as error:
                    raise ExhibitError(f"{path} is damaged; delete it and finish the run with --resume.") from error

    def rows(self, places: Iterable[Place]) -> list[dict[str, Any]]:
        """Whole rows, in the order asked for."""
        wanted = list(places)
        found: dict[Place, dict[str, Any]] = {}
        for chunk in {place.chunk for place in wanted}:
            table = pq.read_table(part_path(self.folder, chunk), partitioning=None)
            here = sorted(place.row for place in wanted if place.chunk == chunk)
            rows = table.take(here).to_pylist()
            found |= {Place(chunk, row): values for row, values in zip(here, rows, strict=True)}
        return [found[place] for place in wanted]

    def items(self, places: Iterable[Place]) -> list[Item]:
        """Where the pictures of rows lie, in the order asked for."""
        wanted = list(places)
        found: dict[Place, Item] = {}
        with pq.ParquetFile(self.folder / PLAN) as plan:
            for chunk in {place.chunk for place in wanted}:
                table = plan.read_row_group(chunk)
                here = [place.row for place in wanted if place.chunk == chunk]
                rows = table.take(here).to_pylist()
                found |= {Place(chunk, row): Item(**values) for row, values in zip(here, rows, strict=True)}
        return [found[place] for place in wanted]
