"""What the controls of the Compare tab do, free of Gradio's wiring. Everything shown comes from saved reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, Final

from models.report_comparison import Comparison, compare_reports
from models.reports import Report, ReportError
from ui import compare_gallery, markup
from ui.compare_charts import draw_confusion, draw_loss, draw_reliability
from ui.compare_gallery import ALL, Gallery
from ui.compare_pictures import decode_thumbnail
from ui.compare_shelf import Saved, find_evaluations
from ui.compare_table import (
    is_generated,
    render_alone,
    render_contrasts,
    render_evaluation,
    render_figures,
    render_nothing,
    render_numbers,
    render_unread,
    shorten,
)
from ui.compare_upload import read_upload
from ui.listeners import Opening
from ui.services import Services
from ui.text import say
from ui.updates import Updates, merge

MAX_COMPARED: Final = 4
MAX_UPLOADS: Final = 4
_REMEMBERED: Final = 16


@dataclass(frozen=True)
class Wanted:
    """What a visitor chose, as the controls give it.

    Attributes:
        evaluation: which (``Saved.evaluation``).
        keys: of the reports ticked; ``None`` for as many as stand side by side.
        which: disagreements shown, see ``Gallery.which``.
    """

    evaluation: str | None = None
    keys: tuple[str, ...] | None = None
    which: str = ALL


class Comparer:
    """Comparisons take a second of resampling and the same ones are asked for again and again, so a few are kept."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, ...], tuple[tuple[Saved, ...], Comparison]] = {}
        self._lock = Lock()

    def knows(self, saved: tuple[Saved, ...]) -> bool:
        """Whether a comparison is there at once."""
        with self._lock:
            return tuple(map(id, saved)) in self._kept

    def compare(self, saved: tuple[Saved, ...]) -> Comparison:
        """What sets two or more reports apart.

        Raises:
            ReportError: they are not of the same rows.
        """
        key = tuple(map(id, saved))
        with self._lock:
            known = self._kept.get(key)
        if known is not None:
            return known[1]
        found = compare_reports([each.report for each in saved])
        with self._lock:
            # The reports are kept too, so that no other object can take over their ids.
            self._kept[key] = (saved, found)
            for oldest in list(self._kept)[:-_REMEMBERED]:
                del self._kept[oldest]
        return found


@dataclass(frozen=True)
class CompareListeners:
    """The behaviour of the tab over the shared services; keeps nothing of a visitor."""

    services: Services
    comparer: Comparer = field(default_factory=Comparer)

    def show(self, language: str, uploads: tuple[Saved, ...], wanted: Wanted) -> Updates:
        """The whole tab for a choice."""
        return merge(*self.steps(language, uploads, wanted))

    def steps(self, language: str, uploads: tuple[Saved, ...], wanted: Wanted, news: str = "") -> Iterator[Updates]:
        """The tab for a choice: first what the reports say, then what sets them apart, which takes some seconds.

        Args:
            language: of the page.
            uploads: the visitor's own reports.
            wanted: the choice; what is no longer there gives way to what is.
            news: the line that tells of it at the end; empty for how many are compared.
        """
        evaluations = find_evaluations(self._list(uploads))
        problems = self.services.reports.list_problems()
        if not evaluations:
            yield _show_nothing(language) | {"about": {"value": render_nothing(language, problems)}}
            return
        keys = wanted.keys if wanted.evaluation in evaluations else None
        evaluation = wanted.evaluation if wanted.evaluation in evaluations else next(iter(evaluations))
        known = evaluations[evaluation]
        ticked = [each for each in known if keys is None or each.key in keys]
        chosen = tuple(ticked[:MAX_COMPARED])
        choices = _show_choices(language, evaluations, evaluation, chosen)
        if not chosen:
            yield _show_nothing(language) | choices | {"news": _tell(say(language, "compare.ready"))}
            return
        measured = choices | _show_measured(language, chosen)
        measured["unread"] = {"value": render_unread(language, problems)}
        if len(chosen) == 1:
            measured["figures"]["value"] += render_alone(language, others=len(known) > 1)
            news = news or say(language, "compare.shown", name=shorten(chosen[0].report.name))
        elif not self.comparer.knows(chosen):
            waiting = {"news": _tell(say(language, "compare.comparing", count=len(chosen)))}
            yield measured | waiting | {name: {"value": ""} for name in ("contrasts", "gallery")}
        if keys is not None and len(ticked) > MAX_COMPARED:
            news = say(language, "compare.too_many")
        told = news or say(language, "compare.done", count=len(chosen))
        yield measured | self._show_compared(language, chosen, wanted.which) | {"news": _tell(told)}

    def translate(self, language: str, uploads: tuple[Saved, ...], wanted: Wanted) -> Updates:
        """The tab in a language; one that nobody has opened yet stays empty."""
        words: Updates = {
            "tab": {"label": say(language, "tab.compare")},
            "upload": {"label": say(language, "compare.upload")},
            "evaluation": {"label": say(language, "compare.evaluation")},
            "reports": {"label": say(language, "compare.reports")},
            "which": {"label": say(language, "compare.which")},
        }
        if wanted.evaluation is None and self._list(uploads):
            return words
        return merge(self.show(language, uploads, wanted), words)

    def choose_evaluation(self, language: str, uploads: tuple[Saved, ...], evaluation: str) -> Iterator[Updates]:
        """Another evaluation: all of its reports, as many as stand side by side."""
        yield from self.steps(language, uploads, Wanted(evaluation))

    def add(
        self, language: str, uploads: tuple[Saved, ...], wanted: Wanted, payload: dict[str, Any]
    ) -> Iterator[Updates]:
        """A report was brought: it is shown beside those of the same pictures.

        Raises:
            ReportError: it cannot be read; everything else stays.
        """
        path = Path(payload["path"])
        brought = read_upload(path, payload.get("orig_name") or path.name)
        former = tuple(each for each in uploads if each.key != brought.key)
        kept = (*former, brought)[-MAX_UPLOADS:]
        same = find_evaluations(self._list(kept))[brought.evaluation]
        ticked = wanted.keys if wanted.evaluation == brought.evaluation else None
        keys = tuple(each.key for each in same) if ticked is None else ticked
        # The new one is shown even where four stand already.
        others = [key for key in keys if key != brought.key][: MAX_COMPARED - 1]
        name, rows = shorten(brought.report.name), len(brought.report.rows)
        news = say(language, "compare.added" if len(same) > 1 else "compare.added_apart", name=name, rows=rows)
        if len(former) == MAX_UPLOADS:
            news += f" {say(language, 'compare.too_many_uploads')}"
        yield {"uploads": {"value": kept}}
        yield from self.steps(language, kept, Wanted(brought.evaluation, (*others, brought.key)), news)

    def turn(self, language: str, uploads: tuple[Saved, ...], wanted: Wanted, page: int = 0) -> Updates:
        """Another page of the disagreements, or others of them."""
        gallery = self._gallery(self._find(uploads, wanted), wanted.which, page)
        return {"gallery": {"value": compare_gallery.render_gallery(language, gallery)}}

    def open(self, language: str, uploads: tuple[Saved, ...], wanted: Wanted, number: int) -> Opening:
        """A picture of the disagreements, for the Examine tab.

        Raises:
            ReportError: it is no longer there.
        """
        chosen = self._find(uploads, wanted)
        gallery = self._gallery(chosen, wanted.which)
        if not 0 <= number < len(gallery.entries):
            raise ReportError(say(language, "compare.gone"))
        entry = gallery.entries[number]
        stored = compare_gallery.read_picture(chosen, entry.sha256)
        source = decode_thumbnail(stored, compare_gallery.name_source(entry)) if stored else None
        if source is None:
            raise ReportError(say(language, "compare.gone"))
        notes = [f"small copy from a report; the original has the SHA-256 {entry.sha256}"]
        if is_generated(chosen):
            notes.append("generated by a program, no photograph")
        reports = [each.report for each in chosen]
        asked = next((each.question for each in reports if each.question), None)
        return Opening(
            source=replace(source, notes=(*source.notes, *notes)),
            models=tuple(dict.fromkeys(each.model for each in reports)),
            question=entry.question or asked or "",
            style=next((each.style for each in reports if each.style), ""),
            both=len({(each.model, each.base) for each in reports}) > len({each.model for each in reports}),
        )

    def fail(self, line: str) -> Updates:
        """One line says what went wrong; everything else stays."""
        return {"news": {"value": markup.render_status(line, error=True)}}

    def _list(self, uploads: tuple[Saved, ...]) -> tuple[Saved, ...]:
        return (*self.services.reports.list_saved(), *uploads)

    def _find(self, uploads: tuple[Saved, ...], wanted: Wanted) -> tuple[Saved, ...]:
        chosen = [each for each in self._list(uploads) if each.key in (wanted.keys or ())]
        same = tuple(each for each in chosen if each.evaluation == wanted.evaluation)
        return same[:MAX_COMPARED]

    def _gallery(self, chosen: tuple[Saved, ...], which: str, page: int = 0) -> Gallery:
        if len(chosen) < 2:
            names = tuple(each.report.name for each in chosen)
            mistakes = tuple(entry for each in chosen for entry in compare_gallery.find_mistakes(each))
            return Gallery(chosen, names, mistakes, which, page)
        found = self.comparer.compare(chosen)
        return Gallery(chosen, tuple(side.name for side in found.sides), found.disagreements, which, page)

    def _show_compared(self, language: str, chosen: tuple[Saved, ...], which: str) -> Updates:
        gallery = self._gallery(chosen, which)
        choices = compare_gallery.list_choices(language, gallery)
        gallery = replace(gallery, which=which if which in [value for _, value in choices] else ALL)
        contrasts = render_contrasts(language, self.comparer.compare(chosen)) if len(chosen) > 1 else ""
        return {
            "contrasts": {"value": contrasts},
            "which": {"choices": choices, "value": gallery.which, "visible": len(chosen) > 1},
            "gallery_heading": {"value": compare_gallery.render_gallery_heading(language, gallery)},
            "gallery": {"value": compare_gallery.render_gallery(language, gallery)},
        }


def _show_measured(language: str, chosen: tuple[Saved, ...]) -> Updates:
    """What the reports say by themselves."""
    names = name_sides([each.report for each in chosen])
    return {
        "about": {"value": render_evaluation(language, chosen)},
        "figures": {"value": render_figures(language, chosen, names)},
        "numbers": {"value": render_numbers(language, chosen, names)},
        **_show_diagrams(language, chosen, names),
    }


def name_sides(reports: Sequence[Report]) -> list[str]:
    """The names of reports, all different, as a comparison numbers them."""
    seen: Counter[str] = Counter()
    names = []
    for report in reports:
        seen[report.name] += 1
        names.append(report.name if seen[report.name] == 1 else f"{report.name} ({seen[report.name]})")
    return names


def _show_choices(
    language: str, evaluations: dict[str, tuple[Saved, ...]], evaluation: str, chosen: Sequence[Saved]
) -> Updates:
    words = {name: _title(language, saved[0]) for name, saved in evaluations.items()}
    alike = Counter(words.values())
    # Sets whose files have one name are told apart by who was measured on them.
    titles = [
        (title if alike[title] == 1 else f"{title}: {', '.join(_name_reports(evaluations[name]))}", name)
        for name, title in words.items()
    ]
    known = evaluations[evaluation]
    reports = [(name, each.key) for name, each in zip(_name_reports(known), known, strict=True)]
    return {
        "evaluation": {"choices": titles, "value": evaluation, "visible": True},
        "reports": {"choices": reports, "value": [each.key for each in chosen], "visible": True},
    }


def _title(language: str, saved: Saved) -> str:
    report = saved.report
    files = ", ".join(shorten(each.file, 40) for each in report.data[:2])
    title = say(language, "compare.choice", name=files, rows=len(report.rows))
    return f"{title} ({say(language, 'compare.generated')})" if report.generated else title


def _name_reports(saved: Sequence[Saved]) -> list[str]:
    """What reports are called in a list: those of one name also by their keys."""
    named = Counter(each.report.name for each in saved)
    return [
        shorten(each.report.name)
        if named[each.report.name] == 1
        else f"{shorten(each.report.name)} ({shorten(each.key)})"
        for each in saved
    ]


def _show_diagrams(language: str, chosen: Sequence[Saved], names: Sequence[str]) -> Updates:
    updates: Updates = {}
    drawn = False
    for number in range(MAX_COMPARED):
        saved = chosen[number] if number < len(chosen) else None
        confusion = draw_confusion(language, saved.report) if saved else None
        reliability = draw_reliability(language, saved.report, number) if saved else None
        name = shorten(names[number]) if saved else ""
        drawn = drawn or confusion is not None or reliability is not None
        updates |= {
            f"column_{number}": {"visible": confusion is not None or reliability is not None},
            f"confusion_{number}": {
                "value": confusion,
                "visible": confusion is not None,
                "label": say(language, "compare.confusion_of", name=name),
            },
            f"reliability_{number}": {
                "value": reliability,
                "visible": reliability is not None,
                "label": say(language, "compare.reliability_of", name=name),
            },
        }
    loss = draw_loss(language, [each.report for each in chosen])
    heading = markup.render_heading(say(language, "compare.diagrams"), say(language, "compare.diagrams_note"))
    return updates | {
        "diagrams": {"value": f"<section>{heading}</section>" if drawn else ""},
        "loss": {"value": loss, "visible": loss is not None, "label": say(language, "compare.loss_curves")},
    }


def _show_nothing(language: str) -> Updates:
    updates = _show_diagrams(language, (), ())
    return updates | {
        "evaluation": {"choices": [], "value": None, "visible": False},
        "reports": {"choices": [], "value": [], "visible": False},
        "news": _tell(""),
        "about": {"value": ""},
        "figures": {"value": ""},
        "contrasts": {"value": ""},
        "numbers": {"value": ""},
        "which": {"choices": [], "value": ALL, "visible": False},
        "gallery_heading": {"value": ""},
        "gallery": {"value": ""},
        "unread": {"value": ""},
    }


def _tell(line: str) -> dict[str, Any]:
    return {"value": markup.render_status(line)}
