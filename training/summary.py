"""What of a report goes into the ``metrics.json`` of a bundled model, in all and by each column of the set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.report_figures import build_statistic
from models.reports import Report, Row

MAIN = "accuracy"
MOST_VALUES = 40
"""A column with more different values (a caption) groups nothing."""


def summarise_report(report: Report) -> dict[str, Any]:
    """Figures of a report as plain numbers, their 95 % intervals beside them under ``intervals``.

    ``accuracy`` is there for answers too, where it is the relaxed accuracy; ``confusion`` (rows true, columns
    predicted) leaves out the ``unanswered`` rows.
    """
    figures = dict(report.figures)
    if report.kind == "answers":
        figures = {MAIN: figures["relaxed_accuracy"]} | figures
    summary: dict[str, Any] = {
        "pictures": len({row.sha256 for row in report.rows}) if report.kind == "answers" else len(report.rows),
        **({"questions": len(report.rows)} if report.kind == "answers" else {}),
        "unanswered": sum(row.problem is not None for row in report.rows),
        **{name: one.value if one else None for name, one in figures.items()},
        "intervals": {name: [one.low, one.high] for name, one in figures.items() if one},
    }
    if report.confusion:
        summary["per_class"] = {label: one.model_dump() for label, one in report.per_class.items()}
        summary["confusion"] = [list(row[:-1]) for row in report.confusion.counts[:-1]]
    return summary


def summarise_groups(report: Report, columns: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """Accuracy and ROC AUC for each value of each column of text, by column.

    The pictures of a value that occurs with one label only (a generator's fakes) are set against all pictures of the
    other labels for the AUC, which would not be defined otherwise.

    Args:
        report: of labels.
        columns: values aligned with the report's rows, by name.
    """
    values = {name: sorted({str(value) for value in column}) for name, column in columns.items()}
    return {
        name: {value: _summarise_group(report, [str(one) == value for one in columns[name]]) for value in found}
        for name, found in values.items()
        if 1 < len(found) <= MOST_VALUES
    }


def _summarise_group(report: Report, members: Sequence[bool]) -> dict[str, Any]:
    rows = [row for row, inside in zip(report.rows, members, strict=True) if inside]
    truths = {row.truth for row in rows}
    against = rows
    if len(truths) == 1:
        against = [row for row, inside in zip(report.rows, members, strict=True) if inside or row.truth not in truths]
    return {
        "pictures": len(rows),
        "labels": sorted(truths),
        "accuracy": sum(row.right for row in rows) / len(rows),
        "roc_auc": _measure_area(against, report.labels),
    }


def _measure_area(rows: Sequence[Row], labels: Sequence[str]) -> float | None:
    area = build_statistic(rows, labels)(np.ones(len(rows), dtype=np.int64))["roc_auc"]
    return None if np.isnan(area) else area
