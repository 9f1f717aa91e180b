"""Pictures with questions and the answers to be learnt, from the files there are.

Questions are taken as they stand or made: those about objects from boxes (compare POPE, Li et al. 2023: present objects
against absent ones that are common elsewhere), claims of either truth ask whether they hold, captions answer one fixed
question, and a labelled set asks for its label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.errors import DataError
from training.labelled import read_labelled
from training.language_recipe import QuestionSource
from training.layouts import Source, locate, read_table
from training.picture_table import ANSWER_COLUMNS, QUESTION_COLUMNS, PictureTable, write_text

LARGEST_COUNT = 5  # more things than that are not counted reliably by the boxes either


@dataclass(frozen=True)
class Question:
    """One question about one picture.

    Attributes:
        picture: index in ``QuestionSet.pictures``.
        text: as a person would write it.
        answer: what is to be written.
    """

    picture: int
    text: str
    answer: str


@dataclass(frozen=True)
class QuestionSet:
    """Encoded pictures and the questions about them."""

    pictures: tuple[bytes | Path, ...]
    questions: tuple[Question, ...]

    def __len__(self) -> int:
        """Number of questions."""
        return len(self.questions)


def gather_questions(table: PictureTable) -> QuestionSet:
    """The questions of a table in their order; each picture stands once, however many ask about it.

    Raises:
        DataError: if the table lacks questions or answers, or one of them is empty.
    """
    if not len(table):
        raise DataError(f"{table.where}: holds no question.")
    questions, answers = (
        [write_text(value) for value in table.get_list(table.find_column(wanted))]
        for wanted in (QUESTION_COLUMNS, ANSWER_COLUMNS)
    )
    asked = []
    for row, (text, answer) in enumerate(zip(questions, answers, strict=True)):
        if text is None or answer is None:
            raise DataError(f"{table.sources[row]} needs a question and an answer.")
        asked.append(Question(int(table.places[row]), text, answer))
    return QuestionSet(table.pictures, tuple(asked))


def read_questions(sources: Sequence[QuestionSource], root: Path, seed: int) -> QuestionSet:
    """The questions of all sources, in their order.

    Args:
        sources: files and how to ask about them.
        root: folder of the files.
        seed: chooses among the captions and objects of a picture.

    Raises:
        DataError: if a file or column is missing, or a label has no answer.
    """
    pictures: list[bytes | Path] = []
    questions: list[Question] = []
    for source in sources:
        first = len(pictures)
        found, asked = _READERS[source.kind](source, locate(root, source.file), Random(seed))  # noqa: S311 - chooses questions, guards nothing
        pictures += found
        questions += [Question(first + picture, text, answer) for picture, text, answer in asked]
    return QuestionSet(tuple(pictures), tuple(questions))


Asked = Iterator[tuple[int, str, str]]


def _from_labels(source: QuestionSource, path: Source, _random: Random) -> tuple[list[bytes | Path], Asked]:
    labelled = read_labelled(path)
    missing = [name for name in labelled.names if name not in source.answers]
    if missing:
        raise DataError(f"{source.file}: the recipe has no answer for the label {', '.join(missing)}.")
    answers = [source.answers[labelled.names[label]] for label in labelled.labels]
    return list(labelled.pictures), ((i, source.question or "", answer) for i, answer in enumerate(answers))


def _from_captions(source: QuestionSource, path: Source, random: Random) -> tuple[list[bytes | Path], Asked]:
    rows = [row for row in _read_rows(path, ("image", "captions")) if row["captions"]]

    def ask() -> Asked:
        for index, row in enumerate(rows):
            captions = row["captions"]
            for caption in random.sample(captions, min(source.per_picture, len(captions))):
                yield index, source.question or "", " ".join(caption.lower().replace(" ,", ",").split()).rstrip(" .")

    return [row["image"]["bytes"] for row in rows], ask()


def _from_objects(source: QuestionSource, path: Source, random: Random) -> tuple[list[bytes | Path], Asked]:
    rows = list(_read_rows(path, ("image", "labels", "boxes_xyxy")))
    common = Counter(label for row in rows for label in set(row["labels"]))
    names = sorted(common)

    def ask() -> Asked:
        for index, row in enumerate(rows):
            counts = Counter(row["labels"])
            for name in random.sample(sorted(counts), min(source.per_picture // 2, len(counts))):
                yield index, f"Is there a {name} in the image?", "yes"
                if counts[name] <= LARGEST_COUNT:
                    yield index, f"How many {name}s are in the image?", str(counts[name])
            absent = [name for name in names if name not in counts]
            weights = [common[name] for name in absent]
            for number, name in enumerate(dict.fromkeys(random.choices(absent, weights, k=source.per_picture // 2))):
                yield index, f"Is there a {name} in the image?", "no"
                if number % 2 == 0:
                    yield index, f"How many {name}s are in the image?", "0"

    return [row["image"]["bytes"] for row in rows], ask()


def _from_questions(source: QuestionSource, path: Source, _random: Random) -> tuple[list[bytes | Path], Asked]:
    found = gather_questions(read_table(path))
    put = source.question or "{question}"
    return list(found.pictures), (
        (one.picture, put.replace("{question}", one.text), one.answer) for one in found.questions
    )


def _from_claims(source: QuestionSource, path: Source, random: Random) -> tuple[list[bytes | Path], Asked]:
    rows = [row for row in _read_rows(path, ("image", "claims_true", "claims_false")) if row["claims_true"]]

    def ask() -> Asked:
        for index, row in enumerate(rows):
            pairs = list(zip(row["claims_true"], row["claims_false"] or (), strict=False))
            # A claim and its counterpart together: one answer to both, without looking, is right half the time.
            for pair in random.sample(pairs, min(max(source.per_picture // 2, 1), len(pairs))):
                for claim, truth in zip(pair, ("true", "false"), strict=True):
                    yield index, (source.question or "").replace("{claim}", claim), source.answers[truth]

    return [row["image"]["bytes"] for row in rows], ask()


def _read_rows(path: Source, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    if not isinstance(path, Path) or path.suffix != ".parquet":
        raise DataError(f"{path}: captions, objects and claims are read from parquet files only.")
    try:
        table = pq.read_table(path, columns=list(columns))
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]}).") from error
    missing = set(columns) - set(table.column_names)
    if missing:
        raise DataError(f"{path.name}: no column {' and '.join(sorted(missing))}.")
    yield from table.to_pylist()


_READERS = {
    "labels": _from_labels,
    "captions": _from_captions,
    "objects": _from_objects,
    "questions": _from_questions,
    "claims": _from_claims,
}
