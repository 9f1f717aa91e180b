"""What the controls of the Examine tab do, free of Gradio's wiring: each answers with the updates of the page.

Every listener takes the language of the page first. What belongs to a visitor comes in and goes out as an argument.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from explain.examination import Settings
from models.errors import ExhibitError
from models.imaging import SourceImage
from models.prompts import STYLES
from ui import markup, markup_vlm, pictures, results
from ui.errors import explain_error
from ui.faithfulness_listeners import Trusting
from ui.markup_vlm import Written
from ui.pictures import View
from ui.results import Result
from ui.services import BOTH, TUNED, Asking, Services, pack_bundle
from ui.text import say
from ui.updates import Updates, merge
from ui.wording import choose_task, word_controls, word_question, word_task
from ui.writing import Writing

# What browsers show by themselves; a picture in another format is shown as a copy, the original is examined.
BROWSER_FORMATS = frozenset({"JPEG", "PNG", "WEBP", "GIF", "BMP"})


@dataclass(frozen=True)
class Chosen:
    """The picture a visitor wants examined.

    Attributes:
        source: read and checked.
        shown: the file that the page shows for it.
    """

    source: SourceImage
    shown: Path


@dataclass(frozen=True)
class Wishes:
    """What a visitor asked for, as the controls give it."""

    task: str
    models: list[str]
    methods: list[str]
    target: str
    detector: str
    asking: Asking = field(default_factory=Asking)


@dataclass(frozen=True)
class Opening:
    """A picture that another tab hands over, with what its models were asked about it.

    Attributes:
        source: read and checked.
        models: zoo ids, or names of bundled folders; those that nobody here knows are left out.
        question: put to vision-language models; empty for their own.
        style: of the question; empty for their own.
        both: whether fine-tuned models are compared with their bases.
    """

    source: SourceImage
    models: tuple[str, ...]
    question: str = ""
    style: str = ""
    both: bool = False


@dataclass(frozen=True)
class Kept:
    """What the page keeps for a visitor.

    Attributes:
        chosen: the picture to examine.
        result: the latest examination.
        writings: what models wrote last.
    """

    chosen: Chosen | None = None
    result: Result | None = None
    writings: tuple[Written, ...] = ()


@dataclass(frozen=True)
class Listeners:
    """The behaviour of one tab over the shared services; keeps nothing of a visitor."""

    services: Services

    def _specs(self, language: str) -> results.Specs:
        return results.name_variants(language, self.services.zoo.specs)

    def translate(self, language: str, task: str, models: list[str], kept: Kept, view: View) -> Updates:
        """Every word of the tab in a language; pictures and values stay."""
        chosen, result, specs = kept.chosen, kept.result, self._specs(language)
        updates = merge(
            word_controls(language, self.services),
            word_task(language, self.services, task),
            word_question(language, self.services, models),
        )
        updates["written"] = {"value": markup_vlm.render_written(language, kept.writings, specs)}
        updates["facts"] = {"value": results.describe_source(language, chosen.source if chosen else None)}
        updates["status"] = {"value": self._ready(language, chosen)}
        updates["verdict"] = {"value": results.describe_nothing(language)}
        if result is None:
            return updates
        if not result.examination.complete:
            del updates["status"]  # it belongs to the examination that runs, or was stopped
        else:
            updates["status"] = {"value": results.describe_progress(language, specs, result.examination)}
        settled = results.settle_view(result.examination, view)
        return merge(
            updates,
            results.show_result(language, specs, result, settled),
            results.describe_view(language, specs, result.examination, settled),
            Trusting(self.services).show(language, result, view),
        )

    def choose(self, language: str, payload: dict[str, Any] | None, chosen: Chosen | None) -> Updates:
        """A picture was dropped, pasted or picked; a bad one leaves the former in place."""
        if not payload:
            return self.clear(language)
        path = Path(payload["path"])
        try:
            source = self.services.read(path, payload.get("orig_name") or path.name)
        except ExhibitError as error:
            former = {"picture": {"value": str(chosen.shown) if chosen else None}}
            return former | self.fail(explain_error(error, language))
        shown = path if source.format in BROWSER_FORMATS else _show_copy(source)
        return self._accept(language, Chosen(source, shown))

    def clear(self, language: str) -> Updates:
        """The picture was taken away; what was found stays until the next examination."""
        facts = results.describe_source(language, None)
        return {"chosen": {"value": None}, "facts": {"value": facts}, "status": {"value": self._ready(language, None)}}

    def choose_example(self, language: str, name: str) -> Updates:
        """An example was picked by its name."""
        example = next((e for e in self.services.examples if e.name == name), None)
        if example is None:
            return {}
        source = example.read()
        return self._accept(language, Chosen(source, _show_copy(source)))

    def open(self, language: str, opening: Opening) -> Updates:
        """Another tab's picture, with its models ticked and asked as they were there."""
        updates = self._accept(language, Chosen(opening.source, _show_copy(opening.source)))
        known = self.services.find_models(opening.models)
        if not known:
            return updates
        task = known[0].task
        models = [spec.id for spec in known if spec.task == task]
        asking: Updates = {
            "task": {"value": task},
            "models": {"value": models},
            "asked": {"value": opening.question},
            "style": {"value": opening.style if opening.style in STYLES else "plain"},
            "adapter": {"value": BOTH if opening.both else TUNED},
        }
        words = word_question(language, self.services, models)
        return merge(updates, word_task(language, self.services, task), {"target": {"value": ""}}, asking, words)

    def refresh(self, language: str, task: str) -> Updates:
        """What would answer for each model by now, which may have changed since the page was built."""
        return word_task(language, self.services, task)

    def ask(self, language: str, task: str) -> Updates:
        """Another task: other models and labels."""
        values = choose_task(self.services, task)
        words = word_question(language, self.services, values["models"]["value"])
        return merge(word_task(language, self.services, task), values, words)

    def tick(self, language: str, models: list[str]) -> Updates:
        """Other models: a question can be asked where one of them reads it."""
        return word_question(language, self.services, models)

    def wait(self, language: str) -> Updates:
        """Say at once that the wish was heard, also when other visitors come first; from now on it can be stopped."""
        line = markup.render_status(say(language, "status.waiting"), 0.0)
        return {"stopping": {"value": Event()}, "status": {"value": line}, "stop": {"interactive": True}}

    def load(
        self,
        language: str,
        stopping: Event,
        chosen: Chosen | None,
        wishes: Wishes,
    ) -> Iterator[Updates]:
        """Load what will be asked, so that nobody waits in the queue of running models for somebody's download."""
        yield {}
        if chosen is None or _missing(chosen, wishes):
            return  # ``run`` says what is missing
        specs = self._specs(language)
        for model_id, news in self.services.load_all(self._settings(wishes), stopping):
            line = f"{markup.model_name(specs, model_id)}: {news.text}"
            yield {"status": {"value": markup.render_status(line, news.share or 0.0)}}

    def run(
        self, language: str, stopping: Event, chosen: Chosen | None, wishes: Wishes, view: View
    ) -> Iterator[Updates]:
        """Examine and show each step; the viewer is drawn when the first map is there and then is the visitor's.

        Args:
            language: of the page.
            stopping: set by ``stop``, looked at before each step.
            chosen: the picture.
            wishes: what to do with it.
            view: which map to show first, where it exists.
        """
        problem = _missing(chosen, wishes)
        if chosen is None or problem:
            yield self.fail(say(language, problem))
            return
        result: Result | None = None
        settled: View | None = None
        specs = self._specs(language)
        steps = self.services.examine(chosen.source, self._settings(wishes))
        while not stopping.is_set() and (examination := next(steps, None)) is not None:
            result = results.make_result(examination, result)
            first, settled = settled is None, settled or results.settle_view(examination, view, specs)
            updates = results.show_result(language, specs, result, settled)
            if first and settled:
                trust = Trusting(self.services).show(language, result, settled)
                updates = merge(updates, results.show_view(language, specs, result, settled), trust)
            elif settled:
                for picker in ("model_shown", "method_shown"):  # by now the visitor may have picked another map
                    del updates[picker]["value"]
            updates["result"] = {"value": result}
            updates["status"] = {"value": results.describe_progress(language, specs, examination)}
            updates["stop"] = {"interactive": not examination.complete}
            yield updates
        if result is None or not result.examination.complete:
            yield self._stopped(language)

    def write(self, language: str, stopping: Event, chosen: Chosen | None, wishes: Wishes) -> Iterator[Updates]:
        """Let the chosen vision-language models answer in their own words, shown as they write."""
        problem = "" if chosen else "status.no_picture"
        if chosen and not any(map(self.services.reads_questions, wishes.models)):
            problem = "status.no_vlm"
        if chosen is None or problem:
            yield self.fail(say(language, problem))
            return
        writing = Writing(self.services, language, self._specs(language), stopping)
        yield from writing.write(chosen.source, self._settings(wishes))

    def stop(self, language: str, stopping: Event | None) -> Updates:
        """End the examination before its next step, also one that still waits for its turn."""
        if stopping is not None:
            stopping.set()
        return self._stopped(language)

    def redraw(self, language: str, result: Result | None, view: View) -> Updates:
        """Another model, method, opacity, boxes or scale: drawn from what is kept, without any model."""
        settled = results.settle_view(result.examination, view) if result else None
        if result is None or settled is None:
            return {}
        return merge(
            results.show_pickers(self._specs(language), result.examination, settled),
            results.show_view(language, self._specs(language), result, settled),
        )

    def pack(self, language: str, result: Result | None, *, original: bool) -> Updates:
        """Write the evidence bundle and hand it to the hidden download."""
        if result is None:
            return {}
        packed = pack_bundle(result.examination, include_original=original)
        line = markup.render_status(say(language, "status.bundle", name=packed.archive.name))
        return {"archive": {"value": str(packed.archive)}, "status": {"value": line}}

    def fail(self, line: str) -> Updates:
        """One line says what went wrong; everything else stays."""
        return {"status": {"value": markup.render_status(line, error=True)}, "stop": {"interactive": False}}

    def _settings(self, wishes: Wishes) -> Settings:
        models, methods = tuple(wishes.models), tuple(wishes.methods)
        return self.services.settings(wishes.task, models, methods, wishes.target, wishes.detector, wishes.asking)

    def _accept(self, language: str, chosen: Chosen) -> Updates:
        return {
            "chosen": {"value": chosen},
            "picture": {"value": str(chosen.shown)},
            "facts": {"value": results.describe_source(language, chosen.source)},
            "status": {"value": self._ready(language, chosen)},
        }

    def _stopped(self, language: str) -> Updates:
        line = markup.render_status(say(language, "status.stopped"))
        return {"status": {"value": line}, "stop": {"interactive": False}}

    def _ready(self, language: str, chosen: Chosen | None) -> str:
        if chosen is None:
            return markup.render_status(say(language, "status.ready"))
        return markup.render_status(say(language, "status.chosen", name=chosen.source.name))


def _show_copy(source: SourceImage) -> Path:
    """A file that the page can show for a picture that is no file of the visitor's, or none that browsers show."""
    return pictures.write_screen(pictures.fit_screen(source.rgb))


def _missing(chosen: Chosen | None, wishes: Wishes) -> str:
    """The key of the sentence that says what has not been chosen, empty when nothing is missing."""
    if chosen is None:
        return "status.no_picture"
    if not wishes.models:
        return "status.no_model"
    return "" if wishes.methods else "status.no_method"
