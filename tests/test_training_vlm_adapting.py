"""QLoRA on a CPU, a decoder in the code of its repository, and a run killed outright."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from models.loading import ModelLoader
from models.registry import Zoo
from models.schema import ModelSpec
from tests.moondream_standin import build_standin
from tests.stripes import draw_stripes
from tests.tiny_vlms import build_tiny
from training.asking import AskedAnew
from training.checkpoints import MARKER
from training.errors import DataError, RecipeError
from training.labelled import LabelledSet, write_parquet
from training.language import finetune_language
from training.language_recipe import LanguageRecipe, read_language_recipe
from training.looking import looking
from training.pupil import build_pupil
from training.questions import QuestionSet, read_questions

ROOT = Path(__file__).parents[1]
ASK = "What is shown?"
ANSWERS = {"across": "0", "down": "1"}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    labels = tuple(index % 2 for index in range(24))
    sources = tuple(str(index) for index in range(24))
    pictures = tuple(draw_stripes(label, rng) for label in labels)
    write_parquet(LabelledSet(pictures, labels, ("across", "down"), sources), folder / "train.parquet")
    return folder


def _recipe(family: str, start: Path, path: Path, changes: dict[str, object] | None = None) -> LanguageRecipe:
    source = {"kind": "labels", "file": "train.parquet", "question": ASK, "answers": ANSWERS}
    content = {
        "kind": "vlm",
        "name": "tiny",
        "family": family,
        "model": {"start": str(start)},
        "adapter": {"rank": 4, "alpha": 8, "dropout": 0.1, "targets": r".*language_model.*\.(q|v)_proj"},
        "task": {"question": ASK, "answers": {answer: label for label, answer in ANSWERS.items()}},
        "questions": [source],
        "pictures": "processor",
        "train": {"epochs": 1, "batch_size": 4, "micro_batch": 2, "learning_rate": 0.01, "checkpoint_steps": 3},
    }
    path.write_text(yaml.safe_dump(content, allow_unicode=True))
    return read_language_recipe(path, changes)


@pytest.mark.parametrize("family", ["paligemma", "qwen2_vl"])
def test_four_bits_are_kept_twice_quantised_and_still_hand_back_gradients(
    family: str, data: Path, tmp_path: Path
) -> None:
    from bitsandbytes.nn import Linear4bit

    changes = {"model.precision": "nf4", "train.precision": "bf16", "train.gradient_checkpointing": True}
    recipe = _recipe(family, build_tiny(family, tmp_path / "base"), tmp_path / "r.yaml", changes)
    questions = read_questions(recipe.questions, data, 0)
    pupil = build_pupil(recipe, questions)
    quantised = {name: part for name, part in pupil.base.named_modules() if isinstance(part, Linear4bit)}
    parts = pupil.family.anatomy(pupil.base)
    assert len(quantised) == 3 * 7
    assert not any(name.startswith((f"{parts.tower}.", parts.projector)) for name in quantised)
    for part in quantised.values():
        assert part.weight.quant_type == "nf4"
        assert part.weight.quant_state.nested
        assert part.compute_dtype == torch.bfloat16
    with looking(recipe, pupil, questions, QuestionSet((), ())) as (asked, _):
        batch = asked.__getitems__([0, 1])
        given = {name: value for name, value in batch.items() if name != "labels"}
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            pupil.network.eval()(**given)  # an evaluation, after which the library would hand back no gradient
        with torch.autocast("cpu", torch.bfloat16):
            pupil.network.train()(**batch).loss.backward()
    grads = {name: weight.grad for name, weight in pupil.network.named_parameters() if weight.requires_grad}
    assert len(grads) == 3 * 2 * 2
    # A starts at random and B at zero, so that only B learns in the first step: in every layer, the lowest too.
    assert all(grad is not None and bool(grad.any()) for name, grad in grads.items() if "lora_B" in name)


def test_a_decoder_in_code_of_its_repository_is_trained_as_a_whole(
    data: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = str(tmp_path_factory.getbasetemp() / "code")  # one place for the whole session: Python looks for it once
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", code)
    monkeypatch.setenv("EXHIBIT_CACHE", str(tmp_path / "own"))
    base = build_standin(tmp_path / "base")
    trusted: dict[str, object] = {"model.trust": True, "train.learning_rate": 0.003}
    stripes = _recipe("moondream", base, tmp_path / "r.yaml")
    questions = read_questions(stripes.questions, data, 0)
    with pytest.raises(RecipeError, match="exists only as code"):
        build_pupil(_recipe("moondream", base, tmp_path / "r.yaml", {"adapter": None}), questions)
    with pytest.raises(RecipeError, match="an adapter would do nothing"):
        build_pupil(_recipe("moondream", base, tmp_path / "r.yaml", trusted), questions)
    asked = stripes.model_dump(include={"questions", "task"}) | {"held_out": [], "workers": 0}
    schedule = {"epochs": 4, "batch_size": 4, "micro_batch": 2, "patience": None, "evaluate_steps": None}
    changes = trusted | asked | {f"train.{name}": value for name, value in schedule.items()}
    recipe = read_language_recipe(
        ROOT / "training" / "recipes" / "charts-moondream.yaml", changes | {"model.start": str(base)}
    )
    metrics = finetune_language(recipe, data, tmp_path / "run", progress=False)
    losses = [entry["loss"] for entry in metrics["history"] if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "run"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("model.text.")}
    spec = ModelSpec(
        id="tiny",
        name="tiny",
        task="trial",
        kind="vlm",
        source=str(tmp_path / "run"),
        base=str(base),
        family="moondream",
        remote_code=True,
        question=ASK,
        answers=recipe.task.answers,
        licence="none",
        size_mb=1,
        memory_mb=1,
    )
    loader = ModelLoader(Zoo({"tiny": spec}), trusted=["tiny"])
    picture = Image.open(io.BytesIO(draw_stripes(0, np.random.default_rng(1)))).convert("RGB")
    learnt, plain = (loader.load(name).predict([picture])[0].logits for name in ("tiny", "tiny@base"))
    assert max(abs(learnt[label] - plain[label]) for label in learnt) > 0.1


def test_a_run_killed_outright_loses_at_most_one_interval_and_ends_the_same(data: Path, tmp_path: Path) -> None:
    changes: dict[str, object] = {"train.epochs": 4}
    recipe = _recipe("paligemma", build_tiny("paligemma", tmp_path / "base"), tmp_path / "r.yaml", changes)
    finetune_language(recipe, data, tmp_path / "whole", progress=False)
    run, log = tmp_path / "run", tmp_path / "log.txt"
    command = [sys.executable, "-m", "training", "finetune", "--recipe", str(tmp_path / "whole" / "recipe.yaml")]
    with log.open("wb") as shown:
        process = subprocess.Popen(
            [*command, "--data", str(data), "--out", str(run), "--threads", "1"],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=shown,
        )
    deadline = time.monotonic() + 240
    while not (run / "checkpoint-6" / MARKER).exists():
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (run / "metrics.json").exists()
    reached = max(int(step) for step in re.findall(r"^step (\d+)/", log.read_text(), re.MULTILINE))
    complete = max(int(path.parent.name.rpartition("-")[2]) for path in run.glob(f"checkpoint-*/{MARKER}"))
    assert 6 <= complete <= reached <= complete + recipe.train.checkpoint_steps
    finetune_language(recipe, data, run, resume=True, progress=False)
    whole, resumed = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "whole", run))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_what_cannot_be_taught_is_said(data: Path, tmp_path: Path) -> None:
    recipe = _recipe("paligemma", build_tiny("paligemma", tmp_path / "base"), tmp_path / "r.yaml")
    questions = read_questions(recipe.questions, data, 0)
    pupil = build_pupil(recipe, questions)
    broken = QuestionSet((b"no picture",), questions.questions[:1])
    with pytest.raises(DataError, match="cannot be read"):
        AskedAnew(broken, pupil.family, pupil.processor)[0]
    with pytest.raises(DataError, match="cannot be read"), looking(recipe, pupil, questions, broken):
        raise AssertionError("it is told before training begins")
    for changes, message in (
        ({"adapter": None, "model.precision": "nf4"}, "give an adapter"),
        ({"train.ema_decay": 0.9}, r"train\.ema_decay"),
    ):
        with pytest.raises(RecipeError, match=message):
            _recipe("paligemma", tmp_path / "base", tmp_path / "r.yaml", changes)
    weights = tmp_path / "base" / "model.safetensors"
    weights.unlink()
    with pytest.raises(RecipeError, match=r"model\.start"):
        build_pupil(recipe, questions)
