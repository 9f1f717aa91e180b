"""Free text from vision-language models: each writes about the picture while the visitor reads along."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from threading import Event

from explain.examination import Settings
from models.errors import ExhibitError
from models.imaging import SourceImage
from models.loading import BASE_SUFFIX
from models.vlm import VisionLanguageModel
from ui import markup
from ui.markup_vlm import Written, render_written
from ui.results import Specs
from ui.services import Services
from ui.text import say
from ui.updates import Updates


@dataclass(frozen=True)
class Writing:
    """One visitor's wish to read the models' own words.

    Attributes:
        services: what all visitors share.
        language: of the page.
        specs: for the names.
        stopping: ends the writing after the word in work.
    """

    services: Services
    language: str
    specs: Specs
    stopping: Event

    def write(self, source: SourceImage, settings: Settings) -> Iterator[Updates]:
        """Every vision-language model of the settings in turn, its base model after it where they are compared.

        One that cannot write says why in its place; the others go on.
        """
        started = time.perf_counter()
        finished: tuple[Written, ...] = ()
        for entry in self._entries(source, settings):
            if entry.done:
                finished = (*finished, entry)
            yield self._show((*finished, *(() if entry.done else (entry,))), entry)
        if self.stopping.is_set():
            line = say(self.language, "status.stopped")
        else:
            line = say(self.language, "write.done", seconds=f"{time.perf_counter() - started:.1f}")
        yield {"status": {"value": markup.render_status(line)}, "stop": {"interactive": False}}

    def _entries(self, source: SourceImage, settings: Settings) -> Iterator[Written]:
        asked = filter(self.services.reads_questions, settings.models)
        both = ("", BASE_SUFFIX) if settings.compare_base else ("",)
        for model_id in (f"{each}{suffix}" for each in asked for suffix in both):
            if self.stopping.is_set():
                return
            try:
                live = self.services.live(model_id, settings.precision)
                if isinstance(live, VisionLanguageModel):
                    yield from self._read_along(live.asking(question=settings.question, style=settings.style), source)
            except ExhibitError as error:
                problem = " ".join(str(error).split())
                yield Written(model_id, source.name, settings.question or "", problem=problem, done=True)

    def _read_along(self, live: VisionLanguageModel, source: SourceImage) -> Iterator[Written]:
        entry = Written(live.spec.id, source.name, live.question)
        yield entry
        for text in live.write(source.rgb, cancel=self.stopping):
            entry = replace(entry, text=text)
            yield entry
        yield replace(entry, label=live.parse(entry.text), done=True)

    def _show(self, entries: tuple[Written, ...], latest: Written) -> Updates:
        name = markup.model_name(self.specs, latest.model_id)
        return {
            "written": {"value": render_written(self.language, entries, self.specs)},
            "writings": {"value": entries},
            "status": {"value": markup.render_status(say(self.language, "write.status", name=name))},
        }
