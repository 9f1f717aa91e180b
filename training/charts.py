"""Charts with questions, exact answers and the box of the mark that answers, made from a seed.

The figures, the look and the questions of picture ``i`` depend on the seed and on ``i`` alone, so any number of worker
processes writes the same file.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import matplotlib as mpl
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from training.chart_data import CHART_KINDS, ChartData, draw_data
from training.chart_drawing import Box, Drawing, draw_chart
from training.chart_questions import ASKERS, ChartQuestion, ask_questions
from training.chart_style import draw_style
from training.errors import DataError

ROWS_AT_ONCE = 256  # of one row group, so that memory does not grow with the file
PICTURES_PER_TASK = 4
LOOKS_TRIED = 200
Row = TypeVar("Row")
LARGEST_DICTIONARY = 64 * 2**20  # bytes; a picture that several questions share is stored once


@dataclass(frozen=True)
class Chart:
    """One generated picture.

    Attributes:
        seed: makes it again.
        data: the figures.
        drawing: the picture and its boxes.
        questions: about it.
    """

    seed: int
    data: ChartData
    drawing: Drawing
    questions: tuple[ChartQuestion, ...]

    def answer_box(self, question: ChartQuestion) -> Box:
        """The box around all marks that answer, or around the title; xyxy in pixels."""
        if not question.marks:
            if self.drawing.title_xyxy is None:
                raise ValueError("a question about the title of a chart without one")
            return self.drawing.title_xyxy
        boxes = [self.drawing.boxes_xyxy[mark] for mark in question.marks]
        lefts, tops, rights, bottoms = zip(*boxes, strict=True)
        return min(lefts), min(tops), max(rights), max(bottoms)


def make_chart(seed: int, questions: int = 6, ask: Sequence[str] = ()) -> Chart:
    """Make one chart.

    Args:
        seed: of this picture.
        questions: at most so many about it.
        ask: only these questions, of ``ASKERS``.

    Returns:
        The same chart for the same arguments.
    """
    random = Random(seed)  # noqa: S311 - draws pictures, guards nothing
    while True:  # an unlucky title for the drawn size; the next figures are as good
        data = draw_data(random)
        looks = (draw_chart(data, draw_style(random, data)) for _ in range(LOOKS_TRIED))
        drawing = next((look for look in looks if look is not None), None)
        if drawing is not None:
            return Chart(seed, data, drawing, ask_questions(random, data, questions, ask))


def picture_seed(seed: int, index: int) -> int:
    """The seed of one picture of a set, in [0, 2**63)."""
    digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def make_rows(seed: int, questions: int, ask: Sequence[str], index: int) -> list[dict[str, Any]]:
    """The rows of one picture of a set, one per question, as the parquet file holds them."""
    own = picture_seed(seed, index)
    if ask and not ask_questions(Random(own), draw_data(Random(own)), 1, ask):  # noqa: S311 - draws, guards nothing
        return []  # before it is drawn, which is what takes time
    chart = make_chart(own, questions, ask)
    image = {"bytes": chart.drawing.png, "path": f"{index:07d}.png"}
    return [
        {
            "image": image,
            "question": question.text,
            "answer": question.answer,
            "question_kind": question.kind,
            "answer_box_xyxy": [round(side, 2) for side in chart.answer_box(question)],
            "chart_kind": chart.data.kind,
            "seed": chart.seed,
        }
        for question in chart.questions
    ]


def write_charts(
    out: Path, count: int, seed: int, *, questions: int = 6, ask: Sequence[str] = (), workers: int = 1
) -> dict[str, Any]:
    """Write ``charts.parquet`` and, last, ``charts.json`` into a folder.

    Args:
        out: folder to create; it must not hold charts yet.
        count: how many pictures.
        seed: the same seed and count give the same file, whatever the number of workers.
        questions: at most so many about each picture.
        ask: only these questions, of ``ASKERS``; a chart that none of them fits is left out, so there are fewer.
        workers: processes.

    Returns:
        The content of ``charts.json``: counts by kind of chart, of question and of yes and no.

    Raises:
        DataError: if a number is not positive, or ``out`` holds charts already.
    """
    if min(count, questions, workers) < 1:
        raise DataError("--count, --questions and --workers must be at least 1.")
    if unknown := sorted(set(ask) - set(ASKERS)):
        raise DataError(f"--ask {' '.join(unknown)}: choose among {', '.join(ASKERS)}.")
    if (out / "charts.json").exists():
        raise DataError(f"{out}: holds charts already; give another --out or remove it.")
    out.mkdir(parents=True, exist_ok=True)
    unfinished = out / "charts.parquet.partial"
    pictures, asked, answers = Counter[str](), Counter[str](), Counter[str]()
    drawn = draw_all(partial(make_rows, seed, questions, tuple(ask)), count, workers)
    with pq.ParquetWriter(unfinished, _schema(), dictionary_pagesize_limit=LARGEST_DICTIONARY) as writer:
        rows = _count_rows(drawn, pictures, asked, answers)
        while group := list(islice(rows, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(group, schema=_schema()))
    unfinished.rename(out / "charts.parquet")
    summary = {
        "schema_version": 1,
        "seed": seed,
        "pictures": pictures.total(),
        "questions": asked.total(),
        "asked": list(ask),
        "chart_kinds": {kind: pictures[kind] for kind in CHART_KINDS},
        "question_kinds": dict(sorted(asked.items())),
        "yes": answers["yes"],
        "no": answers["no"],
        "generated_with": f"matplotlib {mpl.__version__}",
    }
    (out / "charts.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def draw_all(make: Callable[[int], Row], count: int, workers: int) -> Iterator[Row]:
    """What ``make`` gives for every picture of a set, in order.

    Args:
        make: takes a picture's number; can be pickled where there are several workers.
        count: how many pictures.
        workers: processes.
    """
    progress = partial(tqdm, total=count, desc="drawing", unit="chart", mininterval=1.0)
    if workers == 1:
        yield from progress(map(make, range(count)))
        return
    # Started afresh: a copied process would inherit locks of the threads that other libraries have started.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from progress(pool.imap(make, range(count), chunksize=PICTURES_PER_TASK))


def _count_rows(
    pictures: Iterator[Sequence[dict[str, Any]]], kinds: Counter[str], asked: Counter[str], answers: Counter[str]
) -> Iterator[dict[str, Any]]:
    for rows in pictures:
        kinds.update(row["chart_kind"] for row in rows[:1])
        asked.update(row["question_kind"] for row in rows)
        answers.update(row["answer"] for row in rows if row["question_kind"] == "yes-no")
        yield from rows


def _schema() -> pa.Schema:
    """What ``datasets`` reads: the picture as an image, the rest by its type."""
    texts = ("question", "answer", "question_kind", "chart_kind")
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "answer_box_xyxy": {"feature": {"dtype": "float32", "_type": "Value"}, "length": 4, "_type": "List"},
        "seed": {"dtype": "int64", "_type": "Value"},
    } | {name: {"dtype": "string", "_type": "Value"} for name in texts}
    types: dict[str, Any] = {
        "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        "question": pa.string(),
        "answer": pa.string(),
        "question_kind": pa.string(),
        "answer_box_xyxy": pa.list_(pa.float32(), 4),
        "chart_kind": pa.string(),
        "seed": pa.int64(),
    }
    ordered = {name: features[name] for name in types}
    return pa.schema(list(types.items()), metadata={"huggingface": json.dumps({"info": {"features": ordered}})})
