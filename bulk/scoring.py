"""A chunk of the plan to one parquet file: whole or not there, whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import imagehash
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bulk.attempts import Attempts
from bulk.parts import PLAN, Job, draft_path, part_path, write_whole
from bulk.results import DISTANCE, UNFAMILIAR
from bulk.sources import Item, Reader
from models.credentials import read_credentials
from models.detector import Detector
from models.doubt import Doubt, predict_assessed
from models.ensemble import combine
from models.errors import BadImageError, ExhibitError
from models.imaging import SourceImage, read_image
from models.lean import lean_classifier
from models.loading import ModelLoader
from models.registry import load_zoo
from models.schema import LiveModel, Prediction

BATCH = 16
AHEAD = 4
EXIF = {
    "exif_make": "Make",
    "exif_model": "Model",
    "exif_software": "Software",
    "exif_taken": "DateTimeOriginal",
    "exif_gps": "GPS",
}
CREDENTIALS = {"c2pa_signature": "signature", "c2pa_issuer": "issuer", "c2pa_generator": "generator"}


class ChunkScorer:
    """Loads its models once and scores chunks; pictures are decoded in a thread beside the models.

    Args:
        job: what to score.
        loader: that has the models already; one of its own if not given.
    """

    def __init__(self, job: Job, loader: ModelLoader | None = None) -> None:
        self.job = job
        self.folder = job.folder
        self.loader = loader or ModelLoader(load_zoo(Path(job.zoo) if job.zoo else None), max_models=len(job.models))
        zoo = self.loader.zoo
        loaded = [self.loader.load(model_id) for model_id in job.models]
        self.models = [lean_classifier(live) for live in loaded if not isinstance(live, Detector)]
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
        attempts = Attempts(self.folder, chunk)
        rows = list(self._one_by_one(items, attempts) if attempts.careful else self._rows(items))
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(pa.Table.from_pylist(rows, self._schema()), target)
        attempts.close()
        return len(rows), sum(row["error"] is not None for row in rows)

    def _rows(self, items: list[Item]) -> Iterator[dict[str, Any]]:
        waiting: list[tuple[Item, SourceImage | ExhibitError]] = []
        for item, found in self._decoded(items):
            waiting.append((item, found))
            if len(waiting) == BATCH:
                yield from self._scored(waiting)
                waiting = []
        yield from self._scored(waiting)

    def _one_by_one(self, items: list[Item], attempts: Attempts) -> Iterator[dict[str, Any]]:
        """For a chunk over which workers died: see ``bulk/attempts.py``."""
        for number, item in enumerate(items):
            if number in attempts.deadly:
                ended = BadImageError(f"{item.path}: ended the program that read it; it was left out.")
                yield from self._scored([(item, ended)])
                continue
            attempts.touch(number)
            yield from self._scored([(item, self._read(item))])

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
            by_model = [predict_assessed(live, [one.rgb for one in sources]) for live in self.models]
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
        row |= {"verdict": verdict.label, "agreement": verdict.agreement, "disagreement": verdict.spread}
        strange = {one.model_id: one.novelty for one in answers if one.novelty is not None}
        for model_id, novelty in strange.items():
            row |= {f"{DISTANCE}{model_id}": novelty.distance, f"{UNFAMILIAR}{model_id}": novelty.unfamiliar}
        if strange:
            row |= {"out_of_distribution": not verdict.confident, "unfamiliar": ", ".join(verdict.unfamiliar) or None}
        return row

    def _schema(self) -> pa.Schema:
        texts = ("path", "source", "member", "error", "sha256", "format", "notes", *EXIF, *CREDENTIALS)
        texts += ("phash", "dhash", "verdict", "unfamiliar")
        own = [live.spec.id for live in self.models]
        flags = ("c2pa_ai_generated", "out_of_distribution", *(f"{UNFAMILIAR}{model_id}" for model_id in own))
        shares = [f"{live.spec.id}:{label}" for live in self.models for label in live.labels]
        shares += [f"verdict:{label}" for label in self.models[0].labels]
        numbers = [("bytes", pa.int64()), ("width", pa.int32()), ("height", pa.int32())]
        shares += [f"{DISTANCE}{model_id}" for model_id in own]
        numbers += [(name, pa.float64()) for name in (*shares, "agreement", "disagreement")]
        return pa.schema([*((name, pa.string()) for name in texts), *((name, pa.bool_()) for name in flags), *numbers])

    def _agree_on_models(self) -> None:
        """The first worker writes down which weights answer; all others, and resumed runs, must have the same."""
        mine = {
            live.spec.id: {"labels": list(live.labels), **asdict(live.status), "doubt": _describe_doubt(live)}
            for live in self.models
        }
        file = self.folder / "models.json"
        draft = draft_path(file)
        draft.write_text(json.dumps(mine, indent=1), encoding="utf-8")
        try:
            os.link(draft, file)  # unlike a rename it fails where another worker was first
        except FileExistsError:
            if json.loads(file.read_text(encoding="utf-8")) != mine:
                raise ExhibitError(
                    f"other weights or statistics answer now than {file} says; start anew in another folder."
                ) from None
        finally:
            draft.unlink()


def _describe_doubt(live: LiveModel) -> dict[str, float] | None:
    """By what a model's probabilities were divided, and from which distance on a picture is unlike its own."""
    doubt: Doubt | None = getattr(live, "doubt", None)
    return None if doubt is None else doubt.facts.model_dump(include={"temperature", "threshold", "false_alarm"})


def _describe(found: SourceImage) -> dict[str, Any]:
    # Hashes look at grey only, and of a reduced copy: a large picture would cost more to hash than to score.
    small = found.rgb.convert("L").resize((128, 128), Image.Resampling.BOX, reducing_gap=2.0)
    width, height = found.size_wh
    credentials = read_credentials(found.original, found.format)
    told = asdict(credentials) if credentials else {}
    return {
        "sha256": found.sha256,
        "bytes": len(found.original),
        "format": found.format,
        "width": width,
        "height": height,
        "notes": "; ".join(found.notes) or None,
        "phash": str(imagehash.phash(small)),
        "dhash": str(imagehash.dhash(small)),
        **{column: found.exif.get(tag) for column, tag in EXIF.items()},
        **{column: told.get(field) or None for column, field in CREDENTIALS.items()},
        "c2pa_ai_generated": told.get("ai_generated"),
    }
