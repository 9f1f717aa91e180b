"""Questions about a chart's figures with exact answers, and which marks give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from types import MappingProxyType
from typing import Literal

from training.chart_data import ChartData, Mark

QuestionKind = Literal["value", "extremum", "difference", "count", "trend", "yes-no", "title", "kind"]
RISE = "Do the values in this chart rise from its beginning to its end? Answer yes or no."
"""What models for charts are asked in the app, where an answer is one of a few."""
KIND = "What kind of chart is this?"
"""What the bundled one is asked there, which hardly reads; the answer is one of ``chart_data.CHART_KINDS``."""
TRIES = 4  # per question wanted: not every kind fits every chart, and a question may be drawn twice


@dataclass(frozen=True)
class ChartQuestion:
    """One question about a chart.

    Attributes:
        kind: what has to be done to answer it.
        text: as a person would write it.
        answer: a plain number without unit or comma, a name, ``yes`` or ``no``, ``rose`` or ``fell``, the title, or a
            kind of chart.
        marks: the bars, points or slices that answer it; none for the title.
    """

    kind: QuestionKind
    text: str
    answer: str
    marks: tuple[Mark, ...]


def ask_questions(random: Random, data: ChartData, count: int, only: Sequence[str] = ()) -> tuple[ChartQuestion, ...]:
    """Up to ``count`` different questions, the kinds drawn evenly among those that fit the chart.

    Args:
        random: the only source of chance.
        data: what the chart shows.
        count: how many are wanted; a small chart may give fewer.
        only: of ``ASKERS``, if not all.
    """
    askers = _askers(data, only or _USUAL)
    asked: dict[str, ChartQuestion] = {}
    for _ in range(TRIES * count if askers else 0):
        question = random.choice(askers)(random, data)
        if question is not None:
            # The title is asked for once; it is the same in other words.
            asked.setdefault(question.text if question.kind != "title" else "title", question)
        if len(asked) == count:
            break
    return tuple(asked.values())


def write_number(value: Decimal) -> str:
    """A number as an answer: no separator, no unit, no zeros behind the point."""
    whole = value.to_integral_value()
    return str(whole) if value == whole else str(value.normalize())


Asker = Callable[[Random, ChartData], ChartQuestion | None]


def _askers(data: ChartData, only: Sequence[str]) -> tuple[Asker, ...]:
    fitting = ["extremum", "count", "yes-no"]
    # The size of a slice that carries no figure cannot be read exactly.
    if data.kind != "pie" or data.annotated:
        fitting += ["value", "difference"]
    if data.kind == "line":
        fitting += ["trend", "rise"]
    if data.title:
        fitting.append("title")
    return tuple(ASKERS[name] for name in (*fitting, "shown", "kind") if name in only)


def _ask_value(random: Random, data: ChartData) -> ChartQuestion:
    mark = random.choice(data.marks)
    text = random.choice(
        (
            "What is the value of {mark}?",
            "What is the value for {mark}?",
            "What value does the chart show for {mark}?",
            "What is the figure for {mark} in {unit}?",
        )
    )
    text = text.format(mark=data.describe(mark), unit=data.unit)
    return ChartQuestion("value", text, write_number(data.value(mark)), (mark,))


def _ask_extremum(random: Random, data: ChartData) -> ChartQuestion | None:
    """The largest or smallest of one series, by name or by value; no question where two are equal."""
    series = random.randrange(len(data.series))
    row = data.values[series]
    largest = random.random() < 0.5
    extreme = max(row) if largest else min(row)
    if row.count(extreme) > 1:
        return None
    mark = (series, row.index(extreme))
    word = random.choice(("highest", "largest") if largest else ("lowest", "smallest"))
    of = f" for {data.series[series]}" if data.series[series] else ""
    readable = data.kind != "pie" or data.annotated
    if readable and random.random() < 0.3:
        return ChartQuestion("extremum", f"What is the {word} value{of}?", write_number(extreme), (mark,))
    text = random.choice(
        (f"Which {data.of[0]} has the {word} value{of}?", f"Name the {data.of[0]} with the {word} value{of}.")
    )
    return ChartQuestion("extremum", text, data.names[mark[1]], (mark,))


def _ask_difference(random: Random, data: ChartData) -> ChartQuestion | None:
    one, other = random.sample(data.marks, 2)
    gap = data.value(one) - data.value(other)
    if random.random() < 0.5:
        text = f"What is the difference between {data.describe(one)} and {data.describe(other)}?"
    elif gap > 0:
        text = f"By how much is {data.describe(one)} higher than {data.describe(other)}?"
    else:
        return None
    return ChartQuestion("difference", text, write_number(abs(gap)), (one, other))


def _ask_count(random: Random, data: ChartData) -> ChartQuestion | None:
    """How many names, lines or groups there are, or how many lie above or below a gridline."""
    many = data.of[1]
    if data.kind == "pie" or random.random() < 0.3:
        return _ask_shown(random, data)
    series = random.randrange(len(data.series))
    threshold = _draw_threshold(random, data, data.values[series])
    if threshold is None:
        return None
    above = random.random() < 0.5
    marks = tuple((series, name) for name, value in enumerate(data.values[series]) if (value > threshold) is above)
    of = f" for {data.series[series]}" if data.series[series] else ""
    word = random.choice(("above", "greater than") if above else ("below", "less than"))
    text = f"How many {many} have a value {word} {write_number(threshold)}{of}?"
    return ChartQuestion("count", text, str(len(marks)), marks)


def _ask_shown(random: Random, data: ChartData) -> ChartQuestion:
    """How many names, lines, slices or bars there are."""
    texts = [(f"How many {data.of[1]} are shown?", len(data.names))]
    if data.kind == "line":
        texts.append(("How many lines does the chart have?", len(data.series)))
    elif data.kind == "pie":
        texts.append(("How many slices does the pie have?", len(data.names)))
    else:
        texts.append(("How many bars are there in the chart?", len(data.marks)))
    text, number = random.choice(texts)
    return ChartQuestion("count", text, str(number), data.marks)


def _draw_threshold(random: Random, data: ChartData, row: tuple[Decimal, ...]) -> Decimal | None:
    """A gridline between the smallest and the largest value on which no value stands."""
    first = int(min(row) // data.tick) + 1
    lines = [data.tick * step for step in range(first, int(max(row) // data.tick) + 1)]
    free = [line for line in lines if line not in row]
    return random.choice(free) if free else None


def _ask_yes_no(random: Random, data: ChartData) -> ChartQuestion | None:
    one, other = random.sample(data.marks, 2)
    if data.value(one) == data.value(other):
        return None
    if data.kind != "pie" and random.random() < 0.4:
        row = data.values[one[0]]
        threshold = _draw_threshold(random, data, row)
        if threshold is None:
            return None
        text = f"Is the value of {data.describe(one)} above {write_number(threshold)}?"
        return ChartQuestion("yes-no", text, "yes" if data.value(one) > threshold else "no", (one,))
    larger = random.random() < 0.5
    right = (data.value(one) > data.value(other)) is larger
    text = f"Is {data.describe(one)} {'larger' if larger else 'smaller'} than {data.describe(other)}?"
    return ChartQuestion("yes-no", text, "yes" if right else "no", (one, other))


def _ask_trend(random: Random, data: ChartData) -> ChartQuestion | None:
    """Whether a line's later point is higher; the marks are all points from the first to the last asked about."""
    series = random.randrange(len(data.series))
    first, last = sorted(random.sample(range(len(data.names)), 2))
    row = data.values[series]
    if row[first] == row[last]:
        return None
    what = data.series[series] or data.subject
    text = random.choice(
        (
            f"Did the value of {what} rise or fall from {data.names[first]} to {data.names[last]}?",
            f"Between {data.names[first]} and {data.names[last]}, did the value of {what} rise or fall?",
        )
    )
    marks = tuple((series, name) for name in range(first, last + 1))
    return ChartQuestion("trend", text, "rose" if row[last] > row[first] else "fell", marks)


def _ask_rise(_random: Random, data: ChartData) -> ChartQuestion | None:
    """Whether all lines end higher than they begin; no question where some rise and others do not."""
    gains = [row[-1] - row[0] for row in data.values]
    if not (min(gains) > 0 or max(gains) < 0):
        return None
    return ChartQuestion("trend", RISE, "yes" if gains[0] > 0 else "no", data.marks)


def _ask_kind(_random: Random, data: ChartData) -> ChartQuestion:
    return ChartQuestion("kind", KIND, data.kind, data.marks)


def _ask_title(random: Random, data: ChartData) -> ChartQuestion:
    text = random.choice(
        ("What is the title of the chart?", "How is the chart titled?", "What is written above the chart as its title?")
    )
    return ChartQuestion("title", text, data.title, ())


ASKERS: Mapping[str, Asker] = MappingProxyType(
    {
        "value": _ask_value,
        "extremum": _ask_extremum,
        "difference": _ask_difference,
        "count": _ask_count,
        "shown": _ask_shown,
        "trend": _ask_trend,
        "rise": _ask_rise,
        "yes-no": _ask_yes_no,
        "title": _ask_title,
        "kind": _ask_kind,
    }
)
"""What may be asked: ``shown`` is of ``count`` what shows without reading, ``rise`` of ``trend``."""
_USUAL = tuple(name for name in ASKERS if name not in ("shown", "kind"))
