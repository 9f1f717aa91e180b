"""A model's answers as a saved report: figures with intervals, curves, plots, small pictures and a page to print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from models.intervals import RESAMPLES, estimate
from models.report_figures import (
    build_statistic,
    count_confusion,
    describe_classes,
    group_rows,
    measure_calibration,
    rank_scores,
)
from models.reports import NO_ANSWER, Confusion, Curve, Curves, DataFile, Estimate, LossPoint, Report, Row, write_report
from training.answering import Answered
from training.plots import save_confusion, save_curves, save_figures, save_loss_curve, save_reliability
from training.report_page import write_report_page

MOST_POINTS = 200
PACKAGES = ("torch", "transformers", "peft", "numpy", "scikit-learn", "sacrebleu", "rouge-score")


@dataclass(frozen=True)
class About:
    """What a report says beside the answers.

    Attributes:
        name: short, for tables.
        model: id in the zoo, or the name of a folder.
        base: whether the base of an adapter answered, or a model that nobody taught the task.
        status: which weights answered.
        data: what was measured on.
        question: what was asked about every picture.
        style: how it was asked.
        command: the command line.
        generated: whether the pictures were drawn by a program.
        history: entries of the training's log.
    """

    name: str
    model: str
    base: bool
    status: str
    data: Sequence[DataFile]
    question: str | None
    style: str | None
    command: str
    generated: bool
    history: Iterable[Mapping[str, Any]] = ()


def build_report(answered: Answered, about: About, *, seed: int = 0, resamples: int = RESAMPLES) -> Report:
    """Measure a model's answers.

    Args:
        answered: at least one row.
        about: everything else.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    rows, labels = answered.rows, answered.labels
    confusion = count_confusion(rows, labels) if labels else None
    return Report(
        kind="labels" if labels else "answers",
        name=about.name,
        model=about.model,
        base=about.base,
        status=about.status,
        data=tuple(about.data),
        question=about.question,
        style=about.style,
        made_at=datetime.now(UTC).replace(microsecond=0),
        command=about.command,
        versions={name: metadata.version(name) for name in PACKAGES},
        generated=about.generated,
        labels=labels,
        figures=estimate_figures(rows, labels, seed=seed, resamples=resamples),
        per_class={} if confusion is None else describe_classes(confusion, labels),
        confusion=None if confusion is None else _frame_confusion(confusion, labels),
        calibration=measure_calibration(rows),
        curves=trace_curves(rows, labels),
        loss=_read_losses(about.history),
        rows=rows,
    )


def estimate_figures(
    rows: Sequence[Row], labels: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Estimate | None]:
    """Every figure with its 95 % interval, the pictures being resampled; None where one is not defined."""
    groups = group_rows(rows)
    found = estimate(build_statistic(rows, labels), len(rows), groups=groups, seed=seed, resamples=resamples)
    return {name: None if one["value"] is None else Estimate.model_validate(one) for name, one in found.items()}


def save_report(report: Report, thumbnails: Mapping[str, bytes], out: Path) -> None:
    """Write plots, ``report.html``, ``pictures.parquet`` and, last, ``report.json``; an older report is replaced."""
    out.mkdir(parents=True, exist_ok=True)
    plots = {name: out / f"{name}.png" for name in draw_plots(report, out)}
    write_report_page(report, thumbnails, plots, out / "report.html")
    write_report(report, out, dict(thumbnails))


def draw_plots(report: Report, out: Path) -> list[str]:
    """Write the plots that a report has something for.

    Returns:
        Their names, without ``.png``.
    """
    drawn = ["figures"]
    save_figures(report.figures, out / "figures.png")
    if report.confusion:
        save_confusion(report.confusion, out / "confusion.png")
        drawn.append("confusion")
    if report.calibration:
        save_reliability(report.calibration, out / "reliability.png")
        drawn.append("reliability")
    if report.curves:
        save_curves(report.curves.roc, out / "roc.png", axes=("false positive rate", "true positive rate"))
        save_curves(report.curves.pr, out / "pr.png", axes=("recall", "precision"))
        drawn += ["roc", "pr"]
    if report.loss:
        save_loss_curve([point.model_dump(exclude_none=True) for point in report.loss], out / "loss.png")
        drawn.append("loss")
    return drawn


def trace_curves(rows: Sequence[Row], labels: Sequence[str]) -> Curves | None:
    """ROC and PR curve of each label against all others; None where no row has probabilities.

    A label that all rows have, or none, has no curve.
    """
    if not labels or all(row.probabilities is None for row in rows):
        return None
    roc: dict[str, Curve] = {}
    pr: dict[str, Curve] = {}
    for label in labels:
        positive, scores = np.array([row.truth == label for row in rows]), rank_scores(rows, label)
        if positive.all() or not positive.any():
            continue
        false_rate, true_rate, _ = roc_curve(positive, scores)
        roc[label] = _thin(false_rate, true_rate, float(roc_auc_score(positive, scores)))
        precision, recall, _ = precision_recall_curve(positive, scores)
        pr[label] = _thin(recall[::-1], precision[::-1], float(average_precision_score(positive, scores)))
    return Curves(roc=roc, pr=pr) if roc else None


def _thin(x: NDArray[np.float64], y: NDArray[np.float64], area: float) -> Curve:
    kept = np.unique(np.linspace(0, len(x) - 1, MOST_POINTS).round().astype(int))
    return Curve(x=tuple(x[kept].round(5).tolist()), y=tuple(y[kept].round(5).tolist()), area=area)


def _frame_confusion(counts: NDArray[np.int64], labels: Sequence[str]) -> Confusion:
    rows = [*counts.tolist(), [0] * (len(labels) + 1)]
    return Confusion(labels=(*labels, NO_ANSWER), counts=tuple(tuple(row) for row in rows))


def _read_losses(history: Iterable[Mapping[str, Any]]) -> tuple[LossPoint, ...] | None:
    keys = ("loss", "eval_loss")
    points = tuple(
        LossPoint(step=int(one["step"]), **{key: float(one[key]) for key in keys if key in one})
        for one in history
        if any(key in one for key in keys)
    )
    return points or None
