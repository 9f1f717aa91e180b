"""Saved reports set against each other: the same rows, paired bootstrap, McNemar's test, and where they disagree.

The command ``compare`` and the page both show what stands in a ``Comparison``, and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Literal

import numpy as np
from pydantic import Field

from models.intervals import RESAMPLES, difference, estimate, mcnemar
from models.report_figures import build_statistic, group_rows
from models.reports import DataFile, Estimate, Report, ReportError, Row, Strict

__all__ = ["Comparison", "Contrast", "Disagreement", "Side", "compare_reports", "pair_rows"]


class Side(Strict):
    """One of the compared reports, without its rows."""

    name: str
    """Unlike that of any other side."""
    model: str
    base: bool
    status: str
    question: str | None
    style: str | None
    figures: dict[str, Estimate | None]


class Contrast(Strict):
    """Side ``one`` against side ``other``, both by their number."""

    one: int
    other: int
    differences: dict[str, Estimate | None]
    """Figure of the one less that of the other, with the interval of the paired bootstrap."""
    both_right: int
    wins: int
    """Rows where only the one is right."""
    losses: int
    """Rows where only the other is right."""
    both_wrong: int
    p_value: float = Field(ge=0, le=1)
    """Of McNemar's exact test, two-sided: how probable so uneven wins and losses are between equally good models."""


class Disagreement(Strict):
    """A row where the sides differ: in the label, or for free answers in whether they are right."""

    sha256: str
    source: str
    question: str | None
    truth: str
    given: tuple[str, ...]
    """Label or answer of each side; the problem where there is none."""
    right: tuple[bool, ...]


class Comparison(Strict):
    """What a comparison found; written as ``comparison.json``."""

    schema_version: Literal[1] = 1
    kind: Literal["labels", "answers"]
    data: tuple[DataFile, ...]
    generated: bool
    rows: int
    pictures: int
    """Different ones; they are what is resampled."""
    sides: tuple[Side, ...]
    contrasts: tuple[Contrast, ...]
    disagreements: tuple[Disagreement, ...]


def compare_reports(reports: Sequence[Report], *, seed: int = 0, resamples: int = RESAMPLES) -> Comparison:
    """Each report against each that follows it.

    Args:
        reports: two or more, of the same rows.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        ReportError: the reports are not of the same rows.
    """
    paired = pair_rows(reports)
    aligned = [[rows[side] for rows in paired] for side in range(len(reports))]
    return Comparison(
        kind=reports[0].kind,
        data=reports[0].data,
        generated=reports[0].generated,
        rows=len(paired),
        pictures=len({rows[0].sha256 for rows in paired}),
        sides=tuple(_describe_sides(reports)),
        contrasts=tuple(
            _contrast(reports, aligned, one, other, seed, resamples)
            for one, other in combinations(range(len(reports)), 2)
        ),
        disagreements=tuple(_find_disagreements(paired)),
    )


def pair_rows(reports: Sequence[Report]) -> list[tuple[Row, ...]]:
    """The rows of all reports that belong together, in the order of the first report.

    A picture that stands in the set several times is paired in its order of appearance.

    Raises:
        ReportError: fewer than two reports, of different kinds, or not of the same rows with the same truth.
    """
    if len(reports) < 2:
        raise ReportError("a comparison needs at least two reports.")
    if len({report.kind for report in reports}) > 1:
        raise ReportError("reports of labels and of free answers cannot be compared.")
    first, *others = [dict(_number_rows(report.rows)) for report in reports]
    for report, other in zip(reports[1:], others, strict=True):
        names = f"{reports[0].name} and {report.name}"
        missing, more = len(first.keys() - other.keys()), len(other.keys() - first.keys())
        if missing or more:
            raise ReportError(
                f"{names} were not measured on the same rows ({missing} only in the first, {more} only in the second); "
                "evaluate both on the same --data."
            )
        unlike = [row for key, row in first.items() if other[key].truth != row.truth]
        if unlike:
            raise ReportError(f"{names} were measured with different truths ({unlike[0].source} among others).")
    return [(row, *(other[key] for other in others)) for key, row in first.items()]


def _number_rows(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, str | None, int], Row]]:
    seen: Counter[tuple[str, str | None]] = Counter()
    for row in rows:
        yield (*row.key, seen[row.key]), row
        seen[row.key] += 1


def _describe_sides(reports: Sequence[Report]) -> Iterator[Side]:
    seen: Counter[str] = Counter()
    for report in reports:
        seen[report.name] += 1
        name = report.name if seen[report.name] == 1 else f"{report.name} ({seen[report.name]})"
        yield Side(
            name=name,
            model=report.model,
            base=report.base,
            status=report.status,
            question=report.question,
            style=report.style,
            figures=report.figures,
        )


def _contrast(
    reports: Sequence[Report], aligned: Sequence[Sequence[Row]], one: int, other: int, seed: int, resamples: int
) -> Contrast:
    statistics = [build_statistic(aligned[side], reports[side].labels) for side in (one, other)]
    groups = group_rows(aligned[one])
    apart = estimate(difference(*statistics), len(groups), groups=groups, seed=seed, resamples=resamples)
    right, also = (np.array([row.right for row in aligned[side]]) for side in (one, other))
    test = mcnemar(right, also)
    return Contrast(
        one=one,
        other=other,
        differences={
            name: None if found["value"] is None else Estimate.model_validate(found) for name, found in apart.items()
        },
        both_right=int((right & also).sum()),
        wins=int(test["wins"]),
        losses=int(test["losses"]),
        both_wrong=int((~right & ~also).sum()),
        p_value=test["p_value"],
    )


def _find_disagreements(paired: Sequence[tuple[Row, ...]]) -> Iterator[Disagreement]:
    for rows in paired:
        first = rows[0]
        if len({row.predicted if row.scores is None else str(row.right) for row in rows}) > 1:
            yield Disagreement(
                sha256=first.sha256,
                source=first.source,
                question=first.question,
                truth=first.truth,
                given=tuple(_read_given(row) for row in rows),
                right=tuple(row.right for row in rows),
            )


def _read_given(row: Row) -> str:
    if row.scores is None:
        return row.predicted or ""
    return row.problem or "" if row.answer is None else row.answer
