"""What the Verify tab does, free of Gradio's wiring: each answers with the updates of the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from models.errors import ExhibitError
from models.imaging import SourceImage
from rag.schema import Evidence
from ui import markup, verify_markup
from ui.files import check_upload
from ui.services import Services
from ui.text import say
from ui.updates import Updates, merge
from ui.verify_desk import DOMAINS, ENDPOINT, EXTRACTIVE, LOCAL, Checked, VerifyDesk

NO_INDEX, OWN_INDEX = "", "own"


@dataclass(frozen=True)
class Wish:
    """What a visitor asks, as the controls give it.

    Attributes:
        picture: Gradio's description of the uploaded picture.
        question: as written.
        index: name of an operator's index, ``own`` for the one built here, empty for none.
        answerer: who is to answer.
        text: the answer in its box.
        domain: kind of picture.
    """

    picture: dict[str, Any] | None
    question: str
    index: str
    answerer: str
    text: str
    domain: str


class Verifying:
    """The tab's behaviour over the shared services; keeps nothing of a visitor.

    Args:
        desk: does the work.
    """

    def __init__(self, desk: VerifyDesk) -> None:
        self.desk = desk
        self.services: Services = desk.services

    def translate(self, language: str, own: Path | None = None, checked: Checked | None = None) -> Updates:
        """Every word of the tab; what was found is shown again in the language."""
        names = [(say(language, "verify.no_index"), NO_INDEX)]
        names += [(say(language, "verify.own_index"), OWN_INDEX)] if own else []
        names += [(name, name) for name in self.desk.indexes()]
        updates: Updates = {
            "tab": {"label": say(language, "tab.verify")},
            "note": {"value": f'<p class="note">{markup.escape(say(language, "verify.note"))}</p>'},
            "picture": {"label": say(language, "verify.picture")},
            "question": {
                "label": say(language, "verify.question"),
                "placeholder": say(language, "verify.question_hint"),
            },
            "index": {"label": say(language, "verify.index"), "choices": names},
            "answerer": {
                "label": say(language, "verify.answerer"),
                "choices": [(self._answerer(language, name), name) for name in self.desk.answerers()],
            },
            "domain": {
                "label": say(language, "verify.domain"),
                "choices": [(say(language, f"verify.domain.{name}"), name) for name in DOMAINS],
            },
            "ask": {"value": say(language, "verify.ask")},
            "stop": {"value": say(language, "verify.stop")},
            "text": {"label": say(language, "verify.answer"), "placeholder": say(language, "verify.answer_hint")},
            "check": {"value": say(language, "verify.check")},
            "building": {"label": say(language, "verify.building")},
            "files": {"label": say(language, "verify.files")},
            "build": {"value": say(language, "verify.build")},
            "claim": {"value": ""},
        }
        return merge(updates, self._show(language, checked)) if checked else updates

    def ask(self, language: str, wish: Wish, own: Path | None, cancel: Event) -> Iterator[Updates]:
        """Find evidence, stream the answer, then check it where there is a picture.

        Raises:
            ExhibitError: something is missing, or cannot be had.
        """
        if not wish.question.strip():
            raise ExhibitError(say(language, "verify.no_question"))
        source, index = self._source(wish.picture), self._index(language, wish.index, own)
        if index is None and (source is None or wish.answerer == EXTRACTIVE):
            raise ExhibitError(say(language, "verify.no_evidence"))
        begun: Updates = {"claims": {"value": ""}, "claim": {"value": ""}, "checked": {"value": None}}
        yield begun | {"stop": {"interactive": True}} | _tell(say(language, "verify.searching"), 0.1)
        evidence = self.desk.retrieve(wish.question, source, index)
        shown: Updates = {"evidence": {"value": verify_markup.render_evidence(language, evidence)}}
        yield shown | _tell(say(language, "verify.answering"), 0.4)
        text, done = "", False
        for answer in self.desk.answer(wish.question, source, evidence, wish.answerer, cancel):
            text, done = answer.text, answer.done
            yield {"text": {"value": text}}
        idle: Updates = {"stop": {"interactive": False}}
        if not done:
            yield idle | _tell(say(language, "verify.stopped"))
        elif source is None:
            yield idle | _tell(say(language, "verify.answered"))
        else:
            yield _tell(say(language, "verify.checking"), 0.7)
            yield merge(idle, self._check(language, source, text, evidence, wish))

    def check(self, language: str, wish: Wish) -> Iterator[Updates]:
        """Hold whatever stands in the answer's box against the picture.

        Raises:
            ExhibitError: something is missing, or cannot be had.
        """
        source = self._source(wish.picture)
        if source is None:
            raise ExhibitError(say(language, "verify.no_picture"))
        if not wish.text.strip():
            raise ExhibitError(say(language, "verify.no_answer"))
        yield {"claim": {"value": ""}} | _tell(say(language, "verify.checking"), 0.3)
        yield self._check(language, source, wish.text, (), wish)

    def build(self, language: str, files: Sequence[dict[str, Any]] | None, cancel: Event) -> Iterator[Updates]:
        """Index uploaded files, telling how far it is and what cannot be read.

        Raises:
            ExhibitError: there are no files, or none can be read.
        """
        if not files:
            raise ExhibitError(say(language, "verify.no_files"))
        given = [(Path(one["path"]), one.get("orig_name") or Path(one["path"]).name) for one in files]
        yield {"stop": {"interactive": True}} | _tell(say(language, "verify.indexing", seen=0, files=len(given)), 0.0)
        index, state = None, None
        for index, state in self.desk.build(given, cancel):  # noqa: B007 - the last of both is what was built
            line = say(language, "verify.indexing", seen=state.seen, files=state.files)
            yield _tell(line, state.seen / max(state.files, 1))
        if index is None or state is None or not state.done:
            yield {"stop": {"interactive": False}} | _tell(say(language, "verify.stopped"))
            return
        line = say(language, "verify.indexed", chunks=state.chunks, files=state.written, bad=len(state.problems))
        problems = "".join(f"<li>{markup.escape(problem)}</li>" for problem in state.problems)
        updates = merge(self.translate(language, index), {"index": {"value": OWN_INDEX}, "own": {"value": index}})
        yield merge(
            updates,
            {
                "stop": {"interactive": False},
                "unread": {"value": f'<ul class="note">{problems}</ul>' if problems else ""},
            },
            _tell(line),
        )

    def choose(self, language: str, checked: Checked | None, pick: str) -> Updates:
        """One claim was chosen: what made its verdict."""
        if checked is None or not pick.isdigit() or int(pick) >= len(checked.verdicts):
            raise ExhibitError(say(language, "verify.gone"))
        picture, problem = self.desk.draw_claim(checked, int(pick))
        shown = verify_markup.render_claim(language, checked.verdicts[int(pick)], picture, problem)
        return {"claim": {"value": shown}, "claims": {"shown": pick}} | _tell("")

    def fail(self, line: str) -> Updates:
        """One line says what went wrong; what was found stays."""
        return {"stop": {"interactive": False}, "news": {"value": markup.render_status(line, error=True)}}

    def _check(
        self, language: str, source: SourceImage, text: str, evidence: Sequence[Evidence], wish: Wish
    ) -> Updates:
        # Whoever lets a server answer lets it see the answer.
        checked = self.desk.check(source, text, evidence, wish.domain, finer=wish.answerer == ENDPOINT)
        line = say(language, "verify.checked", count=len(checked.verdicts))
        return merge(self._show(language, checked), {"checked": {"value": checked}}, _tell(line))

    def _show(self, language: str, checked: Checked) -> Updates:
        answer = verify_markup.render_answer(language, checked.text, checked.verdicts)
        reliability = verify_markup.render_reliability(language, checked.reliability, checked.note)
        return {"claims": {"value": answer + reliability, "shown": ""}}

    def _source(self, picture: dict[str, Any] | None) -> SourceImage | None:
        if not picture:
            return None
        path = check_upload(Path(picture["path"]))
        return self.services.read(path, picture.get("orig_name") or path.name)

    def _index(self, language: str, name: str, own: Path | None) -> Path | None:
        if name == NO_INDEX:
            return None
        found = own if name == OWN_INDEX else self.desk.indexes().get(name)
        if found is None or not found.is_dir():
            raise ExhibitError(say(language, "verify.index_gone"))
        return found

    def _answerer(self, language: str, name: str) -> str:
        if name in (EXTRACTIVE, ENDPOINT):
            return say(language, f"verify.answerer.{name}")
        return markup.model_name(self.services.zoo.specs, name.removeprefix(LOCAL))


def _tell(line: str, done: float | None = None) -> Updates:
    return {"news": {"value": markup.render_status(line, done)}}
