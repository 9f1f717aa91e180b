"""A chunk of the plan to one parquet file: whole or not there, whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import imagehash
import pyarrow as pa
import pyarrow.parquet as pq

from bulk.sources import Item, Reader
from models.detector import Detector
from models.ensemble import combine
from models.errors import BadImageError, ExhibitError
from models.imaging import SourceImage, read_image
from models.loading import ModelLoader
from models.registry import load_zoo
from models.schema import Prediction

PLAN = "plan.parquet"
BATCH = 16
AHEAD = 4
EXIF = {
    "exif_make": "Make",
    "exif_model": "Model",
    "exif_software": "Software",
    "exif_taken": "DateTimeOriginal",
    "exif_gps": "GPS",
}


@dataclass(frozen=True)
class Job:
    """What every worker has to know.

    Attributes:
        out: folder of the run, seen by all workers.
        task: the question.
        models: zoo ids.
        zoo: the user's zoo file, or ``None``.
    """

    out: str
    task: str
    models: tuple[str, ...]
    zoo: str | None = None


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


class ChunkScorer:
    """Loads its models once and scores chunks; pictures are decoded in a thread beside the models."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.folder = Path(job.out)
        zoo = load_zoo(Path(job.zoo) if job.zoo else None)
        self.loader = ModelLoader(zoo, max_models=len(job.models))
        loaded = [self.loader.load(model_id) for model_id in job.models]
        self.models = [live for live in loaded if not isinstance(live, Detector)]
        if len(self.models) < len(loaded):
            raise ExhibitError("a detector gives no verdict; name classifiers or vision-language models.")
        self.accuracies = {spec.id: spec.accuracy for spec in zoo.specs.values()}
        self.reader = Reader()
        self._agree_on_models()

    def score(self, chunk: int) -> tuple[int, int]:
        """Write the part of one chunk, unless it is there.

        Returns:
            Number of pictures, and of those that could not be scored.
        """
        target = part_path(self.folder, chunk)
        if target.exists():
            errors = pq.read_table(target, columns=["error"]).column("error")
            return len(errors), len(errors) - errors.null_count
        with pq.ParquetFile(self.folder / PLAN) as plan:
            items = [Item(**row) for row in plan.read_row_group(chunk).to_pylist()]
        rows = list(self._rows(items))
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(pa.Table.from_pylist(rows, self._schema()), target)
        return len(rows), sum(row["error"] is not None for row in rows)

    def _rows(self, items: list[Item]) -> Iterator[dict[str, Any]]:
        waiting: list[tuple[Item, SourceImage | ExhibitError]] = []
        for item, found in self._decoded(items):
            waiting.append((item, found))
            if len(waiting) == BATCH:
                yield from self._scored(waiting)
                waiting = []
        yield from self._scored(waiting)

    def _decoded(self, items: list[Item]) -> Iterator[tuple[Item, SourceImage | ExhibitError]]:
        """Pictures in order, a few ahead of the models; one thread, since a container is read from front to end."""
        with ThreadPoolExecutor(1) as pool:
            ahead: deque[tuple[Item, Future[SourceImage | ExhibitError]]] = deque()
            for item in items:
                ahead.append((item, pool.submit(self._read, item)))
                if len(ahead) > AHEAD:
                    first, found = ahead.popleft()
                    yield first, found.result()
            for first, found in ahead:
                yield first, found.result()

    def _read(self, item: Item) -> SourceImage | ExhibitError:
        try:
            return read_image(self.reader.read(item), name=item.path)
        except BadImageError as error:
            return error

    def _scored(self, batch: list[tuple[Item, SourceImage | ExhibitError]]) -> Iterator[dict[str, Any]]:
        sources = [found for _, found in batch if isinstance(found, SourceImage)]
        answers = iter(self._predict(sources))
        for item, found in batch:
            row: dict[str, Any] = {"path": item.path, "source": item.source, "member": item.member, "error": None}
            if isinstance(found, ExhibitError):
                yield {**row, "error": str(found)}
                continue
            row |= _describe(found)
            try:
                row |= self._verdict(next(answers))
            except ExhibitError as error:
                row["error"] = str(error)
            yield row

    def _predict(self, sources: list[SourceImage]) -> list[list[Prediction] | ExhibitError]:
        """What all models say of each picture; a batch that fails is asked again picture by picture."""
        if not sources:
            return []
        try:
            by_model = [live.predict([one.rgb for one in sources]) for live in self.models]
        except ExhibitError as error:
            return [error] if len(sources) == 1 else [self._predict([one])[0] for one in sources]
        return [list(answers) for answers in zip(*by_model, strict=True)]

    def _verdict(self, answers: list[Prediction] | ExhibitError) -> dict[str, Any]:
        if isinstance(answers, ExhibitError):
            raise answers
        verdict = combine(answers, self.accuracies)
        row: dict[str, Any] = {
            f"{one.model_id}:{label}": share for one in answers for label, share in one.probabilities.items()
        }
        row |= {f"verdict:{label}": share for label, share in verdict.probabilities.items()}
        return row | {"verdict": verdict.label, "agreement": verdict.agreement, "disagreement": verdict.spread}

    def _schema(self) -> pa.Schema:
        texts = ("path", "source", "member", "error", "sha256", "format", "notes", *EXIF, "phash", "dhash", "verdict")
        shares = [f"{live.spec.id}:{label}" for live in self.models for label in live.labels]
        shares += [f"verdict:{label}" for label in self.models[0].labels]
        numbers = [("bytes", pa.int64()), ("width", pa.int32()), ("height", pa.int32())]
        numbers += [(name, pa.float64()) for name in (*shares, "agreement", "disagreement")]
        return pa.schema([*((name, pa.string()) for name in texts), *numbers])

    def _agree_on_models(self) -> None:
        """The first worker writes down which weights answer; all others, and resumed runs, must have the same."""
        mine = {live.spec.id: {"labels": list(live.labels), **asdict(live.status)} for live in self.models}
        file = self.folder / "models.json"
        draft = _draft(file)
        draft.write_text(json.dumps(mine, indent=1), encoding="utf-8")
        try:
            os.link(draft, file)  # unlike a rename it fails where another worker was first
        except FileExistsError:
            if json.loads(file.read_text(encoding="utf-8")) != mine:
                raise ExhibitError(
                    f"other weights answer now than {file} says; start anew in another folder."
                ) from None
        finally:
            draft.unlink()


def _describe(found: SourceImage) -> dict[str, Any]:
    # Hashes of a reduced copy: a large picture would cost more to hash than to score.
    small = found.rgb.resize((128, 128), reducing_gap=2.0)
    width, height = found.size_wh
    return {
        "sha256": found.sha256,
        "bytes": len(found.original),
        "format": found.format,
        "width": width,
        "height": height,
        "notes": "; ".join(found.notes) or None,
        "phash": str(imagehash.phash(small)),
        "dhash": str(imagehash.dhash(small)),
    } | {column: found.exif.get(tag) for column, tag in EXIF.items()}


def _draft(target: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    os.close(handle)
    return Path(name)


def write_whole(table: pa.Table, target: Path) -> None:
    """Write a parquet file that appears only when it is whole."""
    draft = _draft(target)
    try:
        pq.write_table(table, draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
