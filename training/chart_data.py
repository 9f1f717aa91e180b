"""The figures behind a generated chart, drawn at random by a seed, each readable from the picture.

Figures that are written beside their marks may be any; those that are not stand on a gridline or half way between two,
so that the answer to a question can be read exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

ChartKind = Literal["bar", "grouped bar", "line", "pie"]
CHART_KINDS: tuple[ChartKind, ...] = ("bar", "grouped bar", "line", "pie")
Mark = tuple[int, int]
"""Series and name of one bar, point or slice."""

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
LEAST_SHARE = 4  # percent; a thinner slice has no room for its figure
CLEAR_GAP = 3  # percent between slices without figures, so that the eye can order them


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Groups(_Strict):
    """What a grouped bar chart compares."""

    names: tuple[str, ...] = Field(min_length=2)
    call: str
    """How one bar is called, with ``{name}`` and ``{group}``."""


class Topic(_Strict):
    """One entry of ``chart_topics.yaml``."""

    subject: str
    unit: str
    of: tuple[str, str]
    names: tuple[str, ...] = Field(min_length=8)
    groups: Groups
    top: tuple[int, int]


@dataclass(frozen=True)
class ChartData:
    """The figures of one chart.

    Attributes:
        kind: of the chart.
        title: as drawn, on one line; empty for a chart without a title.
        subject: what is measured.
        unit: of the values.
        of: what the names are, one and many (``country``, ``countries``).
        names: along the axis, or of the slices.
        series: bars of a group, or lines; one empty name when there is a single one.
        call: how one mark is called, with ``{name}`` and ``{group}``.
        values: exact, (series, names).
        annotated: whether the values are written beside the marks.
        tick: distance of the gridlines.
    """

    kind: ChartKind
    title: str
    subject: str
    unit: str
    of: tuple[str, str]
    names: tuple[str, ...]
    series: tuple[str, ...]
    call: str
    values: tuple[tuple[Decimal, ...], ...]
    annotated: bool
    tick: Decimal

    @property
    def marks(self) -> tuple[Mark, ...]:
        """All bars, points or slices, series by series."""
        return tuple((series, name) for series in range(len(self.series)) for name in range(len(self.names)))

    def value(self, mark: Mark) -> Decimal:
        """The exact value of one mark."""
        return self.values[mark[0]][mark[1]]

    def describe(self, mark: Mark) -> str:
        """The mark in words, as a question names it."""
        return self.call.format(name=self.names[mark[1]], group=self.series[mark[0]])


@cache
def read_topics() -> tuple[Topic, ...]:
    """The topics of ``chart_topics.yaml``."""
    text = (Path(__file__).parent / "chart_topics.yaml").read_text(encoding="utf-8")
    return TypeAdapter(tuple[Topic, ...]).validate_python(yaml.safe_load(text))


def draw_data(random: Random) -> ChartData:
    """Draw what a chart shows.

    Args:
        random: the only source of chance.
    """
    kind = random.choice(CHART_KINDS)
    topic = random.choice(read_topics())
    if kind == "pie":
        return _draw_pie(random, topic)
    of, call = topic.of, "{name}"
    series: tuple[str, ...] = ("",)
    names = _choose(random, topic.names, random.randint(3, 8) if kind == "bar" else random.randint(2, 5))
    if kind == "grouped bar":
        series, call = _draw_groups(random, topic)
    elif kind == "line":
        lines = random.randint(1, 4)
        if lines > 1:
            series, call = tuple(random.sample(topic.names, lines)), "{group} in {name}"
        names, of = _draw_times(random)
    annotated = random.random() < {"bar": 0.7, "grouped bar": 0.7, "line": 0.5 if len(series) == 1 else 0.0}[kind]
    top = min(random.uniform(*topic.top), 100 if topic.unit == "percent" else topic.top[1])
    tick = _nice_step(top / random.randint(5, 9))
    written = Decimal("0.1") if top < 50 and random.random() < 0.6 else Decimal(1)
    step = written if annotated else tick / 2
    levels = draw_levels(random, kind, len(series), len(names), max(int(Decimal(top) / step), 5))
    values = tuple(tuple(step * level for level in row) for row in levels)
    title = _draw_title(random, topic.subject, of[0], topic.unit)
    return ChartData(kind, title, topic.subject, topic.unit, of, names, series, call, values, annotated, tick)


def _draw_groups(random: Random, topic: Topic) -> tuple[tuple[str, ...], str]:
    count = random.randint(2, min(3, len(topic.groups.names)))
    return _choose(random, topic.groups.names, count), topic.groups.call


def _choose(random: Random, everything: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Some of them in their own order, since years and ages rise."""
    return tuple(everything[i] for i in sorted(random.sample(range(len(everything)), count)))


def _draw_times(random: Random) -> tuple[tuple[str, ...], tuple[str, str]]:
    count = random.randint(4, 10)
    if random.random() < 0.25:
        first = random.randint(0, 12 - count)
        return MONTHS[first : first + count], ("month", "months")
    step = random.choice((1, 1, 2, 5))
    last = random.randint(1995, 2024)
    return tuple(str(last - step * back) for back in reversed(range(count))), ("year", "years")


def _nice_step(least: float) -> Decimal:
    """The next round number whose half is whole: 2, 4, 10, 20, 40, 50, 100 ..."""
    return next(Decimal(step) for step in (2, 4, 10, 20, 40, 50, 100, 200, 400, 500, 1000) if step >= least)


def draw_levels(random: Random, kind: ChartKind, series: int, names: int, highest: int) -> list[list[int]]:
    """Heights of all marks in whole steps, (series, names): bars independent of each other, lines that wander.

    Lines never meet at a point, so that each of its marks is seen.

    Args:
        random: the only source of chance.
        kind: of the chart.
        series: how many rows; for lines fewer than ``highest``.
        names: how many marks in each.
        highest: the largest level.
    """
    least = max(1, highest // 12)
    every = range(least, highest + 1)
    if kind != "line":
        return [random.choices(every, k=names) for _ in range(series)]
    reach = max(highest // 4, 1)
    lines: list[list[int]] = []
    for _ in range(series):
        line: list[int] = []
        for name in range(names):
            free = [level for level in every if all(other[name] != level for other in lines)]
            near = [level for level in free if not line or abs(level - line[-1]) <= reach]
            line.append(random.choice(near or free))
        lines.append(line)
    return lines


def _draw_pie(random: Random, topic: Topic) -> ChartData:
    annotated = random.random() < 0.75
    count = random.randint(3, 7) if annotated else random.randint(3, 5)
    names = tuple(random.sample(topic.names, count))
    gap = 1 if annotated else CLEAR_GAP
    while True:  # a third or more of the draws fit, whatever the count
        cuts = sorted(random.sample(range(1, 100), count - 1))
        shares = [upper - lower for lower, upper in zip([0, *cuts], [*cuts, 100], strict=True)]
        ordered = sorted(shares)
        if ordered[0] >= LEAST_SHARE and all(b - a >= gap for a, b in pairwise(ordered)):
            break
    title = _draw_title(random, f"{topic.subject}: shares", topic.of[0], "percent")
    row = tuple(Decimal(share) for share in shares)
    return ChartData(
        "pie", title, topic.subject, "percent", topic.of, names, ("",), "{name}", (row,), annotated, Decimal(10)
    )


def _draw_title(random: Random, subject: str, of: str, unit: str) -> str:
    if random.random() < 0.12:
        return ""
    place = random.choice(("in the region", "in the district", "in the province", "at a glance", "in figures"))
    return random.choice(
        (subject, f"{subject} by {of}", f"{subject} {place}", f"{subject} by {of} {place}", f"{subject} ({unit})")
    )
