"""Reports and what sets them apart as accessible HTML: figures with their intervals, differences, numbers of diagrams.

Every text of a report may be a stranger's and passes ``escape``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from models.report_comparison import Comparison, Contrast
from models.reports import NO_ANSWER, Estimate, Report
from ui.compare_shelf import Saved
from ui.markup import escape, label_word, render_empty, render_heading
from ui.text import say, say_or

# In the order they are read; what else a report holds has no words here.
FIGURES: Final[Mapping[str, tuple[str, ...]]] = {
    "labels": ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "ece"),
    "answers": ("relaxed_accuracy", "exact_match", "bleu", "rouge1", "rouge2", "rougeL"),
}
# Names that are the same in every language.
_NAMES: Final[Mapping[str, str]] = {
    "roc_auc": "ROC AUC",
    "bleu": "BLEU",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
}
_PERCENT: Final = frozenset({"accuracy", "balanced_accuracy", "relaxed_accuracy", "exact_match"})
_ON_HUNDRED: Final = frozenset({"bleu"})
NAME_LENGTH: Final = 60
_FACT_LENGTH: Final = 400
SIGNIFICANT: Final = 0.05


def shorten(text: str, length: int = NAME_LENGTH) -> str:
    """A text of a report in one line of at most ``length`` characters."""
    line = " ".join(text[: 4 * length].split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def show_figure(name: str, value: float) -> str:
    """A figure as people read it: shares of right answers in percent, BLEU on its hundred, others in [0, 1]."""
    if name in _PERCENT:
        return f"{value:.1%}"
    return f"{value:.1f}" if name in _ON_HUNDRED else f"{value:.3f}"


def show_difference(name: str, value: float) -> str:
    """A difference of two figures, with its sign; of percents in points."""
    small = f"{value:+.1f}" if name in _ON_HUNDRED else f"{value:+.3f}"
    return (f"{100 * value:+.1f}" if name in _PERCENT else small).replace("-", "−")


def show_p_value(value: float) -> str:
    """A p-value to two places of meaning."""
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def render_evaluation(language: str, saved: Sequence[Saved]) -> str:
    """What was measured on: files, how much of it, and that generated pictures are generated."""
    report = saved[0].report
    files = ", ".join(shorten(each.file) for each in report.data[:3]) + (" …" if len(report.data) > 3 else "")
    pictures = len({row.sha256 for row in report.rows})
    words = say(language, "compare.measured_on", files=files, rows=len(report.rows), pictures=pictures)
    lines = [f"<p>{escape(words)}</p>"]
    asked = dict.fromkeys(each.report.question for each in saved if each.report.question)
    notes = [say(language, "compare.asked", question=shorten(question, 200)) for question in asked]
    lines += [f'<p class="note">{escape(note)}</p>' for note in notes]
    if is_generated(saved):
        lines.append(render_generated(language))
    return f"<section>{render_heading(say(language, 'compare'))}{''.join(lines)}</section>"


def is_generated(saved: Iterable[Saved]) -> bool:
    """Whether any of the reports says that its pictures are generated."""
    return any(each.report.generated for each in saved)


def render_generated(language: str) -> str:
    """The mark that generated pictures carry wherever they stand."""
    badge = f'<span class="badge">{escape(say(language, "compare.generated"))}</span>'
    return f'<p class="generated">{badge} {escape(say(language, "compare.generated_note"))}</p>'


def render_figures(language: str, saved: Sequence[Saved], names: Sequence[str]) -> str:
    """One row per report: each figure with its 95 % interval below it; the columns can be sorted by."""
    kind = saved[0].report.kind
    shown = [name for name in FIGURES[kind] if any(each.report.figures.get(name) for each in saved)]
    columns = [("model", say(language, "compare.model")), *((name, figure_word(language, name)) for name in shown)]
    head = "".join(
        f'<th scope="col"><button type="button" data-sort="{number}">{escape(words)}</button></th>'
        for number, (_, words) in enumerate(columns)
    )
    rows = "".join(
        f'<tr><th scope="row" data-value="{number}">{_name(language, each.report, name)}</th>'
        + "".join(_figure(language, figure, each.report.figures.get(figure)) for figure in shown)
        + "</tr>"
        for number, (each, name) in enumerate(zip(saved, names, strict=True))
    )
    heading = render_heading(say(language, "compare.figures"), say(language, "compare.figures_note"))
    return (
        f'<section>{heading}<div class="wide"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def figure_word(language: str, name: str) -> str:
    """What a figure is called."""
    return say_or(language, f"figure.{name}", _NAMES.get(name, name))


def _name(language: str, report: Report, name: str) -> str:
    facts = [
        report.model if report.model != report.name else "",
        say_or(language, f"state.{report.status}", report.status),
    ]
    if report.base:
        facts.append(say(language, "compare.base"))
    notes = " · ".join(escape(shorten(fact)) for fact in dict.fromkeys(facts) if fact)
    return f'<b>{escape(shorten(name))}</b><span class="note">{notes}</span>'


def _figure(language: str, name: str, found: Estimate | None) -> str:
    caption = escape(figure_word(language, name))
    if found is None:
        return f'<td class="number" data-caption="{caption}" data-value="">{escape(say(language, "compare.none"))}</td>'
    interval = f"{show_figure(name, found.low)} – {show_figure(name, found.high)}"
    return (
        f'<td class="number" data-caption="{caption}" data-value="{found.value!r}">'
        f'<b>{show_figure(name, found.value)}</b><span class="note">{escape(interval)}</span></td>'
    )


def render_contrasts(language: str, comparison: Comparison) -> str:
    """Each report against each that follows it: paired differences, wins, losses and McNemar's test."""
    shown = [
        name
        for name in FIGURES[comparison.kind]
        if any(contrast.differences.get(name) for contrast in comparison.contrasts)
    ]
    keys = ("pair", "wins", "losses", "p_value")
    captions = {key: say(language, f"compare.{key}") for key in keys} | {
        name: say(language, "compare.difference", figure=figure_word(language, name)) for name in shown
    }
    order = ("pair", *shown[:1], "wins", "losses", "p_value", *shown[1:])
    head = "".join(f'<th scope="col">{escape(captions[key])}</th>' for key in order)
    rows = "".join(_contrast(language, comparison, each, order, captions) for each in comparison.contrasts)
    note = say(language, "compare.differences_note")
    if len(comparison.contrasts) > 1:
        note += f" {say(language, 'compare.many_tests')}"
    return (
        f"<section>{render_heading(say(language, 'compare.differences'), note)}"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>'
    )


def _contrast(
    language: str, comparison: Comparison, contrast: Contrast, order: Sequence[str], captions: Mapping[str, str]
) -> str:
    one, other = (shorten(comparison.sides[number].name) for number in (contrast.one, contrast.other))
    if contrast.p_value >= SIGNIFICANT:
        says = say(language, "compare.no_winner")
    else:
        says = say(language, "compare.winner", name=one if contrast.wins > contrast.losses else other)
    pair = say(language, "compare.against", one=one, other=other)
    counts = {
        "wins": str(contrast.wins),
        "losses": str(contrast.losses),
        "p_value": show_p_value(contrast.p_value),
    }
    cells = [f'<th scope="row"><b>{escape(pair)}</b><span class="note">{escape(says)}</span></th>']
    for key in order[1:]:
        value = f"<b>{escape(counts[key])}</b>" if key in counts else _difference(language, key, contrast)
        cells.append(f'<td class="number" data-caption="{escape(captions[key])}">{value}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _difference(language: str, name: str, contrast: Contrast) -> str:
    found = contrast.differences.get(name)
    if found is None:
        return escape(say(language, "compare.none"))
    low, high = (show_difference(name, value) for value in (found.low, found.high))
    unit = f" {say(language, 'compare.points')}" if name in _PERCENT else ""
    value = f"{show_difference(name, found.value)}{unit}"
    return f'<b>{escape(value)}</b><span class="note">{low} … {high}</span>'


def render_numbers(language: str, saved: Sequence[Saved], names: Sequence[str]) -> str:
    """The numbers behind the diagrams and how each report was made, folded away: for screen readers and for copying."""
    blocks = "".join(
        f"<h3>{escape(shorten(name))}</h3>{_classes(language, each.report)}{_confusion(language, each.report)}"
        f"{_calibration(language, each.report)}{_making(language, each.report)}"
        for each, name in zip(saved, names, strict=True)
    )
    summary = escape(say(language, "compare.numbers"))
    return f'<details class="numbers"><summary>{summary}</summary>{blocks}</details>'


def _classes(language: str, report: Report) -> str:
    if not report.per_class:
        return ""
    words = {key: say(language, f"compare.{key}") for key in ("class", "precision", "recall", "support")}
    head = [words["class"], words["precision"], words["recall"], "F1", words["support"]]
    rows = [
        [
            label_word(language, label),
            f"{each.precision:.3f}",
            say(language, "compare.none") if each.recall is None else f"{each.recall:.3f}",
            f"{each.f1:.3f}",
            str(each.support),
        ]
        for label, each in report.per_class.items()
    ]
    return _table(say(language, "compare.classes"), head, rows)


def _confusion(language: str, report: Report) -> str:
    if report.confusion is None:
        return ""
    words = [label_shown(language, label) for label in report.confusion.labels]
    rows = [
        [word, *map(str, counts)]
        for word, counts in zip(words[: len(report.labels)], report.confusion.counts, strict=False)
    ]
    return _table(say(language, "compare.confusion"), [say(language, "compare.truth"), *words], rows)


def _calibration(language: str, report: Report) -> str:
    if not report.calibration:
        return ""
    head = [say(language, key) for key in ("compare.bins", "compare.confidence", "figure.accuracy", "compare.support")]
    rows = [
        [
            f"{each.low:.0%} – {each.high:.0%}",
            f"{each.confidence:.1%}",
            f"{each.accuracy:.1%}",
            str(each.count),
        ]
        for each in report.calibration
    ]
    return _table(say(language, "compare.reliability"), head, rows)


def _making(language: str, report: Report) -> str:
    """Command, question, style, time, data and versions."""
    facts = [
        (say(language, "compare.command"), report.command),
        (say(language, "compare.question"), report.question or ""),
        (say(language, "style"), say_or(language, f"style.{report.style}", report.style or "")),
        (say(language, "compare.made_at"), report.made_at.isoformat(timespec="seconds")),
        (say(language, "compare.data"), ", ".join(f"{e.file} (SHA-256 {e.sha256})" for e in report.data[:3])),
        (say(language, "compare.versions"), ", ".join(f"{k} {v}" for k, v in list(report.versions.items())[:20])),
    ]
    entries = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(shorten(fact, _FACT_LENGTH))}</dd>" for name, fact in facts if fact
    )
    return f"<dl>{entries}</dl>"


def label_shown(language: str, label: str) -> str:
    """A label of a report in the page's words where it has them."""
    return say(language, "compare.no_answer") if label == NO_ANSWER else shorten(label_word(language, label))


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f'<td class="number">{escape(text)}</td>' for text in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def render_nothing(language: str, problems: Sequence[str]) -> str:
    """What stands where no report is, and how to make one."""
    body = render_empty(say(language, "compare.empty"))
    return f"<section>{render_heading(say(language, 'compare'))}{body}</section>{render_unread(language, problems)}"


def render_alone(language: str, *, others: bool) -> str:
    """What to do where one report stands alone: tick another, or make one."""
    hint = say(language, "compare.pick_two") if others else say(language, "compare.alone")
    return f'<p class="note">{escape(hint)}</p>'


def render_unread(language: str, problems: Sequence[str]) -> str:
    """Saved reports that cannot be read, each with its reason."""
    if not problems:
        return ""
    items = "".join(f"<li>{escape(shorten(problem, 300))}</li>" for problem in problems[:20])
    return f'<div class="problems"><h3>{escape(say(language, "compare.unread"))}</h3><ul>{items}</ul></div>'
