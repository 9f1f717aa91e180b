"""Every recipe of a vision-language model runs on a tiny network of its real architecture: it learns, and is loaded."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from models.loading import ModelLoader
from models.registry import Zoo
from models.schema import ModelSpec
from tests.tiny_vlms import build_tiny
from training.labelled import LabelledSet, write_parquet
from training.language import finetune_language
from training.language_recipe import LanguageRecipe, read_language_recipe
from training.language_trainer import TRAINED
from training.recipe import read_yaml

RECIPES = Path(__file__).parents[1] / "training" / "recipes"
WITH_ADAPTER = tuple(
    path.stem
    for path in sorted(RECIPES.glob("*.yaml"))
    if (content := read_yaml(path)).get("kind") == "vlm" and content.get("adapter")
)
COUNT = 8


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _draw(value: int, rng: np.random.Generator) -> bytes:
    """One of four colours, at one of two sizes."""
    colour = np.array([(220, 30, 30), (30, 200, 40), (40, 60, 220), (230, 220, 60)][value])
    shape = ((48, 64, 3), (64, 48, 3))[int(rng.integers(2))]
    file = io.BytesIO()
    Image.fromarray(np.clip(colour + rng.normal(0, 20, shape), 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _write_data(recipe: LanguageRecipe, folder: Path) -> None:
    """What the recipe's only source of questions, and that of held-out ones, name, as these want it."""
    for source in (recipe.questions[0], recipe.held_out[0]):
        file = folder / source.file
        file.parent.mkdir(parents=True, exist_ok=True)
        name = file.stem
        rng = np.random.default_rng(len(name))
        names = tuple(source.answers) or ("3", "5", "7", "9")
        labels = tuple(index % len(names) for index in range(COUNT))
        pictures = tuple(_draw(label, rng) for label in labels)
        if source.kind == "labels":
            sources = tuple(f"{name} {index}" for index in range(COUNT))
            write_parquet(LabelledSet(pictures, labels, names, sources), file)
        else:
            table = {
                "image": [{"bytes": picture, "path": None} for picture in pictures],
                "question": ["What is the value of the bar?"] * COUNT,
                "answer": [names[label] for label in labels],
            }
            pq.write_table(pa.table(table), file)


def _build_tower(base: Path, folder: Path) -> Path:
    """A ViT of the shape of a tiny model's vision tower."""
    vision = json.loads((base / "config.json").read_text())["vision_config"]
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
    torch.manual_seed(1)
    ViTForImageClassification(ViTConfig(**{name: vision[name] for name in sizes})).save_pretrained(folder)
    ViTImageProcessor(size={"height": vision["image_size"], "width": vision["image_size"]}).save_pretrained(folder)
    return folder


def _spec(recipe: LanguageRecipe, base: Path, adapter: Path | None) -> ModelSpec:
    return ModelSpec(
        id="tiny",
        name="tiny",
        task="trial",
        kind="vlm",
        source=str(adapter or base),
        base=str(base) if adapter else None,
        family=recipe.family,
        question=recipe.task.question,
        answers=recipe.task.answers,
        licence="none",
        size_mb=1,
        memory_mb=1,
    )


@pytest.mark.parametrize("name", WITH_ADAPTER)
def test_a_recipe_learns_and_its_adapter_is_what_the_app_loads(name: str, tmp_path: Path) -> None:
    told = read_language_recipe(RECIPES / f"{name}.yaml")
    base = build_tiny(told.family, tmp_path / "base")
    schedule = {
        "epochs": 5,
        "batch_size": 4,
        "micro_batch": min(told.train.micro_batch or 2, 2),
        "learning_rate": 0.02 if told.adapter and told.adapter.rank <= 16 else 0.004,
        "checkpoint_steps": 10,
        "evaluate_steps": None,
        "patience": None,
    }
    changes: dict[str, object] = {f"train.{key}": value for key, value in schedule.items()}
    changes["questions"] = [told.questions[0].model_dump()]  # of several sources the first, so that the steps are ten
    if told.adapter and told.adapter.tower:
        changes["adapter.tower"] = str(_build_tower(base, tmp_path / "tower"))
    workers = 1 if name == "charts-smolvlm" else 0  # more of them change nothing but the time
    recipe = read_language_recipe(RECIPES / f"{name}.yaml", changes | {"model.start": str(base), "workers": workers})
    _write_data(recipe, tmp_path / "data")
    run = tmp_path / "run"
    metrics = finetune_language(recipe, tmp_path / "data", run, progress=False)
    assert metrics["steps"] == 10
    losses = [entry["eval_loss"] for entry in metrics["history"] if "eval_loss" in entry]
    assert losses[-1] < 0.9 * losses[0]
    assert json.loads((run / "metrics.json").read_text())["tokens_per_second"] > 0
    learnt = {key.replace(".default", ""): tensor for key, tensor in load_file(run / "checkpoint-10" / TRAINED).items()}
    saved = load_file(run / "adapter_model.safetensors")
    brought = {key for key in saved if "lora_" not in key}
    assert bool(brought) == bool(told.adapter and told.adapter.tower)
    assert saved.keys() - brought == {key for key in learnt if "lora_" in key}
    assert all(torch.equal(saved[key], learnt[key]) for key in saved.keys() - brought)
    picture = Image.open(io.BytesIO(_draw(0, np.random.default_rng(9)))).convert("RGB")
    answers = {}
    for adapter in (None, run):
        model = ModelLoader(Zoo({"tiny": _spec(recipe, base, adapter)})).load("tiny")
        answers[adapter] = model.predict([picture])[0].logits
    assert model.status.reason == ""
    loaded = {key.partition("base_model.model.")[2]: saved[key] for key in saved.keys() - brought}
    weights = {
        key.replace(".exhibit_0", ""): tensor
        for key, tensor in model.core.module.state_dict().items()
        if "lora_" in key
    }
    assert weights.keys() == loaded.keys()
    assert all(torch.equal(weights[key], loaded[key]) for key in weights)
    assert max(abs(answers[run][key] - answers[None][key]) for key in answers[run]) > 0.1
