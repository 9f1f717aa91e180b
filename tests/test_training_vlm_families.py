"""Every family of vision-language models is taught answers through its own processor, and nothing else."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.families import get_family
from models.families.base import Family
from tests.moondream_standin import build_standin
from tests.tiny_vlms import build_tiny
from training.asking import IGNORED, AskedAnew
from training.language_trainer import LanguageTrainer
from training.pupil import Composed, Pupil
from training.questions import Question, QuestionSet
from training.recipe import TrainRecipe
from training.trainer import make_arguments

FAMILIES = ("paligemma", "llava_next", "qwen2_vl", "smolvlm", "moondream")
IMAGES = {"paligemma": "<image>", "llava_next": "<image>", "qwen2_vl": "<|image_pad|>", "smolvlm": "<image>"}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, Any, Any]:
    """A family with a tiny network of its real classes."""
    folder = tmp_path_factory.mktemp(request.param)
    family = get_family(request.param)
    if family.remote_code:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path_factory.getbasetemp() / "code")
            )
            network, processor, _ = family.load(build_standin(folder), trust_remote_code=True)
    else:
        network, processor, _ = family.load(build_tiny(request.param, folder), dtype=torch.float32)
        network.set_attn_implementation("eager")
    return family, network, processor


def _picture(width: int, height: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def questions() -> QuestionSet:
    """Pictures of three shapes, questions and answers of several lengths, one in Korean, one picture asked twice."""
    pictures = (_picture(64, 64, 0), _picture(96, 40, 1), _picture(30, 70, 2))
    asked = (
        Question(0, "Is this image made by AI?", "0"),
        Question(1, "What is shown in this picture? Describe the image in one sentence.", "a drug place"),
        Question(2, "이 이미지는 다음 중 어떤 유형입니까?", "관련 없음"),
        Question(0, "What is shown?", "10"),
    )
    return QuestionSet(pictures, asked)


def test_labels_are_the_answer_and_its_end_token_by_token(
    tiny: tuple[Family, Any, Any], questions: QuestionSet
) -> None:
    family, _, processor = tiny
    batch = AskedAnew(questions, family, processor).__getitems__([0, 1, 2, 3])
    longest = batch["input_ids"].shape[1]
    for row, question in enumerate(questions.questions):
        image = Image.open(io.BytesIO(questions.pictures[question.picture]))  # type: ignore[arg-type]
        prompt = family.prompt(processor, question.text)
        alone = family.encode(processor, [image.convert("RGB")], [prompt])["input_ids"][0].tolist()
        answer = [*family.continuation(processor, prompt, question.answer), processor.tokenizer.eos_token_id]
        padding = longest - len(alone) - len(answer)
        assert batch["input_ids"][row, padding:].tolist() == alone + answer
        assert batch["labels"][row].tolist() == [IGNORED] * (padding + len(alone)) + answer
        assert batch["attention_mask"][row].tolist() == [0] * padding + [1] * (len(alone) + len(answer))
        # What is to be written says the answer, and no token of it stands for the picture.
        assert processor.tokenizer.decode(answer[:-1]).strip() == question.answer
        if family.name in IMAGES:
            assert processor.tokenizer.convert_tokens_to_ids(IMAGES[family.name]) not in answer
        marks = {"token_type_ids": 1, "mm_token_type_ids": 0}
        for name in marks.keys() & batch.keys():
            assert batch[name][row, -len(answer) :].tolist() == [marks[name]] * len(answer)
    assert ("token_type_ids" in batch) == (family.name == "paligemma")
    assert ("mm_token_type_ids" in batch) == (family.name == "qwen2_vl")


def test_a_batch_learns_what_its_rows_would_learn_alone(
    tiny: tuple[Family, Any, Any], questions: QuestionSet, tmp_path: Path
) -> None:
    family, network, processor = tiny
    asked = AskedAnew(questions, family, processor)
    train = TrainRecipe(epochs=1, batch_size=2, learning_rate=0.1)
    arguments = make_arguments(train, tmp_path, seed=0, evaluated=False, progress=False, stop_after=None)
    called = Composed(network, family) if family.remote_code else network
    trainer = LanguageTrainer(Pupil(called.eval(), processor, family), arguments, asked, None, recipe=train)

    def loss(rows: list[int]) -> float:
        counted = torch.tensor(1)  # the sum over the answers' tokens
        with torch.no_grad():
            return float(trainer.compute_loss(called, asked.__getitems__(rows), num_items_in_batch=counted))

    alone = [loss([row]) for row in range(4)]
    assert loss([0, 1, 2, 3]) == pytest.approx(sum(alone), rel=1e-3)
    if family.remote_code:
        return
    row = asked[1]  # nothing is padded here, so that the library's own loss is what is wanted
    with torch.no_grad():
        wanted = network(**row).loss * int((row["labels"] != IGNORED).sum())
    assert alone[1] == pytest.approx(wanted.item(), rel=1e-4)
