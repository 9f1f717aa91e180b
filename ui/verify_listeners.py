"""What the Verify tab does, free of Gradio's wiring: each answers with the updates of the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from models.errors import ExhibitError
from models.imaging import SourceImage
from rag.embedding import DEFAULT_PICTURE_MODEL
from rag.schema import Evidence
from ui import markup, pictures, verify_markup
from ui.files import check_upload
from ui.progress import News
from ui.services import Choice, Services
from ui.text import say
from ui.updates import Updates, merge
from ui.verify_desk import DOMAINS, ENDPOINT, EXTRACTIVE, LOCAL, Checked, Judges, VerifyDesk

NO_INDEX, OWN_INDEX = "", "own"
NO_VLM = ""


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
        clip: id of the image-text model that reads claims and builds indexes.
        vlm: id of a vision-language model that is asked about each claim as well, empty for none.
    """

    picture: dict[str, Any] | None
    question: str
    index: str
    answerer: str
    text: str
    domain: str
    clip: str = DEFAULT_PICTURE_MODEL
    vlm: str = NO_VLM

    @property
    def judges(self) -> Judges:
        """Who is to check."""
        return Judges(self.clip, self.vlm, self.domain)


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
            "clip": {
                "label": say(language, "verify.clip"),
                "choices": [_judge(language, choice) for choice in self.desk.judges("clip")],
            },
            "vlm": {
                "label": say(language, "verify.vlm"),
                "choices": [
                    (say(language, "verify.no_vlm"), NO_VLM),
                    *(_judge(language, choice) for choice in self.desk.judges("vlm")),
                ],
            },
            "ask": {"value": say(language, "verify.ask")},
            "stop": {"value": say(language, "verify.stop")},
            "text": {"label": say(language, "verify.answer"), "placeholder": say(language, "verify.answer_hint")},
            "check": {"value": say(language, "verify.check")},
            "building": {"label": say(language, "verify.building")},
            "files": {"label": say(language, "verify.files")},
            "build": {"value": say(language, "verify.build")},
            "similar": {"value": say(language, "verify.similar")},
        }
        updates = merge(updates, _nothing_chosen())
        return merge(updates, self._show(language, checked)) if checked else updates

    def load(
        self, language: str, wish: Wish, own: Path | None, cancel: Event, *, asking: bool = False
    ) -> Iterator[Updates]:
        """Load what a check needs, or with ``asking`` an answer too, so that nobody waits behind somebody's download.

        Raises:
            ExhibitError: the index is no longer here.
        """
        yield {"stop": {"interactive": True}} | _tell(say(language, "verify.loading"), 0.0)
        index = self._index(language, wish.index, own) if asking else None
        answerer = wish.answerer if asking else EXTRACTIVE
        yield from self._load(self.desk.load(cancel, wish.judges, answerer, index))

    def load_reader(self, language: str, clip: str, cancel: Event) -> Iterator[Updates]:
        """Load the image-text model that an index is to be built with."""
        yield {"stop": {"interactive": True}} | _tell(say(language, "verify.loading"), 0.0)
        yield from self._load(self.services.load_each((clip,), cancel))

    def _load(self, loading: Iterator[tuple[str, News]]) -> Iterator[Updates]:
        for model_id, news in loading:
            name = markup.model_name(self.services.zoo.specs, model_id)
            yield _tell(f"{name}: {news.text}", news.share or 0.0)

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
        if cancel.is_set():
            yield _stopped(language)
            return
        begun = _nothing_chosen() | {"claims": {"value": ""}, "checked": {"value": None}}
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
            yield _stopped(language)
        elif source is None:
            yield idle | _tell(say(language, "verify.answered"))
        else:
            yield _tell(say(language, "verify.checking"), 0.7)
            yield merge(idle, self._check(language, source, text, evidence, wish))

    def check(self, language: str, wish: Wish, cancel: Event | None = None) -> Iterator[Updates]:
        """Hold whatever stands in the answer's box against the picture.

        Raises:
            ExhibitError: something is missing, or cannot be had.
        """
        source = self._source(wish.picture)
        if source is None:
            raise ExhibitError(say(language, "verify.no_picture"))
        if not wish.text.strip():
            raise ExhibitError(say(language, "verify.no_answer"))
        if cancel is not None and cancel.is_set():
            yield _stopped(language)
            return
        yield _tell(say(language, "verify.checking"), 0.3)
        idle: Updates = {"stop": {"interactive": False}}
        yield merge(_nothing_chosen(), self._check(language, source, wish.text, (), wish), idle)

    def build(
        self,
        language: str,
        files: Sequence[dict[str, Any]] | None,
        cancel: Event,
        clip: str = DEFAULT_PICTURE_MODEL,
    ) -> Iterator[Updates]:
        """Index uploaded files, telling how far it is and what cannot be read.

        Raises:
            ExhibitError: there are no files, or none can be read.
        """
        if not files:
            raise ExhibitError(say(language, "verify.no_files"))
        given = [(Path(one["path"]), one.get("orig_name") or Path(one["path"]).name) for one in files]
        yield {"stop": {"interactive": True}} | _tell(say(language, "verify.indexing", seen=0, files=len(given)), 0.0)
        index, state = None, None
        for index, state in self.desk.build(given, cancel, clip):  # noqa: B007 - the last of both is what was built
            line = say(language, "verify.indexing", seen=state.seen, files=state.files)
            yield _tell(line, state.seen / max(state.files, 1))
        if index is None or state is None or not state.done:
            yield _stopped(language)
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

    def choose(self, language: str, checked: Checked | None, pick: str) -> Iterator[Updates]:
        """One claim was chosen: what made its verdict, first without its words, which take longest.

        Raises:
            ExhibitError: the answer is no longer kept here, or the image-text model cannot be had.
        """
        if checked is None or not pick.isdigit() or int(pick) >= len(checked.verdicts):
            raise ExhibitError(say(language, "verify.gone"))
        number = int(pick)
        verdict = checked.verdicts[number]
        picture, problem = self.desk.draw_claim(checked, number)
        waiting = markup.render_empty(say(language, "verify.claim_words_wait")) if verdict.signals else ""
        shown = verify_markup.render_claim(language, verdict, picture, problem, waiting)
        chosen = _nothing_chosen() | {"claim": {"value": shown}, "claims": {"shown": pick}, "chosen": {"value": number}}
        yield merge(chosen, {"similar": {"visible": verdict.region_xyxy is not None}}, _tell(""))
        if waiting:
            words = self._words(language, checked, number)
            yield {"claim": {"value": verify_markup.render_claim(language, verdict, picture, problem, words)}}

    def find_similar(
        self, language: str, checked: Checked | None, number: int | None, name: str, own: Path | None
    ) -> Iterator[Updates]:
        """Search an index for pictures that look like the best region of the chosen claim.

        Raises:
            ExhibitError: no claim or no index is chosen, or they are no longer here.
        """
        if checked is None or number is None or not 0 <= number < len(checked.verdicts):
            raise ExhibitError(say(language, "verify.gone"))
        index = self._index(language, name, own)
        if index is None:
            raise ExhibitError(say(language, "verify.no_index_to_search"))
        yield _tell(say(language, "verify.searching"), 0.3)
        region, found = self.desk.find_similar(checked, number, index)
        claim = checked.verdicts[number].claim.text
        line = say(language, "verify.similar_count", count=len(found))
        yield {"found": {"value": verify_markup.render_similar(language, claim, region, found)}} | _tell(line)

    def fail(self, line: str) -> Updates:
        """One line says what went wrong; what was found stays."""
        return {"stop": {"interactive": False}, "news": {"value": markup.render_status(line, error=True)}}

    def _check(
        self, language: str, source: SourceImage, text: str, evidence: Sequence[Evidence], wish: Wish
    ) -> Updates:
        # Whoever lets a server answer lets it see the answer.
        checked = self.desk.check(source, text, evidence, wish.judges, finer=wish.answerer == ENDPOINT)
        line = say(language, "verify.checked", count=len(checked.verdicts))
        return merge(self._show(language, checked), {"checked": {"value": checked}}, _tell(line))

    def _show(self, language: str, checked: Checked) -> Updates:
        answer = verify_markup.render_answer(language, checked.text, checked.verdicts)
        asked = filter(None, (checked.judges.clip, checked.judges.vlm))
        readers = [markup.model_name(self.services.zoo.specs, model_id) for model_id in asked]
        reliability = verify_markup.render_reliability(language, checked.reliability, checked.note, readers)
        return {"claims": {"value": answer + reliability, "shown": ""}}

    def _words(self, language: str, checked: Checked, number: int) -> str:
        """The claim's words, or the one line that says why they have no scores."""
        try:
            words = self.desk.attribute_words(checked, number)
        except ExhibitError as error:
            return markup.render_empty(str(error))
        if words is None:
            return ""
        reader = markup.model_name(self.services.zoo.specs, words.model_id)
        return verify_markup.render_claim_words(language, words, reader, pictures.words_uri())

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


def _nothing_chosen() -> Updates:
    """No claim is looked at."""
    return {
        "claim": {"value": ""},
        "chosen": {"value": None},
        "similar": {"visible": False},
        "found": {"value": ""},
    }


def _stopped(language: str) -> Updates:
    return {"stop": {"interactive": False}} | _tell(say(language, "verify.stopped"))


def _judge(language: str, choice: Choice) -> tuple[str, str]:
    """A model as an entry of a list: its name, with a word where it cannot be had now, and its id."""
    name = choice.spec.name
    return (name if choice.available else f"{name} ({say(language, 'state.unavailable')})"), choice.spec.id


def _tell(line: str, done: float | None = None) -> Updates:
    return {"news": {"value": markup.render_status(line, done)}}
