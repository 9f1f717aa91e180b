"""The endpoints ``ask`` and ``verify`` for programs: what the Verify tab shows, as JSON and pictures."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any

from models.errors import ExhibitError
from models.imaging import SourceImage
from rag.describing import describe_check, describe_evidence
from ui import pictures
from ui.verify_desk import DOMAINS, EXTRACTIVE, Checked, VerifyDesk

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
    ) -> Json:
        """Answer a question from an index that the operator opened, and check it against a picture if one is given.

        Args:
            question: What is asked.
            image: A picture file that the question is about; without one the claims are not checked.
            index: Name of an index among the folders that the operator opened; empty for none.
            answerer: "extractive" (quotations, offline), "endpoint" (the operator's language model, where one is
                connected) or "local:ID" of a vision-language model.
            domain: Kind of picture that the verdicts are calibrated for: "photographs" or "casework".

        Returns:
            The answer, who gave it, the evidence that it cites by number with its scores, and with a picture `check`:
            what `verify` answers.
        """
        if not question.strip():
            raise ExhibitError("no question was given; send one as `question`.")
        known = self._desk.indexes()
        if index and index not in known:
            raise ExhibitError(f"there is no index {index!r} here; known are: {', '.join(known) or 'none'}.")
        source = self._read(image) if image else None
        if not index and (source is None or answerer == EXTRACTIVE):
            raise ExhibitError("there is nothing to answer from; name an `index`, or send an `image` to a model.")
        evidence = self._desk.retrieve(question, source, known.get(index))
        *_, answer = self._desk.answer(question, source, evidence, answerer, Event())
        told = {"question": question, "answer": answer.text, "answerer": answer.answerer}
        check = None
        if source is not None:
            check = _describe(self._desk.check(source, answer.text, evidence, _domain(domain)))
        return told | {"evidence": describe_evidence(evidence), "check": check}

    def verify(
        self, image: str, answer: str, domain: str = DOMAINS[0], heatmaps: bool = False
    ) -> tuple[Json, list[str]]:
        """Say of each claim of an answer whether a picture supports it, refutes it, or does not settle it.

        Args:
            image: The picture file.
            answer: The answer: statements in English. Claims in other languages are not settled.
            domain: Kind of picture that the verdicts are calibrated for: "photographs" or "casework".
            heatmaps: Whether to draw each claim's heatmap with its best region (one more pass each).

        Returns:
            The claims (text, span in the answer, verdict, support in [0, 1] with the thresholds, every signal with its
            contribution in log-odds, best region in pixels of the picture, counter-claims with their cosines) and the
            answer's reliability (share of supported claims with its interval, the weakest claim); and PNG files
            claim-1.png, claim-2.png ... where asked for.
        """
        checked = self._desk.check(self._read(image), answer, (), _domain(domain))
        files: list[str] = []
        if heatmaps:
            for number in range(len(checked.verdicts)):
                drawn, _ = self._desk.draw_claim(checked, number)
                files.append(str(pictures.write_png(drawn, f"claim-{number + 1}.png")))
        return _describe(checked), files

    def _read(self, image: str) -> SourceImage:
        if not image:
            raise ExhibitError("no image was given; send a picture file as `image`.")
        return self._desk.services.read(Path(image), Path(image).name)


def _describe(checked: Checked) -> Json:
    return describe_check(checked.text, checked.verdicts, checked.reliability, checked.note)


def _domain(name: str) -> str:
    if name not in DOMAINS:
        raise ExhibitError(f"`domain` is {name!r}; send one of {', '.join(DOMAINS)}.")
    return name
