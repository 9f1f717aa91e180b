"""Runs that the page scores itself or opens: which folders may be read, which rows are shown, the pictures behind."""

from __future__ import annotations

import csv
import io
import time
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, Final

from gradio.utils import get_upload_folder

from bulk.parts import PLAN, Job, write_plan
from bulk.results import DISTANCE, Place, Run
from bulk.sources import Item, Reader, list_items
from models.errors import ExhibitError
from models.imaging import SourceImage, read_image
from ui.files import fresh_path, is_upload
from ui.markup import model_name
from ui.services import Services
from ui.text import say

if TYPE_CHECKING:
    import pyarrow as pa

MAX_PICTURES: Final = 5000
MAX_ROWS: Final = 2_000_000
CHUNK: Final = 16
BINS: Final = 20
DOUBTFUL: Final = 0.5
"""Spread of the models' probabilities from which they are said to disagree."""
ABOVE, ALL, SPLIT, UNLIKE, FAILED = "above", "all", "doubtful", "unlike", "failed"
_KEPT: Final = 4
_COLUMNS: Final = (
    "path",
    "error",
    "sha256",
    "verdict",
    "disagreement",
    "c2pa_signature",
    "c2pa_ai_generated",
    "out_of_distribution",
    "unfamiliar",
)


@dataclass(frozen=True)
class Progress:
    """How far scoring is.

    Attributes:
        done: pictures that have a row.
        count: pictures in all.
        seconds: since the start.
    """

    done: int
    count: int
    seconds: float


@dataclass(frozen=True)
class Sight:
    """What of a run is looked at.

    Attributes:
        label: what is looked for.
        threshold: least probability, for ``ABOVE``.
        which: ``ABOVE``, ``ALL``, ``SPLIT``, ``UNLIKE`` or ``FAILED``.
        find: part of the name.
        sort: ``probability``, ``disagreement``, ``name`` or ``verdict``.
        rising: whether small values come first.
        page: counted from 0.
    """

    label: str = ""
    threshold: float = 0.5
    which: str = ALL
    find: str = ""
    sort: str = "probability"
    rising: bool = False
    page: int = 0


@dataclass(frozen=True)
class Stranger:
    """A model, as one to which pictures can be strange.

    Attributes:
        name: what people read.
        threshold: distance above which a picture is unlike its training pictures; ``None`` where none was kept.
    """

    name: str
    threshold: float | None


def list_folders(services: Services) -> dict[str, Path]:
    """What the operator opened, by the name it is chosen by: the folders, and the folders in them."""
    found: dict[str, Path] = {}
    for root in services.folders:
        found[root.name] = root
        for one in sorted(root.iterdir()):
            if one.is_dir() and not one.is_symlink() and not one.name.startswith("."):
                found[f"{root.name}/{one.name}"] = one
    return found


def check_uploads(language: str, files: Sequence[Path]) -> list[Path]:
    """The files that a visitor brought; whoever writes another path of this server into the request is refused.

    Raises:
        ExhibitError: one was not uploaded.
    """
    if not all(map(is_upload, files)):
        raise ExhibitError(say(language, "triage.choose"))
    return list(files)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run that can be opened."""
    return (folder / PLAN).is_file()


def score(
    services: Services, language: str, inputs: Sequence[Path], task: str, models: tuple[str, ...], stopping: Event
) -> Iterator[tuple[Path, Progress]]:
    """Score pictures here, a few at a time.

    Args:
        services: whose models answer.
        language: of the page, for what is refused.
        inputs: files and folders.
        task: the question.
        models: zoo ids; empty for the default ones.
        stopping: ends it after the pictures at hand.

    Yields:
        The folder of the run, and how far it is.

    Raises:
        ExhibitError: there are no pictures or too many, or no model answers.
    """
    from bulk.scoring import ChunkScorer

    folder = fresh_path("run")
    folder.mkdir()
    items = list(islice(list_items([str(one) for one in inputs]), MAX_PICTURES + 1))
    if not items:
        raise ExhibitError(say(language, "triage.no_pictures"))
    if len(items) > MAX_PICTURES:
        raise ExhibitError(say(language, "triage.too_many", count=f"{MAX_PICTURES}+", most=MAX_PICTURES))
    count, chunks = write_plan(items, folder, CHUNK)
    started, done = time.perf_counter(), 0
    scorer = ChunkScorer(Job(str(folder), task, models or services.default_models(task)), services.loader)
    for chunk in range(chunks):
        rows, _ = scorer.score(chunk)
        done += rows
        yield folder, Progress(done, count, time.perf_counter() - started)
        if stopping.is_set():
            return


class Runs:
    """The rows of the runs looked at lately, so that sorting them anew reads no file.

    Args:
        services: with the operator's folders.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._kept: OrderedDict[tuple[Path, int], pa.Table] = OrderedDict()
        self._lock = Lock()

    def table(self, folder: Path) -> pa.Table:
        """All rows of a run, with the columns ``chunk`` and ``row`` that say where each stands.

        Raises:
            ExhibitError: it is gone, damaged, or larger than the page shows.
        """
        import pyarrow as pa

        run = Run(folder)
        parts = sum(1 for _ in folder.glob("rows/*/part-*.parquet"))
        with self._lock:
            known = self._kept.get((folder, parts))
        if known is not None:
            return known
        if run.pictures > MAX_ROWS:
            raise ExhibitError(f"{folder.name} has {run.pictures} rows, more than the {MAX_ROWS} shown here.")
        measured = [f"{DISTANCE}{model_id}" for model_id in run.thresholds]
        columns = [*_COLUMNS, *(f"verdict:{label}" for label in run.labels), *measured]
        tables = [
            table.append_column("chunk", pa.array([chunk] * table.num_rows, pa.int64())).append_column(
                "row", pa.array(range(table.num_rows), pa.int64())
            )
            for chunk, table in run.read(columns)
        ]
        if not tables:
            raise ExhibitError(f"{folder.name} has no rows yet; finish the run first.")
        whole = pa.concat_tables(tables)
        with self._lock:
            self._kept[(folder, parts)] = whole
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return whole

    def labels(self, folder: Path) -> tuple[str, ...]:
        """The labels of a run's verdicts."""
        return Run(folder).labels

    def strangers(self, folder: Path) -> dict[str, Stranger]:
        """The models of a run by id, with what tells that one has not seen such pictures."""
        run = Run(folder)
        specs, thresholds = self._services.zoo.specs, run.thresholds
        return {one: Stranger(model_name(specs, one), thresholds.get(one)) for one in run.models}

    def histogram(self, folder: Path, label: str) -> list[int]:
        """Pictures by probability of a label, in ``BINS`` equal bins of [0, 1]."""
        import numpy as np

        values = self.table(folder).column(f"verdict:{label}").drop_null().to_numpy()
        return [int(count) for count in np.histogram(values, BINS, (0.0, 1.0))[0]]

    def select(self, folder: Path, sight: Sight) -> pa.Table:
        """The rows that are looked at, in order; ``probability`` is that of the label."""
        import pyarrow.compute as pc

        table = self.table(folder)
        table = table.append_column("probability", table.column(f"verdict:{sight.label}"))
        wanted = {
            ABOVE: lambda: pc.greater_equal(table["probability"], sight.threshold),
            SPLIT: lambda: pc.greater_equal(table["disagreement"], DOUBTFUL),
            UNLIKE: lambda: pc.is_valid(table["unfamiliar"]),
            FAILED: lambda: pc.is_valid(table["error"]),
        }.get(sight.which)
        if wanted is not None:
            table = table.filter(pc.fill_null(wanted(), False))
        if sight.find.strip():
            found = pc.match_substring(table["path"], sight.find.strip(), ignore_case=True)
            table = table.filter(found)
        column = "path" if sight.sort == "name" else sight.sort
        order = "ascending" if sight.rising else "descending"
        return table.sort_by([(column, order), ("chunk", "ascending"), ("row", "ascending")])

    def read(self, folder: Path, places: Sequence[Place]) -> list[SourceImage | str]:
        """The pictures behind rows, or why one cannot be shown.

        A run may have been brought from elsewhere: only what lies in it, in the operator's folders or among the
        page's own files is read.
        """
        reader, found = Reader(), list[SourceImage | str]()
        roots = [one.resolve() for one in (*self._services.folders, Path(get_upload_folder()))]
        for item in Run(folder).items(places):
            try:
                self._check(item, roots)
                found.append(read_image(reader.read(item), name=short_name(item.path)))
            except ExhibitError as error:
                found.append(" ".join(str(error).split()))
        reader.close()
        return found

    def _check(self, item: Item, roots: Sequence[Path]) -> None:
        if "://" in item.source or not any(Path(item.source).resolve().is_relative_to(root) for root in roots):
            raise ExhibitError(say("en", "triage.outside"))

    def pack(self, folder: Path, task: str) -> Path:
        """Everything found as one zip: rows as a spreadsheet and as parquet, and the page ``summary.html``."""
        import pyarrow.parquet as pq

        from bulk.shortlist import Choice, make_shortlist
        from bulk.summary import write_summary

        run = Run(folder)
        archive = fresh_path("exhibit-triage.zip")
        if not (folder / "summary.html").exists():
            write_summary(run, make_shortlist(run, Choice()), task)
        text = io.StringIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.write(folder / "summary.html", "summary.html")
            writer = None
            rows = archive.with_name("rows.parquet")
            for _, table in run.read():
                if writer is None:
                    writer = pq.ParquetWriter(rows, table.schema)
                    csv.writer(text).writerow(table.column_names)
                writer.write_table(table)
                csv.writer(text).writerows([_cell(value) for value in row.values()] for row in table.to_pylist())
            if writer is not None:
                writer.close()
                packed.write(rows, "rows.parquet")
                rows.unlink()
            packed.writestr("rows.csv", text.getvalue())
        return archive


def short_name(path: str) -> str:
    """A picture's name without the folders of whoever has it."""
    return path.replace("\\", "/").rpartition("/")[2]


def _cell(value: Any) -> Any:  # noqa: ANN401 - any value of a row
    """A value as a spreadsheet may hold it: text that would be read as a formula is quoted."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
