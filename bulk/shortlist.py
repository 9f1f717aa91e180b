"""Which pictures are looked into: the likeliest, all above a threshold, or those that models disagree on."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bulk.results import Place, Run
from explain.signing import EVIDENCE, MANIFEST
from models.errors import ExhibitError

DEFAULT_TOP = 20
SHORTLIST = "shortlist.json"
By = Literal["label", "disagreement"]


@dataclass(frozen=True)
class Choice:
    """How the short list is made.

    Attributes:
        by: the verdict's probability of ``label``, or how far the models are apart.
        label: what is looked for; ``None`` for the first of the models' labels.
        top: most pictures; ``None`` for all above the threshold, or ``DEFAULT_TOP`` where there is none.
        threshold: least value, in [0, 1]; ``None`` for no bound.
    """

    by: By = "label"
    label: str | None = None
    top: int | None = None
    threshold: float | None = None

    def column(self, run: Run) -> str:
        """The column that ranks.

        Raises:
            ExhibitError: the models know no such label.
        """
        if self.by == "disagreement":
            return "disagreement"
        label = self.label or run.labels[0]
        if label not in run.labels:
            raise ExhibitError(f"there is no label {label!r}; choose one of {', '.join(run.labels)}.")
        return f"verdict:{label}"


@dataclass(frozen=True)
class Listed:
    """One picture of the short list.

    Attributes:
        place: of its row.
        value: by which it was chosen, in [0, 1].
        sha256: of its bytes.
        path: what people read.
    """

    place: Place
    value: float
    sha256: str
    path: str

    @property
    def name(self) -> str:
        """What its evidence bundle is called."""
        return self.sha256[:16]


def make_shortlist(run: Run, choice: Choice) -> list[Listed]:
    """The chosen pictures, highest value first; one that is there several times is listed once.

    Raises:
        ExhibitError: the models know no such label.
    """
    column = choice.column(run)
    top = choice.top or (DEFAULT_TOP if choice.threshold is None else None)
    found = _above(run, column, choice.threshold)
    chosen = {one.sha256: one for one in found}.values() if top is None else _best(found, top)
    return sorted(chosen, key=_order)


def _best(found: Iterator[Listed], top: int) -> list[Listed]:
    """The first ``top``, keeping no more than them in memory; copies have one value and come one after another."""
    heap: list[tuple[float, int, int, Listed]] = []
    inside: set[str] = set()
    for one in found:
        entry = (one.value, -one.place.chunk, -one.place.row, one)
        if one.sha256 in inside or (len(heap) == top and entry[:3] <= heap[0][:3]):
            continue
        inside.add(one.sha256)
        heapq.heappush(heap, entry)
        if len(heap) > top:
            inside.discard(heapq.heappop(heap)[-1].sha256)
    return [entry[-1] for entry in heap]


def _order(one: Listed) -> tuple[float, Place]:
    return -one.value, one.place


def _above(run: Run, column: str, threshold: float | None) -> Iterator[Listed]:
    for chunk, table in run.read(["path", "sha256", column]):
        values, digests, paths = (table.column(name).to_pylist() for name in (column, "sha256", "path"))
        for row, (value, digest, path) in enumerate(zip(values, digests, paths, strict=True)):
            if value is not None and (threshold is None or value >= threshold):
                yield Listed(Place(chunk, row), value, digest, path)


def write_shortlist(run: Run, listed: list[Listed], problems: dict[int, str]) -> None:
    """Keep which pictures were chosen, in order, where their bundles lie, and what could not be done."""
    entries = [
        {
            "bundle": f"{EVIDENCE}/{one.name}" if (run.folder / EVIDENCE / one.name / MANIFEST).exists() else None,
            "path": one.path,
            "sha256": one.sha256,
            "value": one.value,
            "problem": problems.get(number),
        }
        for number, one in enumerate(listed)
    ]
    draft = run.folder / f".{SHORTLIST}"
    draft.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(run.folder / SHORTLIST)
