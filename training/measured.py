"""The set that a model is measured on: pictures with labels, or questions with answers, and where they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.reports import DataFile
from training.errors import DataError
from training.labelled import LabelledSet, read_labelled
from training.layouts import Source, is_hub, read_table
from training.picture_table import QUESTION_COLUMNS, PictureTable, join_tables
from training.questions import QuestionSet, gather_questions

Kind = Literal["labels", "answers"]
MADE_FROM = "seed"
"""Column of a set that was drawn by a program, which starts from it."""


@dataclass(frozen=True)
class MeasuredSet:
    """What is asked of a model.

    Attributes:
        asked: pictures with labels, or questions with answers.
        files: the sources.
        generated: whether the pictures were drawn by a program, not photographed.
    """

    asked: LabelledSet | QuestionSet
    files: tuple[DataFile, ...]
    generated: bool

    @property
    def where(self) -> str:
        """Names of the sources."""
        return ", ".join(file.file for file in self.files)


def read_measured(
    sources: Sequence[Source], *, names: Sequence[str] | None = None, kind: Kind | None = None
) -> MeasuredSet:
    """Read one or several sources as one; changed copies of pictures, made to learn from, are left out.

    Args:
        sources: files, folders or ``hub:OWNER/NAME#SPLIT``; see ``training.layouts.read_table``.
        names: label names by index, for numbered labels whose file does not name them.
        kind: what the rows are; answers where they have questions when not given.

    Raises:
        DataError: if a source cannot be used, or some have questions and others only labels.
    """
    if not sources:
        raise DataError("no set given; name one with --data.")
    tables = [read_table(source) for source in sources]
    if kind is None:
        asks = {any(name in table.columns.column_names for name in QUESTION_COLUMNS) for table in tables}
        if len(asks) > 1:
            raise DataError("some of the sets have questions and others only labels; measure them one by one.")
        kind = "answers" if asks.pop() else "labels"
    asked = gather_questions(join_tables(tables)) if kind == "answers" else read_labelled(sources, names).originals()
    files = tuple(describe_source(source, table) for source, table in zip(sources, tables, strict=True))
    return MeasuredSet(asked, files, all(MADE_FROM in table.columns.column_names for table in tables))


def describe_source(source: Source, table: PictureTable) -> DataFile:
    """Name, digest and rows of a source; of a folder the digest is over those of its pictures."""
    path = Path(source)
    digest = hashlib.sha256()
    if not is_hub(source) and path.is_file():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    else:
        for picture in table.pictures:
            digest.update(hashlib.sha256(picture if isinstance(picture, bytes) else picture.read_bytes()).digest())
    return DataFile(
        file=str(source) if is_hub(source) else path.resolve().name, sha256=digest.hexdigest(), rows=len(table)
    )
