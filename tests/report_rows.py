"""Rows and reports of evaluations, put together for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from models.report_figures import build_statistic, count_confusion, describe_classes
from models.reports import NO_ANSWER, NO_LABEL, Confusion, DataFile, Estimate, Report, Row


def make_row(
    number: int, truth: str, predicted: str | None, probabilities: Sequence[float] = (), labels: Sequence[str] = ()
) -> Row:
    """The row of picture ``number``; without a predicted label, one whose answer named none."""
    return Row(
        sha256=hashlib.sha256(str(number).encode()).hexdigest(),
        source=f"set row {number}",
        truth=truth,
        predicted=predicted or NO_ANSWER,
        probabilities=dict(zip(labels, probabilities, strict=True)) if probabilities else None,
        right=predicted == truth,
        problem=None if predicted else NO_LABEL,
    )


def make_report(rows: Sequence[Row], labels: Sequence[str], name: str = "model") -> Report:
    """A report of labels with those rows and figures without intervals worth the name."""
    values = build_statistic(rows, labels)(np.ones(len(rows), dtype=np.int64))
    confusion = count_confusion(rows, labels)
    return Report(
        kind="labels",
        name=name,
        model=name,
        base=False,
        status="fine-tuned",
        data=(DataFile(file="set.parquet", sha256="0" * 64, rows=len(rows)),),
        question=None,
        style=None,
        made_at=datetime(2026, 1, 2, tzinfo=UTC),
        command="python -m training evaluate",
        versions={},
        generated=True,
        labels=tuple(labels),
        figures={
            name: None if np.isnan(value) else Estimate(value=value, low=value, high=value)
            for name, value in values.items()
        },
        per_class=describe_classes(confusion, labels),
        confusion=Confusion(
            labels=(*labels, NO_ANSWER),
            counts=(*(tuple(row) for row in confusion.tolist()), (0,) * (len(labels) + 1)),
        ),
        rows=tuple(rows),
    )
