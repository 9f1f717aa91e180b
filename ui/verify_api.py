"""The endpoints ``ask`` and ``verify`` for programs: what the Verify tab shows, as JSON and pictures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr

from explain.schema import WordAttribution
from models.errors import ExhibitError
from models.imaging import SourceImage
from rag.describing import describe_check, describe_evidence
from rag.embedding import DEFAULT_PICTURE_MODEL
from ui import pictures
from ui.verify_desk import DOMAINS, EXTRACTIVE, Checked, Judges, VerifyDesk

Json = dict[str, Any]


class VerifyEndpoints:
    """The endpoints over the tab's work.

    Args:
        desk: does the work.
    """

    def __init__(self, desk: VerifyDesk) -> None:
        self._desk = desk

    def ask(
        self,
        question: str,
        image: str | None = None,
        index: str = "",
        answerer: str = EXTRACTIVE,
        domain: str = DOMAINS[0],
        model: str = DEFAULT_PICTURE_MODEL,
        vlm: str = "",
    ) -> Json:
        """Answer a question from an index that the operator opened, and check it against a picture if one is given.

        Args:
            question: What is asked.
            image: A picture file that the question is about; without one the claims are not checked.
            index: Name of an index among the folders that the operator opened; empty for none.
            answerer: "extractive" (quotations, offline), "endpoint" (the operator's language model, where one is
                connected) or "local:ID" of a vision-language model.
            domain: Kind of picture that the verdicts are calibrated for: "photographs" or "casework".
            model: Id from the endpoint `models` of the image-text model (kind "clip") that checks the claims.
            vlm: Id of a vision-language model (kind "vlm") that is asked about each claim as well; empty for none.

        Returns:
            The answer, who gave it, the evidence that it cites by number with its scores, and with a picture `check`:
            what `verify` answers, or null and in `problem` why the answer could not be checked.
        """
        judges = _judges(model, vlm, domain)
        if not question.strip():
            raise ExhibitError("no question was given; send one as `question`.")
        folder = self._index(index)
        source = self._read(image) if image else None
        if not index and (source is None or answerer == EXTRACTIVE):
            raise ExhibitError("there is nothing to answer from; name an `index`, or send an `image` to a model.")
        evidence = self._desk.retrieve(question, source, folder)
        *_, answer = self._desk.answer(question, source, evidence, answerer, Event())
        told = {"question": question, "answer": answer.text, "answerer": answer.answerer}
        check, problem = None, ""
        if source is not None:
            try:
                check = _describe(self._desk.check(source, answer.text, evidence, judges))
            except ExhibitError as error:  # the answer is there all the same
                problem = str(error)
        return told | {"evidence": describe_evidence(evidence), "check": check, "problem": problem}

    def verify(
        self,
        image: str,
        answer: str,
        domain: str = DOMAINS[0],
        heatmaps: bool = False,
        model: str = DEFAULT_PICTURE_MODEL,
        vlm: str = "",
        index: str = "",
    ) -> tuple[Json, list[str]]:
        """Say of each claim of an answer whether a picture supports it, refutes it, or does not settle it.

        Args:
            image: The picture file.
            answer: The answer: statements in English. Claims in other languages are not settled.
            domain: Kind of picture that the verdicts are calibrated for: "photographs" or "casework".
            heatmaps: Whether to draw each claim's heatmap with its best region and to score its words (one more pass,
                and about sixteen texts a word).
            model: Id from the endpoint `models` of the image-text model (kind "clip") that reads the claims.
            vlm: Id of a vision-language model (kind "vlm") that is asked about each claim as well; empty for none.
            index: Name of an index among the folders that the operator opened, to search for pictures like each
                claim's best region; empty for none.

        Returns:
            The claims (text, span in the answer, verdict, support in [0, 1] with the thresholds, every signal with its
            contribution in log-odds, of which `vqa` is the vision-language model's, best region in pixels of the
            picture, what was read there for a quotation, counter-claims with their cosines; with `heatmaps` also
            `words`: what each adds to the cosine, null with a `problem` where that cannot be told; with `index` also
            `similar`: the pictures found) and the answer's reliability (share of supported claims with its interval,
            the weakest claim) with the models that were asked; and PNG files claim-1.png, claim-2.png ... where asked
            for.
        """
        folder = self._index(index)
        checked = self._desk.check(self._read(image), answer, (), _judges(model, vlm, domain))
        told = _describe(checked)
        files: list[str] = []
        for number, claim in enumerate(told["claims"]):
            if heatmaps:
                drawn, _ = self._desk.draw_claim(checked, number)
                files.append(str(pictures.write_png(drawn, f"claim-{number + 1}.png")))
                claim.update(self._describe_words(checked, number))
            if folder is not None:
                region = checked.verdicts[number].region_xyxy
                _, found = self._desk.find_similar(checked, number, folder) if region else (None, ())
                claim["similar"] = describe_evidence(found)
        return told, files

    def _describe_words(self, checked: Checked, number: int) -> Json:
        try:
            words = self._desk.attribute_words(checked, number)
        except ExhibitError as error:
            return {"words": None, "problem": str(error)}
        return {"words": words and _describe_words(words)}

    def _index(self, name: str) -> Path | None:
        known = self._desk.indexes()
        if name and name not in known:
            raise ExhibitError(f"there is no index {name!r} here; known are: {', '.join(known) or 'none'}.")
        return known.get(name)

    def _read(self, image: str) -> SourceImage:
        if not image:
            raise ExhibitError("no image was given; send a picture file as `image`.")
        return self._desk.services.read(Path(image), Path(image).name)


def _describe(checked: Checked) -> Json:
    asked = {"model": checked.judges.clip, "vlm": checked.judges.vlm or None}
    return describe_check(checked.text, checked.verdicts, checked.reliability, checked.note) | asked


def _describe_words(words: WordAttribution) -> list[Json]:
    return [
        {"word": word, "start": start, "score": score}
        for word, (start, _), score in zip(words.words, words.spans, words.scores.tolist(), strict=True)
    ]


def _judges(model: str, vlm: str, domain: str) -> Judges:
    if domain not in DOMAINS:
        raise ExhibitError(f"`domain` is {domain!r}; send one of {', '.join(DOMAINS)}.")
    return Judges(model or DEFAULT_PICTURE_MODEL, vlm, domain)


def create_verify_inputs(desk: VerifyDesk) -> tuple[list[Any], list[Any]]:
    """Inputs of the endpoints ``ask`` and ``verify``, in their order."""

    def names(label: str, known: Iterable[str], value: str) -> gr.Dropdown:
        return gr.Dropdown(list(known), value=value, allow_custom_value=True, label=label)

    def judges() -> list[Any]:
        clips, vlms = ([choice.spec.id for choice in desk.judges(kind)] for kind in ("clip", "vlm"))
        return [names("model", clips, DEFAULT_PICTURE_MODEL), names("vlm", ("", *vlms), "")]

    asked = [
        gr.Textbox(label="question"),
        gr.File(None, label="image", type="filepath"),
        names("index", ("", *desk.indexes()), ""),
        names("answerer", desk.answerers(), EXTRACTIVE),
        names("domain", DOMAINS, DOMAINS[0]),
        *judges(),
    ]
    claimed = [
        gr.File(label="image", type="filepath"),
        gr.Textbox(label="answer"),
        names("domain", DOMAINS, DOMAINS[0]),
        gr.Checkbox(value=False, label="heatmaps"),
        *judges(),
        names("index", ("", *desk.indexes()), ""),
    ]
    return asked, claimed
