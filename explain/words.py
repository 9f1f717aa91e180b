"""Which words of the question carried the answer: gradient times embedding of the prompt's text tokens.

It costs no pass of its own: the embedding is one more layer of the same capture that gives the heatmaps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from explain.capture import Capture
from explain.schema import WordAttribution
from explain.targets import Target
from models.errors import IncompatibleMethodError
from models.schema import Inputs, ModelSpec

__all__ = ["PlacedWord", "Reader", "attribute_words", "find_words", "place_words", "read_words"]

Span = tuple[int, int]

# A word, with what is inside it (don't, AI-made), or a run of signs: a question mark may count for itself.
_WORD = re.compile(r"\w+(?:['’\-]+\w+)*|[^\w\s]+")


@dataclass(frozen=True)
class PlacedWord:
    """A word of a question and where the model reads it; neighbours that share a token are one word.

    Attributes:
        span: start and end (exclusive) in the question, in characters.
        positions: indices of its tokens in the prompt's ids, at least one.
    """

    span: Span
    positions: tuple[int, ...]


@runtime_checkable
class Reader(Protocol):
    """What a live model that reads a question tells beyond ``models.schema.LiveModel``; ``VisionLanguageModel`` is one.

    Attributes:
        spec: its zoo entry.
        core: ``anatomy`` (``models.families.base.Anatomy``) and ``tokenizer`` of its network.
    """

    spec: ModelSpec
    core: Any

    def questions(self, inputs: Inputs) -> Sequence[str]:
        """The full question in prepared inputs, for each image."""

    def prompts(self, inputs: Inputs) -> Sequence[str]:
        """The same questions in the family's own form."""


def read_words(
    taken: Capture, live: Reader, inputs: Inputs, embedding: str, image: int, targets: Sequence[Target]
) -> tuple[WordAttribution, ...]:
    """``attribute_words`` for one image of a batch that a model was asked about.

    Args:
        taken: a capture of ``live.forward(inputs)`` with ``embedding`` among its layers.
        live: the model.
        inputs: as it prepared them, with ``input_ids`` (n, tokens).
        embedding: dotted name of its input embedding.
        image: index in the batch.
        targets: those of the capture, in its order.

    Raises:
        IncompatibleMethodError: the words cannot be placed, or have no scores.
    """
    question = live.questions(inputs)[image]
    words = place_words(live.core.tokenizer, live.prompts(inputs)[image], question, inputs["input_ids"][image].tolist())
    return attribute_words(
        taken, embedding, words, image=image, question=question, targets=targets, model_id=live.spec.id
    )


def find_words(text: str) -> tuple[Span, ...]:
    """Start and end (exclusive) of every word of a text, in characters; signs on their own are none."""
    return tuple(found.span() for found in _WORD.finditer(text) if found[0][0].isalnum() or found[0][0] == "_")


def place_words(tokenizer: Any, prompt: str, question: str, ids: Sequence[int]) -> tuple[PlacedWord, ...]:  # noqa: ANN401
    """Where the words of a question stand among the ids of an encoded prompt.

    The prompt's text is encoded once more to learn which characters each token covers, and the question's tokens are
    looked up in ``ids``, whose image placeholders and padding the text does not have.

    Args:
        tokenizer: a fast tokenizer of the transformers library.
        prompt: text before the answer, as the family writes it.
        question: the part of it that was asked; its last occurrence counts.
        ids: the ids the model got for this prompt.

    Returns:
        Every word of the question, in reading order.

    Raises:
        IncompatibleMethodError: the tokenizer does not tell its places, or the prompt does not hold the question.
    """
    asked = question.strip()
    if not getattr(tokenizer, "is_fast", False):
        raise IncompatibleMethodError(
            f"{type(tokenizer).__name__} does not tell which letters a token covers, so words cannot be highlighted; "
            "save the model with a fast tokenizer."
        )
    start = prompt.rfind(asked)
    if not asked or start < 0:
        raise IncompatibleMethodError(f"The prompt does not contain the question {asked!r}; ask it in plain text.")
    encoded = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
    own = [
        (token, (first - start, last - start))
        for token, (first, last) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        if first < start + len(asked) and last > start
    ]
    at = _last_occurrence(ids, [token for token, _ in own])
    if at is None:
        raise IncompatibleMethodError(
            f"The model's processor writes the question {asked!r} in other tokens than its tokenizer does, so words "
            "cannot be highlighted; leave spaces out at its ends."
        )
    shift = question.find(asked)
    words: list[PlacedWord] = []
    for span, tokens in _shared_out(asked, [covered for _, covered in own]):
        words.append(PlacedWord((span[0] + shift, span[1] + shift), tuple(at + token for token in tokens)))
    return tuple(words)


def attribute_words(
    taken: Capture,
    embedding: str,
    words: Iterable[PlacedWord],
    *,
    image: int,
    question: str,
    targets: Sequence[Target],
    model_id: str,
) -> tuple[WordAttribution, ...]:
    """What each word of one image's question did for each target.

    Only the question's own tokens are counted: image placeholders, whose embeddings are replaced by the picture's, and
    the words that the family's template adds are left out.

    Args:
        taken: a capture with ``embedding`` among its layers.
        embedding: dotted name of the input embedding; it gives (n, tokens, channels).
        words: as ``place_words`` found them for that image.
        image: its index in the batch.
        question: the text that the spans count in.
        targets: those of the capture, in its order.
        model_id: zoo id.

    Raises:
        IncompatibleMethodError: the answer does not depend on the embedding, or a score is not finite.
    """
    words = tuple(words)
    names = [target.names(taken.outputs)[image] for target in targets]
    meanings = taken.activations[embedding][image]
    found = []
    for name, gradient in zip(names, taken.gradients[embedding][:, image], strict=True):
        per_token = _products(meanings, gradient)
        scores = np.array([per_token[list(word.positions)].sum() for word in words], np.float32)
        if not np.isfinite(scores).all():
            raise IncompatibleMethodError(
                f"The scores of the words of {question!r} for {name} are not finite; load the model in float32."
            )
        if not gradient.any():
            raise IncompatibleMethodError(
                f"{model_id} answers {name} without reading the question, so no word of it can be highlighted."
            )
        found.append(WordAttribution(question, tuple(word.span for word in words), scores, name, model_id))
    return tuple(found)


def _products(meanings: Tensor, gradient: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32 (tokens,): how much the target would fall to first order if a token's embedding were zero."""
    return (meanings * gradient).sum(dim=-1).numpy()


def _last_occurrence(ids: Sequence[int], wanted: Sequence[int]) -> int | None:
    ids, wanted = list(ids), list(wanted)
    starts = range(len(ids) - len(wanted), -1, -1)
    return next((start for start in starts if ids[start : start + len(wanted)] == wanted), None)


def _shared_out(text: str, tokens: Sequence[Span]) -> list[tuple[Span, list[int]]]:
    """Words of a text and the tokens that cover their letters; a token across words joins them, for it has one score.

    Tokens of white space alone belong to no word.
    """
    waiting = [found.span() for found in _WORD.finditer(text)]
    shared: list[tuple[Span, list[int]]] = []
    for index, (first, last) in enumerate(tokens):
        touched = [span for span in waiting if span[0] < last and span[1] > first]
        if shared and shared[-1][0][1] > first and shared[-1][0][0] < last:
            span, held = shared.pop()
            touched, held = [span, *touched], [*held, index]
        elif touched:
            held = [index]
        else:
            continue
        waiting = [span for span in waiting if span not in touched]
        shared.append(((touched[0][0], touched[-1][1]), held))
    return shared
