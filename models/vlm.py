"""A vision-language model asked one question: a light view on a shared network, and as such one more live model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from threading import Event, RLock
from time import perf_counter
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from models.answers import parse_label
from models.doubt import Doubt, answer
from models.errors import ExhibitError, ModelUnavailableError
from models.generation import cut_at, generate_ids
from models.prompts import PromptStyle, get_style
from models.questions import score_questions
from models.schema import Inputs, LayerPreset, ModelSpec, ModelStatus, Prediction, TokenLayout
from models.scoring import LabelScores, score_labels
from models.vlm_core import VlmCore

__all__ = ["VisionLanguageModel"]

_BATCH = 8
_DESCRIBED = "question_utf8"


class VisionLanguageModel:
    """One question to one vision-language model; implements ``models.schema.LiveModel``.

    Views are cheap and do not change: ``asking`` and ``without_adapter`` make further ones on the same network.

    Attributes:
        spec: the entry that was asked for.
        status: what stands behind the answers.
        core: the network, shared.
        adapter: key of the adapter that takes part, or ``None``.
        base_status: what stands behind the network without its adapter.
        question: what is asked, before the style.
        style: name of the prompt style.
        answers: text the model may write, to the task's label.
        labels: the task's labels, in the order of the logits.
    """

    def __init__(
        self,
        spec: ModelSpec,
        status: ModelStatus,
        core: VlmCore,
        *,
        adapter: str | None = None,
        base_status: ModelStatus | None = None,
        question: str | None = None,
        style: str = "plain",
        answers: Mapping[str, str] | None = None,
        doubt: Doubt | None = None,
    ) -> None:
        self.spec = spec
        self.status = status
        self.core = core
        self.adapter = adapter
        self.base_status = base_status
        self.question = (spec.question or "") if question is None else question
        self.style = style
        self.answers = dict(spec.answers if answers is None else answers)
        self.labels = tuple(self.answers.values())
        self._style: PromptStyle = get_style(style)
        self._measured = doubt
        if len(set(self.labels)) < max(len(self.labels), 2):
            raise ExhibitError(f"{spec.id}: give at least two answers, each for another label.")

    @property
    def doubt(self) -> Doubt | None:
        """What was measured of these weights, where they are asked as they were then."""
        measured = self._measured
        return measured if measured is not None and measured.fits(self.labels, self.question, self.style) else None

    @property
    def lock(self) -> RLock:
        """The network's lock."""
        return self.core.lock

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self.core.module

    @property
    def target_layer(self) -> str:
        """Dotted name of the layer explained by default, in the vision tower."""
        return self.layers[0].name

    @cached_property
    def layers(self) -> Sequence[LayerPreset]:
        """Layers worth explaining, the default first."""
        return self.core.family.layers(self.module)

    def asking(
        self, *, question: str | None = None, style: str | None = None, answers: Mapping[str, str] | None = None
    ) -> VisionLanguageModel:
        """The same model asked something else; what is not given stays.

        Raises:
            ExhibitError: no such style, or fewer than two labels.
        """
        return self._view(
            question=self.question if question is None else question,
            style=style or self.style,
            answers=self.answers if answers is None else answers,
        )

    def without_adapter(self) -> VisionLanguageModel:
        """The base model asked the same, called ``ID@base``.

        Raises:
            ModelUnavailableError: the model is no adapter on a base.
        """
        if self.adapter is None or self.base_status is None:
            raise ModelUnavailableError(
                f"{self.spec.id} is a whole model without an adapter", "name its `base` in the zoo to compare with it"
            )
        spec = self.spec.model_copy(update={"id": f"{self.spec.id}@base"})
        return self._view(
            spec=spec, core=self.core.base, status=self.base_status, adapter=None, base_status=None, doubt=None
        )

    def merged(self) -> VisionLanguageModel:
        """The same model on a network of its own, the adapter's weights added to the base's.

        Raises:
            ModelUnavailableError: it has no adapter, or its weights are quantised.
        """
        if self.adapter is None:
            raise ModelUnavailableError(f"{self.spec.id} has no adapter to merge")
        with self.lock:
            whole = self.core.adapters.merged(self.adapter)
        core = VlmCore(self.core.family, whole, self.core.processor, self.core.precision)
        return self._view(core=core, adapter=None, base_status=None)

    def batches(self, images: Sequence[Image.Image]) -> Iterator[Sequence[Image.Image]]:
        """As many images as one pass takes."""
        for start in range(0, len(images), _BATCH):
            yield images[start : start + _BATCH]

    def prepare(self, images: Sequence[Image.Image]) -> Inputs:
        """N images with this question as model inputs; ``captioned`` has them described first."""
        if self._style.describe is None:
            return self.core.encode(images, [self._prompt(self._full_question())] * len(images))
        questions = [self._full_question(text) for text in self.describe(images)]
        inputs = self.core.encode(images, [self._prompt(question) for question in questions])
        return inputs | {_DESCRIBED: _as_tensor(questions)}

    def forward(self, inputs: Inputs) -> LabelScores:
        """One pass over prepared inputs; ``logits`` (n, labels) are log-probabilities of the labels' texts."""
        questions = self.questions(inputs)
        with self._turn():
            return self._score(self.core.embed(inputs), questions)

    def split(self, activation: Tensor, inputs: Inputs, layer: str) -> list[Tensor]:
        """A layer's output for the batch, or its gradient, as one (tokens, channels) per image."""
        return self.core.family.split(self.module, activation, inputs, layer)

    def layout(
        self, inputs: Inputs, sizes_wh: Sequence[tuple[int, int]], layer: str | None = None
    ) -> list[TokenLayout]:
        """Where the cells of ``split`` lie in each original picture."""
        core = self.core
        return core.family.layout(self.module, core.processor, inputs, sizes_wh, layer or self.target_layer)

    def predict(self, images: Sequence[Image.Image]) -> list[Prediction]:
        """Predictions for RGB images, in their order.

        Raises:
            ModelUnavailableError: the network answers with numbers that are not finite.
        """
        predictions: list[Prediction] = []
        for part in self.batches(images):
            inputs = self.prepare(part)
            begin = perf_counter()
            with torch.no_grad():
                scores = self.forward(inputs)
                self._wait()
            predictions += self.read(scores, perf_counter() - begin)
        return predictions

    def ask(self, image: Image.Image, questions: Sequence[str]) -> list[Prediction]:
        """Several questions about one image, which is looked at once; all have this view's answers.

        Raises:
            ModelUnavailableError: the network answers with numbers that are not finite.
        """
        described = self.describe([image])[0] if self._style.describe else ""
        full = [self._full_question(described, question) for question in questions]
        prompts = [self._prompt(question) for question in full]
        predictions: list[Prediction] = []
        encode = self.core.about(image)
        shown = encode(prompts[:1])
        for start in range(0, len(full), 2 * _BATCH):
            part = slice(start, start + 2 * _BATCH)
            inputs = encode(prompts[part])
            begin = perf_counter()
            with torch.no_grad(), self._turn():
                scores = self._score(self.core.embed(inputs, shown), full[part], inputs["input_ids"])
                self._wait()
            predictions += self.read(scores, perf_counter() - begin)
        return predictions

    def read(self, outputs: Any, latency_s: float) -> list[Prediction]:  # noqa: ANN401
        """Predictions from the outputs of ``forward``.

        Args:
            outputs: ``LabelScores`` of n images.
            latency_s: seconds of the whole pass; each image gets an equal share.

        Raises:
            ModelUnavailableError: a score is not finite.
        """
        scores: Tensor = outputs.logits.detach().double().cpu()
        if not bool(torch.isfinite(scores).all()):
            raise ModelUnavailableError(
                f"{self.spec.id}: the model answers with numbers that are not finite on {self.core.device}",
                "load it in another precision, or replace its weights",
            )
        questions = outputs.questions or (self._full_question(),) * len(scores)
        return [
            Prediction(
                model_id=self.spec.id,
                latency_s=latency_s / max(len(scores), 1),
                status=self.status,
                question=question,
                style=self.style,
                **answer(row, self.labels, self.doubt),
            )
            for row, question in zip(scores.tolist(), questions, strict=True)
        ]

    def write(
        self,
        image: Image.Image,
        *,
        max_new_tokens: int = 64,
        stops: Sequence[str] = (),
        cancel: Event | None = None,
    ) -> Iterator[str]:
        """The model's own words on an image and this question, as they come.

        Args:
            image: RGB.
            max_new_tokens: tokens at most.
            stops: texts before which the answer ends.
            cancel: set by another thread, ends the answer after the token in work.

        Yields:
            The whole text so far.
        """
        inputs = self.prepare([image])
        ids: list[int] = []
        shown = ""
        for (token,) in self._generate(inputs, max_new_tokens, self._turn):
            if token is not None:
                ids.append(token)
            text, stopped = cut_at(self.core.text(ids), stops)
            if text != shown:
                shown = text
                yield text
            if stopped or (cancel is not None and cancel.is_set()):
                return

    def write_each(
        self, images: Sequence[Image.Image], questions: Sequence[str | None], *, max_new_tokens: int = 64
    ) -> list[str]:
        """The model's own words on each image and its question, many at a time; the same words as ``write`` gives.

        Args:
            images: n images, RGB.
            questions: n questions, ``None`` for the model's own.
            max_new_tokens: tokens at most, of each answer.
        """
        written: list[str] = []
        for start in range(0, len(images), 2 * _BATCH):
            part = slice(start, start + 2 * _BATCH)
            shown, asked = images[part], questions[part]
            described = [""] * len(shown) if self._style.describe is None else self.describe(shown)
            full = [self._full_question(text, question) for text, question in zip(described, asked, strict=True)]
            inputs = self.core.encode(shown, [self._prompt(question) for question in full])
            written += self._write_out(inputs, max_new_tokens, self._turn)
        return written

    def parse(self, text: str) -> str | None:
        """The label that free text means, by the answers and the entry's synonyms; ``None`` where it is ambiguous."""
        meanings = {label: (written, *self.spec.synonyms.get(label, ())) for written, label in self.answers.items()}
        return parse_label(text, self.labels, meanings)

    def describe(self, images: Sequence[Image.Image]) -> list[str]:
        """What the style ``captioned`` lets the model say of each image first.

        The base model speaks, since an adapter that was taught to write labels writes labels.
        """
        style = get_style("captioned")
        inputs = self.core.base.encode(images, [self._prompt(style.describe or "")] * len(images))
        texts = self._write_out(inputs, style.max_new_tokens, lambda: self.core.using(None))
        return [" ".join(text.split()) for text in texts]

    def questions(self, inputs: Inputs) -> tuple[str, ...]:
        """The full questions in prepared inputs, one per image."""
        if _DESCRIBED in inputs:
            return tuple(bytes(row).rstrip(b"\0").decode() for row in inputs[_DESCRIBED].tolist())
        return (self._full_question(),) * len(inputs["input_ids"])

    def prompts(self, inputs: Inputs) -> tuple[str, ...]:
        """The same questions in the family's own form, the image a placeholder."""
        return tuple(self._prompt(question) for question in self.questions(inputs))

    def _view(self, **changes: Any) -> VisionLanguageModel:  # noqa: ANN401
        kept: dict[str, Any] = {
            "spec": self.spec,
            "status": self.status,
            "core": self.core,
            "adapter": self.adapter,
            "base_status": self.base_status,
            "question": self.question,
            "style": self.style,
            "answers": self.answers,
            "doubt": self._measured,
        }
        return VisionLanguageModel(**(kept | changes))

    def _full_question(self, description: str = "", question: str | None = None) -> str:
        asked = self.question if question is None else question
        return self._style.write(asked, hint=self.spec.hint, description=description)

    def _prompt(self, question: str) -> str:
        return self.core.family.prompt(self.core.processor, question)

    def _score(self, prompt: Inputs, questions: Sequence[str], ids: Tensor | None = None) -> LabelScores:
        """Scores of the answers; ``ids`` are those of the prompts where all are about one image."""
        texts = tuple(self.answers)
        known = {question: self.core.continuations(self._prompt(question), texts) for question in set(questions)}
        continuations = [known[question] for question in questions]
        if ids is None:
            scores = score_labels(self.module, prompt, continuations)
        else:
            scores = score_questions(self.module, prompt, ids, continuations)
        return scores._replace(questions=tuple(questions))

    def _generate(self, inputs: Inputs, budget: int, turn: Any) -> Iterator[list[int | None]]:  # noqa: ANN401
        return generate_ids(
            self.module,
            lambda: self.core.embed(inputs),
            end=self.core.end,
            max_new_tokens=budget,
            turn=turn,
        )

    def _write_out(self, inputs: Inputs, budget: int, turn: Any) -> list[str]:  # noqa: ANN401
        rows: list[list[int]] = [[] for _ in inputs["input_ids"]]
        for tokens in self._generate(inputs, budget, turn):
            for row, token in zip(rows, tokens, strict=True):
                row.extend([] if token is None else [token])
        return [cut_at(self.core.text(row), ())[0] for row in rows]

    def _turn(self) -> AbstractContextManager[None]:
        return self.core.using(self.adapter)

    def _wait(self) -> None:
        if self.core.device.type == "cuda":
            torch.cuda.synchronize(self.core.device)


def _as_tensor(texts: Sequence[str]) -> Tensor:
    """Texts as uint8 (n, bytes), filled up with 0: inputs hold nothing but tensors."""
    coded = [text.encode() for text in texts]
    longest = max(map(len, coded))
    return torch.tensor([[*text, *[0] * (longest - len(text))] for text in coded], dtype=torch.uint8)
