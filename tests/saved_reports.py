"""Small reports with pictures made here: what ``evaluate`` and ``zeroshot`` leave behind, without any model."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

from models.intervals import estimate
from models.report_figures import build_statistic, count_confusion, describe_classes, group_rows, measure_calibration
from models.reports import NO_ANSWER, AnswerScores, Confusion, DataFile, Estimate, LossPoint, Report, Row, write_report

LABELS = ("fake", "real")
COUNT = 12


def draw_picture(seed: int, side: int = 96) -> bytes:
    """A coarse pattern as JPEG bytes."""
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


PICTURES = {hashlib.sha256(data).hexdigest(): data for data in map(draw_picture, range(COUNT))}


def label_rows(wrong: Sequence[int] = (), silent: Sequence[int] = (), labels: Sequence[str] = LABELS) -> list[Row]:
    """A row per picture, every second of one label; those in ``wrong`` take another, those in ``silent`` none."""
    rows = []
    for number, digest in enumerate(PICTURES):
        truth = labels[number % len(labels)]
        given = labels[(number + 1) % len(labels)] if number in wrong else truth
        sure = 0.6 + 0.03 * number
        rest = (1 - sure) / (len(labels) - 1)
        rows.append(
            Row(
                sha256=digest,
                source=f"/home/someone/set.parquet row {number}",
                truth=truth,
                predicted=NO_ANSWER if number in silent else given,
                probabilities=None if number in silent else {each: sure if each == given else rest for each in labels},
                right=number not in silent and given == truth,
                problem="no label in the answer" if number in silent else None,
            )
        )
    return rows


def answer_rows(wrong: Sequence[int] = ()) -> list[Row]:
    """A question about every picture."""
    rows = []
    for number, digest in enumerate(PICTURES):
        right = number not in wrong
        found = 1.0 if right else 0.0
        counts = (int(right), 0, 0, 0, 1, 0, 0, 0, 1, 1)
        rows.append(
            Row(
                sha256=digest,
                source=f"charts row {number}",
                question=f"What is bar {number}?",
                truth=str(number),
                answer=str(number) if right else "<b>many</b>",
                right=right,
                scores=AnswerScores(exact=right, relaxed=right, rouge1=found, rouge2=0.0, rougeL=found, bleu=counts),
            )
        )
    return rows


def make_report(name: str, rows: Sequence[Row], **changes: object) -> Report:
    """A report whose figures are those of its rows."""
    free = rows[0].scores is not None
    labels = () if free else tuple(dict.fromkeys(row.truth for row in rows))
    statistic = build_statistic(rows, labels)
    found = estimate(statistic, len(rows), groups=group_rows(rows), resamples=200)
    confusion = None if free else count_confusion(rows, labels)
    content: dict[str, object] = {
        "kind": "answers" if free else "labels",
        "name": name,
        "model": "vit-deepfake",
        "base": False,
        "status": "fine-tuned",
        "data": (DataFile(file="set.parquet", sha256="a" * 64, rows=len(rows)),),
        "question": None,
        "style": None,
        "made_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "command": f"python -m training evaluate {name}",
        "versions": {"torch": "2.15.0"},
        "generated": True,
        "labels": labels,
        "figures": {
            key: None if each["value"] is None else Estimate.model_validate(each) for key, each in found.items()
        },
        "per_class": {} if confusion is None else describe_classes(confusion, labels),
        "confusion": None
        if confusion is None
        else Confusion(
            labels=(*labels, NO_ANSWER),
            counts=tuple(map(tuple, [*confusion.tolist(), [0] * (len(labels) + 1)])),
        ),
        "calibration": () if free else measure_calibration(rows),
        "loss": (*(LossPoint(step=step, loss=1 / (1 + step)) for step in range(5)), LossPoint(step=4, eval_loss=0.4)),
        "rows": tuple(rows),
    }
    return Report.model_validate(content | changes)


def save_reports(folder: Path, pictures: dict[str, bytes] | None = None) -> Path:
    """Two reports of one set, and one of free answers without a partner."""
    kept = PICTURES if pictures is None else pictures
    write_report(make_report("tuned", label_rows(wrong=(3,))), folder / "tuned", kept)
    base = make_report("zero-shot", label_rows(wrong=(1, 3, 5, 6), silent=(8,)), base=True, status="base", loss=None)
    write_report(base, folder / "zero-shot", kept)
    write_report(make_report("charts", answer_rows(wrong=(2,))), folder / "charts", kept)
    return folder
