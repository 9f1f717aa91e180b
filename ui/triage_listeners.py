"""What the Triage tab does; see ``ui/triage.py`` for its wiring."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any, Final

from bulk.results import Place, Run
from models.errors import ExhibitError
from models.imaging import SourceImage
from ui import markup
from ui.listeners import Opening
from ui.services import Services
from ui.text import say, say_or
from ui.triage_markup import BAR, OPEN, PAGE, PAGE_SIZE, SORT, render_histogram, render_table
from ui.triage_runs import (
    ABOVE,
    ALL,
    FAILED,
    SPLIT,
    UNLIKE,
    Progress,
    Runs,
    Sight,
    check_uploads,
    is_run,
    list_folders,
    score,
)
from ui.updates import Updates, merge

SHOW_EVERY_S: Final = 0.5
_WHICH: Final = (ABOVE, ALL, SPLIT, UNLIKE, FAILED)
_RESULTS: Final = ("label", "threshold", "which", "find", "download")


@dataclass(frozen=True)
class Seen:
    """What a visitor looks at: a run, and what of it.

    Attributes:
        folder: of the run.
        task: its question.
        models: whose verdicts they are.
        sight: what of it.
    """

    folder: Path
    task: str
    models: tuple[str, ...]
    sight: Sight


class TriageListeners:
    """The behaviour of the tab over the shared services; keeps nothing of a visitor."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.runs = Runs(services)

    def word(self, language: str) -> Updates:
        """Labels and choices that do not depend on a run."""
        folders = [(say(language, "triage.no_folder"), "")]
        for name, folder in list_folders(self.services).items():
            folders.append((say(language, "triage.is_run", name=name) if is_run(folder) else name, name))
        tasks = [(say_or(language, f"task.{task}", task), task) for task in self.services.tasks]
        return {
            "tab": {"label": say(language, "tab.triage")},
            "note": {"value": f'<p class="note">{markup.escape(say(language, "triage.note"))}</p>'},
            "files": {"label": say(language, "triage.files")},
            "folder": {"label": say(language, "triage.folder"), "choices": folders, "visible": len(folders) > 1},
            "task": {"label": say(language, "task"), "choices": tasks},
            "models": {"label": say(language, "models")},
            "start": {"value": say(language, "triage.start")},
            "stop": {"value": say(language, "triage.stop")},
            "label": {"label": say(language, "triage.label")},
            "threshold": {"label": say(language, "triage.threshold")},
            "which": {
                "label": say(language, "triage.which"),
                "choices": [(say(language, f"triage.which.{name}"), name) for name in _WHICH],
            },
            "find": {"label": say(language, "triage.find")},
            "download": {"label": say(language, "triage.download")},
        }

    def choose_task(self, language: str, task: str) -> Updates:
        """The models of a question; those whose weights are here are ticked."""
        choices = [
            (markup.model_name(self.services.zoo.specs, choice.spec.id), choice.spec.id)
            for choice in self.services.choices(task)
            if choice.available
        ]
        ticked = list(self.services.default_models(task))
        return {"models": {"label": say(language, "models"), "choices": choices, "value": ticked}}

    def translate(self, language: str, seen: Seen | None) -> Updates:
        """The tab in a language."""
        words = self.word(language)
        return merge(words, self._show(language, seen)) if seen else words

    def start(
        self,
        language: str,
        files: Sequence[Any] | None,
        folder: str | None,
        task: str,
        models: Sequence[str],
        stopping: Event,
    ) -> Iterator[Updates]:
        """Score what was brought or chosen, or open a finished run.

        Raises:
            ExhibitError: there is nothing, it was not opened by the operator, or no model answers.
        """
        chosen = self._folder(language, folder)
        if chosen is not None and is_run(chosen):
            yield self._open(language, chosen)
            return
        inputs = check_uploads(language, [Path(one["path"]) for one in files or ()]) if chosen is None else [chosen]
        if not inputs:
            raise ExhibitError(say(language, "triage.choose"))
        asked = self._models(task, models)
        yield {"stop": {"interactive": True}, "start": {"interactive": False}} | _tell(say(language, "triage.listing"))
        shown = time.monotonic()
        latest: tuple[Path, Progress] | None = None
        for latest in score(self.services, language, inputs, task, asked, stopping):
            at = latest[1]
            if time.monotonic() - shown > SHOW_EVERY_S:
                shown = time.monotonic()
                yield _tell(_how_far(language, at), at.done / at.count)
        if latest is not None:
            run, at = latest
            yield self._finish(language, Seen(run, task, asked, Sight(self.runs.labels(run)[0])), at)

    def _finish(self, language: str, seen: Seen, at: Progress) -> Updates:
        table = self.runs.table(seen.folder)
        failed = table.num_rows - len(table["verdict"].drop_null())
        told = say(language, "triage.done", count=at.count, seconds=f"{at.seconds:.1f}", failed=failed)
        if at.done < at.count:
            told = say(language, "triage.stopped", done=at.done, count=at.count)
        return merge(self._begin(language, seen), {"start": {"interactive": True}, "stop": {"interactive": False}}) | (
            _tell(told)
        )

    def _open(self, language: str, folder: Path) -> Updates:
        run = Run(folder)
        known = self.services.zoo.specs
        models = tuple(model_id for model_id in run.models if model_id in known)
        task = known[models[0]].task if models else self.services.tasks[0]
        table = self.runs.table(folder)
        failed = table.num_rows - len(table["verdict"].drop_null())
        told = say(language, "triage.opened", count=table.num_rows, failed=failed)
        return self._begin(language, Seen(folder, task, models, Sight(run.labels[0]))) | _tell(told)

    def _begin(self, language: str, seen: Seen) -> Updates:
        """The first look at a run."""
        labels = self.runs.labels(seen.folder)
        choices = [(markup.label_word(language, label), label) for label in labels]
        shown: Updates = {name: {"visible": True} for name in _RESULTS}
        values: Updates = {
            "label": {"choices": choices, "value": seen.sight.label},
            "threshold": {"value": seen.sight.threshold},
            "which": {"value": seen.sight.which},
            "find": {"value": ""},
            "download": {"value": str(self.runs.pack(seen.folder, seen.task))},
        }
        return merge(shown, values, self._show(language, seen))

    def look(
        self, language: str, seen: Seen | None, label: str, threshold: float, which: str, find: str, pick: str = ""
    ) -> Updates:
        """Another look at the run: what the controls say, or what was pressed.

        Args:
            language: of the page.
            seen: the run.
            label: what is looked for.
            threshold: least probability.
            which: which rows.
            find: part of the name.
            pick: what was pressed in the histogram or the table, if anything was.
        """
        if seen is None:
            return {}
        label, which = label or seen.sight.label, which or seen.sight.which
        wanted = replace(seen.sight, label=label, threshold=float(threshold), which=which, find=find or "", page=0)
        action, _, what = pick.partition("|")
        extra: Updates = {}
        if action == BAR:
            wanted = replace(wanted, threshold=float(what), which=ABOVE)
            extra = {"threshold": {"value": wanted.threshold}, "which": {"value": ABOVE}}
        elif action == SORT:
            wanted = replace(wanted, sort=what, rising=what == wanted.sort and not wanted.rising)
        elif action == PAGE:
            wanted = replace(wanted, page=int(what))
        return merge(self._show(language, replace(seen, sight=wanted)), extra)

    def open(self, language: str, seen: Seen | None, pick: str) -> Opening:
        """A picture of the table, for the Examine tab.

        Raises:
            ExhibitError: it is no longer there, or cannot be read.
        """
        number = int(pick.partition("|")[2])
        if seen is None:
            raise ExhibitError(say(language, "triage.gone"))
        source = self._sources(seen, number, 1).get(number, say(language, "triage.gone"))
        if isinstance(source, str):
            raise ExhibitError(say(language, "triage.unreadable", reason=source))
        return Opening(source=source, models=seen.models)

    def fail(self, line: str) -> Updates:
        """One line says what went wrong; everything else stays."""
        news = {"news": {"value": markup.render_status(line, error=True)}}
        return {"start": {"interactive": True}, "stop": {"interactive": False}} | news

    def _models(self, task: str, wanted: Sequence[str]) -> tuple[str, ...]:
        """The ticked models, or the default ones; ids that answer another question are refused."""
        known = {spec.id for spec in self.services.zoo.for_task(task)}
        for model_id in wanted:
            if model_id not in known:
                raise ExhibitError(f"{model_id} does not answer the task {task}; choose another model.")
        return tuple(wanted) or self.services.default_models(task)

    def _folder(self, language: str, name: str | None) -> Path | None:
        if not name:
            return None
        known = list_folders(self.services)
        if name not in known:
            raise ExhibitError(say(language, "triage.not_allowed"))
        return known[name]

    def _show(self, language: str, seen: Seen) -> Updates:
        sight = seen.sight
        try:
            rows, of = self.runs.select(seen.folder, sight), self.runs.table(seen.folder).num_rows
        except ExhibitError as error:
            raise ExhibitError(say(language, "triage.gone")) from error
        first = sight.page * PAGE_SIZE
        sources = self._sources(seen, first, PAGE_SIZE)
        counts, strangers = self.runs.histogram(seen.folder, sight.label), self.runs.strangers(seen.folder)
        return {
            "seen": {"value": seen},
            "histogram": {"value": render_histogram(language, counts, sight)},
            "table": {"value": render_table(language, rows, of, sight, sources, first, strangers)},
        }

    def _sources(self, seen: Seen, first: int, count: int) -> dict[int, SourceImage | str]:
        """The pictures of some rows, by their numbers in what is looked at."""
        rows = self.runs.select(seen.folder, seen.sight).slice(max(first, 0), count)
        places = [Place(row["chunk"], row["row"]) for row in rows.select(["chunk", "row"]).to_pylist()]
        return dict(enumerate(self.runs.read(seen.folder, places), start=first))


def is_opening(pick: str) -> bool:
    """Whether a picture was pressed."""
    return pick.startswith(f"{OPEN}|")


def _how_far(language: str, at: Progress) -> str:
    rate = at.done / max(at.seconds, 1e-6)
    left = f"{(at.count - at.done) / rate:.0f}"
    return say(language, "triage.scoring", done=at.done, count=at.count, rate=f"{rate:.1f}", left=left)


def _tell(line: str, done: float | None = None) -> Updates:
    return {"news": {"value": markup.render_status(line, done)}}
