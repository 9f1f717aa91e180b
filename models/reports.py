"""Saved evaluations: the form of ``report.json``, its one writer and its one reader; no torch, no training code.

A report is a folder: ``report.json`` (``Report``), ``pictures.parquet`` (``sha256`` and ``image``, a small JPEG of each
picture that could be read), plots and ``report.html``. Whatever stands in a report can be recomputed from its rows;
one whose rows and counts contradict each other is refused.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.errors import ExhibitError

__all__ = [
    "NO_ANSWER",
    "NO_LABEL",
    "PICTURES",
    "REPORT",
    "UNREADABLE",
    "AnswerScores",
    "CalibrationBin",
    "ClassFigures",
    "Confusion",
    "Curve",
    "Curves",
    "DataFile",
    "Estimate",
    "LossPoint",
    "Report",
    "ReportError",
    "Row",
    "Share",
    "Strict",
    "parse_report",
    "read_pictures",
    "read_report",
    "write_report",
]

REPORT, PICTURES = "report.json", "pictures.parquet"
NO_ANSWER = "(no answer)"
"""What stands in place of a predicted label where there is none; never right."""
UNREADABLE = "unreadable: "
"""Start of the problem of a picture that could not be read; the reason follows."""
NO_LABEL = "no label in the answer"
"""Problem of a written answer that names none of the labels, or several."""

Share = float
Probability = Field(ge=0, le=1)
Digest = Field(pattern=r"^[0-9a-f]{64}$")


class ReportError(ExhibitError):
    """A saved report cannot be read, or reports cannot be compared."""


class Strict(BaseModel):
    """Frozen; refuses unknown keys, numbers written as text, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Estimate(Strict):
    """A figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class DataFile(Strict):
    """A file or folder that was measured on."""

    file: str
    """Its name, without folders."""
    sha256: str = Digest
    """Of the file; of a folder, over the digests of its pictures in their order."""
    rows: int = Field(ge=1)


class ClassFigures(Strict):
    """How one class fares; ``recall`` is null for a class that does not occur."""

    precision: Share = Probability
    recall: Share | None = Field(ge=0, le=1)
    f1: Share = Probability
    support: int = Field(ge=0)


class Confusion(Strict):
    """Counts, rows true and columns predicted; the last label is ``NO_ANSWER`` in both, and its row is all zero."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class CalibrationBin(Strict):
    """The pictures whose highest probability lies in (low, high]; empty bins are left out."""

    low: Share = Probability
    high: Share = Probability
    confidence: Share = Probability
    """Mean highest probability."""
    accuracy: Share = Probability
    count: int = Field(ge=1)


class Curve(Strict):
    """Points of a curve, thinned out, and the exact area under it (of a PR curve, the average precision)."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    area: Share = Probability


class Curves(Strict):
    """By label, that label against all others.

    ``roc``: x is the false positive rate, y the true positive rate; ``pr``: x is recall, y is precision. A picture
    without probabilities counts as the worst possible answer.
    """

    roc: dict[str, Curve]
    pr: dict[str, Curve]


class LossPoint(Strict):
    """One entry of the training's log."""

    step: int = Field(ge=0)
    loss: float | None = None
    eval_loss: float | None = None


class AnswerScores(Strict):
    """What is known of one free answer, so that figures of any resample can be computed."""

    exact: bool
    relaxed: bool
    rouge1: Share = Probability
    rouge2: Share = Probability
    rougeL: Share = Probability  # noqa: N815 - the name of the figure
    bleu: tuple[int, ...] = Field(min_length=10, max_length=10)
    """n-grams found (4) and written (4), words written, words expected."""


class Row(Strict):
    """One picture, or one question about one picture."""

    sha256: str = Digest
    """Of the picture's bytes; of no bytes where its file could not be opened."""
    source: str
    """Where the picture came from (``file.parquet row 7``)."""
    question: str | None = None
    """Only where each row has a question of its own."""
    truth: str
    answer: str | None = None
    """The text written; null where a model was asked for probabilities, or the picture could not be read."""
    predicted: str | None = None
    """The label, or ``NO_ANSWER``; null in a report of free answers."""
    probabilities: dict[str, float] | None = None
    right: bool
    problem: str | None = None
    scores: AnswerScores | None = None
    """Only in a report of free answers."""

    @property
    def key(self) -> tuple[str, str | None]:
        """By what rows of different reports are paired."""
        return self.sha256, self.question


class Report(Strict):
    """Everything that was found out about one model on one set.

    ``figures``: for labels ``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``roc_auc``, ``ece``; for answers
    ``relaxed_accuracy``, ``exact_match``, ``bleu`` (in [0, 100]), ``rouge1``, ``rouge2``, ``rougeL``; all but BLEU in
    [0, 1], null where one is not defined.
    """

    schema_version: Literal[1] = 1
    kind: Literal["labels", "answers"]
    name: str = Field(min_length=1)
    """Short, for tables."""
    model: str
    """Id in the zoo, or the name of a folder."""
    base: bool
    """Whether the base of an adapter answered, or a model that nobody taught the task."""
    status: str
    data: tuple[DataFile, ...] = Field(min_length=1)
    question: str | None
    """What a vision-language model was asked about every picture."""
    style: str | None
    made_at: AwareDatetime
    command: str
    versions: dict[str, str]
    generated: bool
    """Whether the pictures were drawn by a program, not photographed."""
    labels: tuple[str, ...] = ()
    figures: dict[str, Estimate | None]
    per_class: dict[str, ClassFigures] = Field(default_factory=dict)
    confusion: Confusion | None = None
    calibration: tuple[CalibrationBin, ...] = ()
    curves: Curves | None = None
    loss: tuple[LossPoint, ...] | None = None
    """Of the training, where the model's folder tells it."""
    rows: tuple[Row, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _rows_are_whole(self) -> Self:
        if self.kind == "labels" and (len(set(self.labels)) < max(len(self.labels), 2) or NO_ANSWER in self.labels):
            raise ValueError("labels must be two or more different names")
        for number, row in enumerate(self.rows):
            problem = _find_label_problem(row, self.labels) if self.kind == "labels" else _find_answer_problem(row)
            if problem:
                raise ValueError(f"row {number}: {problem}")
        return self

    @model_validator(mode="after")
    def _counts_are_those_of_the_rows(self) -> Self:
        if self.kind == "answers":
            main, right = self.figures.get("relaxed_accuracy"), [row.right for row in self.rows]
        else:
            main, right = self.figures.get("accuracy"), [row.right for row in self.rows]
            self._check_classes()
        if main is None or not math.isclose(main.value, sum(right) / len(right), abs_tol=1e-6):
            raise ValueError("the accuracy is not that of the rows")
        return self

    def _check_classes(self) -> None:
        if tuple(self.per_class) != self.labels:
            raise ValueError("per_class must have an entry for each label, in their order")
        columns = (*self.labels, NO_ANSWER)
        found = Counter((row.truth, row.predicted) for row in self.rows)
        counts = tuple(tuple(found[true, predicted] for predicted in columns) for true in columns)
        if self.confusion != Confusion(labels=columns, counts=counts):
            raise ValueError("the confusion matrix is not that of the rows")


def _find_label_problem(row: Row, labels: tuple[str, ...]) -> str | None:
    """What is wrong with a row of a report of labels."""
    if row.truth not in labels:
        return f"the truth {row.truth!r} is no label"
    if row.predicted not in (*labels, NO_ANSWER):
        return f"the predicted {row.predicted!r} is no label"
    if row.right != (row.predicted == row.truth):
        return "right contradicts truth and predicted"
    if (row.predicted == NO_ANSWER) != (row.problem is not None):
        return "a problem must be stated where there is no answer, and only there"
    if row.probabilities is None:
        return None
    if tuple(row.probabilities) != labels or min(row.probabilities.values()) < 0:
        return "probabilities must be given for each label, in their order"
    return None if abs(sum(row.probabilities.values()) - 1) < 1e-3 else "the probabilities do not sum to 1"


def _find_answer_problem(row: Row) -> str | None:
    """What is wrong with a row of a report of answers."""
    if row.scores is None or row.question is None:
        return "a question and scores are missing"
    if row.right != row.scores.relaxed:
        return "right contradicts the scores"
    return "an answer is missing" if row.answer is None and row.problem is None else None


def parse_report(text: str | bytes, where: str = REPORT) -> Report:
    """The report in the text of a ``report.json``.

    Args:
        text: JSON.
        where: named in errors.

    Raises:
        ReportError: it is no report of this version, or contradicts itself.
    """
    try:
        return Report.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        entry = ".".join(str(part) for part in first["loc"]) or "report"
        message = " ".join(first["msg"].removeprefix("Value error, ").split())
        raise ReportError(f"{where}: no report that Exhibit can read ({entry}: {message[:200]}).") from error


def read_report(path: Path) -> Report:
    """The report in a folder, or in a ``report.json`` itself.

    Raises:
        ReportError: there is none, or it cannot be used.
    """
    file = path / REPORT if path.is_dir() else path
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ReportError(
            f"{path}: holds no {REPORT}; give a folder written by python -m training evaluate or zeroshot."
        ) from error
    return parse_report(text, str(path))


def write_report(report: Report, folder: Path, pictures: dict[str, bytes]) -> None:
    """Write ``pictures.parquet`` and, last, ``report.json``.

    Args:
        report: to be written.
        folder: created if it is not there.
        pictures: JPEG bytes by digest of the original picture.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {
        "sha256": pa.array(pictures, pa.string()),
        "image": pa.array(pictures.values(), pa.binary()),
    }
    # JPEG does not shrink any further.
    pq.write_table(pa.table(columns), folder / PICTURES, compression="none")
    # One line per row of the set: a difference between two files can be read.
    content = report.model_dump(mode="json")
    rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in content.pop("rows"))
    head = json.dumps(content, indent=1, ensure_ascii=False).removesuffix("\n}")
    (folder / REPORT).write_text(f'{head},\n "rows": [\n{rows}\n]}}\n', encoding="utf-8")


def read_pictures(folder: Path) -> dict[str, bytes]:
    """Small JPEG pictures of a report's folder by digest; none where it has no such file.

    Raises:
        ReportError: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = folder / PICTURES
    if not file.is_file():
        return {}
    try:
        table = pq.read_table(file, columns=["sha256", "image"])
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise ReportError(f"{file}: cannot be read ({str(error).splitlines()[0][:200]}).") from error
    return dict(zip(table["sha256"].to_pylist(), table["image"].to_pylist(), strict=True))
