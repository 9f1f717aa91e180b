"""Ask a model about every picture of a set, exactly as the app does; every row gets its line in the report.

A picture that cannot be read and an answer that names no label stay among the rows, without a predicted label.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from models.errors import BadImageError
from models.imaging import read_image
from models.reports import NO_ANSWER, NO_LABEL, UNREADABLE, Row
from models.schema import LiveModel
from models.vlm import VisionLanguageModel
from training.answer_metrics import score_answers
from training.errors import DataError, RunError
from training.labelled import LabelledSet
from training.questions import QuestionSet

BATCH = 32
THUMBNAIL_PX = 256
NEW_TOKENS = 64


@dataclass(frozen=True)
class Answered:
    """What a model said about a set.

    Attributes:
        labels: those the rows may have, spelled as the data does; empty for free answers.
        rows: one per row of the set, in its order.
        thumbnails: JPEG bytes by digest of each picture that could be read.
    """

    labels: tuple[str, ...]
    rows: tuple[Row, ...]
    thumbnails: dict[str, bytes]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)


def ask_labels(
    model: LiveModel, labelled: LabelledSet, *, write: bool = False, new_tokens: int = NEW_TOKENS
) -> Answered:
    """Ask for the label of every picture.

    Args:
        model: any that gives labels.
        labelled: the set; its labels are matched to the model's by name regardless of case.
        write: let a vision-language model write its answer and read the label in it, instead of comparing how probable
            the labels are.
        new_tokens: most tokens of a written answer.

    Raises:
        DataError: if the set has labels that the model lacks.
        RunError: if the model cannot write.
    """
    spelled = _spell_labels(labelled.names, model.labels)
    if write and not isinstance(model, VisionLanguageModel):
        raise RunError(f"{model.spec.id}: is no vision-language model and writes nothing; leave out --write.")
    rows: list[Row] = []
    thumbnails: dict[str, bytes] = {}
    for start in tqdm(range(0, len(labelled), BATCH), desc="evaluating", unit="batch", mininterval=1.0):
        numbers = range(start, min(start + BATCH, len(labelled)))
        seen = [_look(labelled.pictures[number], labelled.sources[number], thumbnails) for number in numbers]
        readable = [picture.image for picture in seen if picture.image]
        asked = _write_labels(model, readable, new_tokens) if write else _score_labels(model, readable)
        for number, picture in zip(numbers, seen, strict=True):
            answer, label, shares = next(asked) if picture.image else (None, None, None)
            predicted = spelled[label] if label else NO_ANSWER
            truth = labelled.names[labelled.labels[number]]
            rows.append(
                Row(
                    sha256=picture.digest,
                    source=picture.source,
                    truth=truth,
                    answer=answer,
                    predicted=predicted,
                    probabilities={spelled[one]: share for one, share in shares.items()} if shares else None,
                    right=predicted == truth,
                    problem=picture.problem or (None if label else NO_LABEL),
                )
            )
    return Answered(tuple(spelled.values()), tuple(rows), thumbnails)


def ask_questions(
    model: LiveModel, questions: QuestionSet, where: str, *, put: str = "{question}", new_tokens: int = NEW_TOKENS
) -> Answered:
    """Let a vision-language model write its answer to every question.

    Args:
        model: a vision-language model, with the prompt style in which it is asked.
        questions: pictures with questions and expected answers.
        where: what the sources of rows are called.
        put: how each question is put, with ``{question}`` in it.
        new_tokens: most tokens of an answer.

    Raises:
        RunError: if the model cannot write.
    """
    if not isinstance(model, VisionLanguageModel):
        raise RunError(f"{model.spec.id}: is no vision-language model and answers no questions.")
    thumbnails: dict[str, bytes] = {}
    answers: list[str | None] = []
    seen: list[_Seen] = []
    everything = questions.questions
    for start in tqdm(range(0, len(everything), BATCH), desc="evaluating", unit="batch", mininterval=1.0):
        batch = everything[start : start + BATCH]
        numbers = dict.fromkeys(one.picture for one in batch)  # many questions may be about one picture
        looked = {
            number: _look(questions.pictures[number], f"{where} picture {number}", thumbnails) for number in numbers
        }
        readable = [(image, one) for one in batch if (image := looked[one.picture].image)]
        asked = [put.replace("{question}", one.text) for _, one in readable]
        written = iter(model.write_each([image for image, _ in readable], asked, max_new_tokens=new_tokens))
        answers += [next(written).strip() if looked[one.picture].image else None for one in batch]
        seen += [replace(looked[one.picture], image=None) for one in batch]
    scores = score_answers(answers, [one.answer for one in everything])
    rows = tuple(
        Row(
            sha256=picture.digest,
            source=picture.source,
            question=one.text,
            truth=one.answer,
            answer=answer,
            right=score.relaxed,
            problem=picture.problem,
            scores=score,
        )
        for one, picture, answer, score in zip(everything, seen, answers, scores, strict=True)
    )
    return Answered((), rows, thumbnails)


Said = Iterator[tuple[str | None, str | None, dict[str, float] | None]]
"""Text written, label in the model's words, and probabilities, of each picture."""


def _score_labels(model: LiveModel, images: Sequence[Image.Image]) -> Said:
    for one in model.predict(images) if images else ():
        yield None, one.label, one.probabilities


def _write_labels(model: LiveModel, images: Sequence[Image.Image], new_tokens: int) -> Said:
    assert isinstance(model, VisionLanguageModel)  # noqa: S101 - checked by the caller
    for text in map(str.strip, model.write_each(images, [None] * len(images), max_new_tokens=new_tokens)):
        yield text, model.parse(text), None


def _spell_labels(data_names: Sequence[str], model_labels: Sequence[str]) -> dict[str, str]:
    """The model's labels in their order, each to its spelling in the data.

    Raises:
        DataError: if the model lacks one of the data's.
    """
    known = {label.casefold(): label for label in model_labels}
    missing = [name for name in data_names if name.casefold() not in known]
    if missing:
        raise DataError(
            f"the model's labels are {', '.join(model_labels)}, but the data has {', '.join(missing)}; "
            "name the data's labels as the model does with --label-names."
        )
    return {label: label for label in model_labels} | {known[name.casefold()]: name for name in data_names}


@dataclass(frozen=True)
class _Seen:
    """A picture that was looked at: its image, or the problem with it."""

    digest: str
    source: str
    image: Image.Image | None
    problem: str | None = None


def _look(encoded: bytes | Path, source: str, thumbnails: dict[str, bytes]) -> _Seen:
    """Decode a picture; a small copy goes into ``thumbnails``."""
    try:
        image = read_image(encoded, name=source)
    except BadImageError as error:
        digest = hashlib.sha256(_read_bytes(encoded)).hexdigest()
        return _Seen(digest, source, None, f"{UNREADABLE}{error}")
    if image.sha256 not in thumbnails:
        thumbnails[image.sha256] = make_thumbnail(image.rgb)
    return _Seen(image.sha256, source, image.rgb)


def _read_bytes(encoded: bytes | Path) -> bytes:
    """The bytes of a picture that is no picture; none where its file cannot be opened."""
    if isinstance(encoded, bytes):
        return encoded
    try:
        return encoded.read_bytes()
    except OSError:
        return b""


def make_thumbnail(image: Image.Image, side_px: int = THUMBNAIL_PX) -> bytes:
    """JPEG bytes of an RGB image, its longest side at most ``side_px``."""
    small = image.copy()
    small.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
