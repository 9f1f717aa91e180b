"""Questions as batches for a vision-language model.

Only what the model is to write counts for the loss: padding, question and image tokens carry the label -100. Rows are
padded on the left, so that all answers end a batch and only its last columns need logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from models.errors import BadImageError
from models.families.base import Family
from models.imaging import read_image
from training.errors import DataError
from training.pictures import hash_batch
from training.questions import QuestionSet

IGNORED = -100
TEXT_KINDS = {"token_type_ids": 1, "mm_token_type_ids": 0}
"""What marks the tokens of an answer, by the name of the mark: PaliGemma reads them one by one, Qwen2-VL as words."""
Batch = dict[str, Tensor]
View = Callable[[Sequence[int]], Tensor]
"""Numbers of n pictures to what the network is shown as ``pixel_values``."""


class Asked(Dataset[Any]):
    """Whole batches of questions about pictures of one size: ``input_ids``, ``attention_mask``, ``labels`` ...

    Args:
        questions: pictures with questions and answers.
        family: how they are asked.
        processor: the model's.
        view: what is shown; it may draw from torch's generator.
        seed: of what it draws.
    """

    def __init__(
        self,
        questions: QuestionSet,
        family: Family,
        processor: Any,  # noqa: ANN401
        view: View,
        seed: int = 0,
    ) -> None:
        self._pictures = [question.picture for question in questions.questions]
        self._view = view
        self._seed = seed
        self._rows: list[Batch] = []
        blank = Image.new("RGB", (8, 8))
        known: dict[str, Batch] = {}
        for question in questions.questions:
            prompt = family.prompt(processor, question.text)
            if question.text not in known:
                known[question.text] = family.encode(processor, [blank], [prompt])
            self._rows.append(answered(known[question.text], 0, _written(family, processor, prompt, question.answer)))

    def __len__(self) -> int:
        """Number of questions."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Batch:
        """A batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Batch:
        """One batch, which is what the data loader asks for."""
        # Seeded by its own questions: the loader fetches ahead of the step that a checkpoint belongs to, so a stream of
        # random numbers could not be taken up again by a resumed run.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash_batch(self._seed, indices))
            shown = self._view([self._pictures[index] for index in indices])
        return aligned([self._rows[index] for index in indices]) | {"pixel_values": shown}


class AskedAnew(Dataset[Any]):
    """The same for pictures of any size, which the family's own processor reads whenever they are asked about.

    Args:
        questions: pictures with questions and answers.
        family: how they are asked.
        processor: the model's.
    """

    def __init__(self, questions: QuestionSet, family: Family, processor: Any) -> None:  # noqa: ANN401
        self._questions = questions
        self._family = family
        self._processor = processor

    def __len__(self) -> int:
        """Number of questions."""
        return len(self._questions)

    def __getitem__(self, index: int) -> Batch:
        """A batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Batch:
        """One batch.

        Raises:
            DataError: if a picture cannot be read.
        """
        asked = [self._questions.questions[index] for index in indices]
        images = [read_picture(self._questions.pictures[question.picture]) for question in asked]
        prompts = [self._family.prompt(self._processor, question.text) for question in asked]
        encoded = self._family.encode(self._processor, images, prompts)
        rows = [
            answered(encoded, place, _written(self._family, self._processor, prompt, question.answer))
            for place, (prompt, question) in enumerate(zip(prompts, asked, strict=True))
        ]
        per_token = rows[0].keys()
        return aligned(rows) | {name: value for name, value in encoded.items() if name not in per_token}


def answered(prompts: Batch, place: int, answer: Tensor) -> Batch:
    """One row of encoded prompts without its padding, continued by an answer; each value is (tokens,).

    Args:
        prompts: as ``Family.encode`` gave them.
        place: which row.
        answer: (k,) ids.

    Returns:
        ``input_ids``, ``attention_mask``, ``labels``, and the marks of ``TEXT_KINDS`` that the family has.
    """
    attended = prompts["attention_mask"][place].bool()
    asked = prompts["input_ids"][place][attended]
    row = {
        "input_ids": torch.cat([asked, answer]),
        "attention_mask": torch.ones(len(asked) + len(answer), dtype=torch.long),
        "labels": torch.cat([torch.full_like(asked, IGNORED), answer]),
    }
    for name, kind in TEXT_KINDS.items():
        if name in prompts:
            row[name] = torch.cat([prompts[name][place][attended], torch.full_like(answer, kind)])
    return row


def aligned(rows: Sequence[Batch]) -> Batch:
    """Rows of different lengths as one batch (n, longest), padded on the left, where nothing is attended to."""
    longest = max(len(row["input_ids"]) for row in rows)

    def padded(name: str) -> Tensor:
        filler = IGNORED if name == "labels" else 0
        return torch.stack([nn.functional.pad(row[name], (longest - len(row[name]), 0), value=filler) for row in rows])

    return {name: padded(name) for name in rows[0]}


def read_picture(picture: bytes | Path) -> Image.Image:
    """A picture to learn from as RGB.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        return read_image(picture).rgb
    except BadImageError as error:
        raise DataError(f"a picture to learn from cannot be read: {error}") from error


def _written(family: Family, processor: Any, prompt: str, answer: str) -> Tensor:  # noqa: ANN401
    """(k,) ids of an answer and of the token that ends it."""
    ending = cast(int, processor.tokenizer.eos_token_id)
    return torch.tensor([*family.continuation(processor, prompt, answer), ending])
