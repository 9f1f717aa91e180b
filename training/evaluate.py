"""Measure any model on any set, and save what it said as a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.report_figures import FIGURE_TITLES
from models.reports import Report
from models.schema import LoadState
from models.vlm import VisionLanguageModel
from training.answering import NEW_TOKENS, Answered, ask_labels, ask_questions
from training.errors import RunError
from training.labelled import LabelledSet
from training.layouts import Source
from training.measured import Kind, MeasuredSet, read_measured
from training.opening import Opened, Wanted, open_wanted
from training.page import write_estimate
from training.report import About, build_report, save_report

SLOT = "{question}"


@dataclass(frozen=True)
class Manner:
    """How a set is read and a model is asked about it.

    Attributes:
        names: label names by index, for numbered labels without names.
        kind: what the rows of the set are, where its columns do not tell.
        write: let a vision-language model write its answer and read the label in it.
        new_tokens: most tokens of a written answer.
        put: how each question of a set is put, with ``{question}`` in it; as in the model's training when not given.
        generated: whether the pictures are drawn by a program, for sets that do not tell.
        zero_shot: whether nobody taught the model the task.
        name: short, for tables; the model's own when not given.
        command: the command line, for the report.
    """

    names: tuple[str, ...] | None = None
    kind: Kind | None = None
    write: bool = False
    new_tokens: int = NEW_TOKENS
    put: str | None = None
    generated: bool = False
    zero_shot: bool = False
    name: str | None = None
    command: str = ""


def evaluate(wanted: Wanted, data: Sequence[Source], out: Path | None, manner: Manner = Manner()) -> Report:
    """Measure a model on a set.

    Args:
        wanted: the model.
        data: sets, read as one.
        out: folder of the report; nothing is written when not given.
        manner: how to read and ask.

    Raises:
        ExhibitError: if the model or the data cannot be used.
    """
    measured = read_measured(data, names=manner.names, kind=manner.kind)
    opened = open_wanted(wanted)
    answered = ask(opened, measured, manner)
    report = build_report(answered, describe(wanted, opened, measured, manner))
    if out is not None:
        save_report(report, answered.thumbnails, out)
    return report


def ask(opened: Opened, measured: MeasuredSet, manner: Manner) -> Answered:
    """What an open model says about a set.

    Raises:
        ExhibitError: if the model cannot be asked that.
    """
    live = opened.live
    if isinstance(measured.asked, LabelledSet):
        if manner.put and SLOT in manner.put:
            raise RunError(f"--question {manner.put!r}: {SLOT} is for sets that bring questions; this one has labels.")
        if isinstance(live, VisionLanguageModel) and not live.question:
            raise RunError(f"{live.spec.name}: has no question of its own; give --question and --labels.")
        return ask_labels(live, measured.asked, write=manner.write, new_tokens=manner.new_tokens)
    put = manner.put or opened.put
    if SLOT not in put:
        raise RunError(f"--question {put!r} must hold {SLOT}, where each question of the set goes.")
    return ask_questions(live, measured.asked, measured.where, put=put, new_tokens=manner.new_tokens)


def describe(wanted: Wanted, opened: Opened, measured: MeasuredSet, manner: Manner) -> About:
    """What the report says beside the answers."""
    live = opened.live
    asked = live if isinstance(live, VisionLanguageModel) else None
    question = None
    if asked:
        question = asked.question if isinstance(measured.asked, LabelledSet) else manner.put or opened.put
    base = opened.base or manner.zero_shot
    return About(
        name=manner.name or wanted.name,
        model=wanted.name,
        base=base,
        status=str(LoadState.BASE if base else live.status.state),
        data=measured.files,
        question=question,
        style=asked.style if asked else None,
        command=manner.command,
        generated=measured.generated or manner.generated,
        history=opened.history,
    )


def describe_report(report: Report) -> str:
    """The figures as a short table for people."""
    lines = [f"{report.name} on {', '.join(one.file for one in report.data)}: {len(report.rows)} {report.kind}"]
    for name, one in report.figures.items():
        lines.append(f"{FIGURE_TITLES.get(name, name):<26}{write_estimate(one, digits=2 if name == 'bleu' else 4)}")
    if report.confusion:
        width = max(map(len, report.confusion.labels)) + 2
        lines.append(f"{'label':<{width}}{'precision':>10}{'recall':>10}{'F1':>10}{'pictures':>10}")
        for label, found in report.per_class.items():
            recall = "-" if found.recall is None else f"{found.recall:.4f}"
            lines.append(f"{label:<{width}}{found.precision:>10.4f}{recall:>10}{found.f1:>10.4f}{found.support:>10}")
        lines.append(f"confusion, rows true, columns {', '.join(report.confusion.labels)}:")
        lines += ["".join(f"{count:>8}" for count in row) for row in report.confusion.counts[:-1]]
    problems = [row for row in report.rows if row.problem]
    lines += [f"counted as wrong: {row.source}: {row.problem}" for row in problems]
    return "\n".join(lines)
