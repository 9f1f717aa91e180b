"""The recipe of the AI image detector, from its file, on a tiny Swin with the real one's labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification, SwinConfig, SwinForImageClassification, ViTImageProcessor

from models.loading import ModelLoader
from models.registry import load_zoo
from tests.stripes import draw_stripes, write_stripes
from training.errors import RecipeError
from training.finetune import build_learner, finetune
from training.recipe import Recipe, read_recipe

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "training" / "recipes"


@pytest.fixture(scope="module")
def swin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub has it: ``artificial`` and ``human``, shifted windows, patches merged twice."""
    folder = tmp_path_factory.mktemp("swin")
    torch.manual_seed(0)
    config = SwinConfig(
        image_size=32,
        patch_size=2,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
        initializer_range=0.2,
        id2label={0: "artificial", 1: "human"},
        label2id={"artificial": 0, "human": 1},
    )
    SwinForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_stripes(folder / "train.parquet", 64)
    write_stripes(folder / "validation.parquet", 16, seed=1)
    return folder


def _small(start: Path, **changes: object) -> Recipe:
    sizes = {"image.size": 32, "image.crop": 32, "train.precision": "fp32"}
    return read_recipe(RECIPES / "ai-image-detector.yaml", {"model.start": str(start)} | sizes | changes)


@pytest.mark.parametrize("name", ["ai-image-detector", "ai-image-detector-small"])
def test_the_published_schedule_is_kept(name: str) -> None:
    train = read_recipe(RECIPES / f"{name}.yaml").train
    assert (train.epochs, train.batch_size, train.learning_rate) == (3, 4, 2e-5)
    assert train.micro_batch is None


def test_every_weight_of_the_small_start_is_trained() -> None:
    recipe = read_recipe(RECIPES / "ai-image-detector-small.yaml")
    here = read_recipe(RECIPES / "ai-image-detector-small.yaml", {"model.start": str(ROOT / str(recipe.model.start))})
    learner = build_learner(here)
    assert all(weight.requires_grad for weight in learner.module.parameters())
    assert learner.classifier.config.id2label == dict(enumerate(recipe.labels))
    assert dict(learner.processor.size) == {"height": recipe.image.size, "width": recipe.image.size}


def _predict(folder: Path, picture: Image.Image, tmp_path: Path) -> dict[str, float]:
    entry = {
        "id": "mine",
        "name": "Mine",
        "task": "ai-image",
        "kind": "classifier",
        "source": str(folder),
        "licence": "AGPL-3.0-only",
        "size_mb": 1,
        "memory_mb": 10,
    }
    zoo = tmp_path / "zoo.yaml"
    zoo.write_text(yaml.safe_dump({"models": [entry]}))
    return dict(ModelLoader(load_zoo(zoo), offline=True).load("mine").predict([picture])[0].probabilities)


def test_it_learns_reloads_to_the_last_bit_and_answers_otherwise(swin: Path, data: Path, tmp_path: Path) -> None:
    # Weights drawn at random need larger steps than those of the hub.
    recipe = _small(swin, **{"train.learning_rate": 0.003, "train.gradient_checkpointing": True})
    metrics = finetune(recipe, data, tmp_path / "run", progress=False)
    assert metrics["steps"] == 3 * 64 // 4
    losses = [entry["eval_loss"] for entry in metrics["history"] if "eval_loss" in entry]
    assert len(losses) == 3
    assert losses[-1] < 0.7 * losses[0]
    reloaded = AutoModelForImageClassification.from_pretrained(tmp_path / "run", use_safetensors=True)
    trained = load_file(tmp_path / "run" / "checkpoint-48" / "model.safetensors")
    assert {f"student.{name}" for name in reloaded.state_dict()} == set(trained)
    assert all(torch.equal(tensor, trained[f"student.{name}"]) for name, tensor in reloaded.state_dict().items())
    picture = tmp_path / "picture.png"
    picture.write_bytes(draw_stripes(0, np.random.default_rng(7)))
    with Image.open(picture) as shown:
        before, after = (_predict(folder, shown.convert("RGB"), tmp_path) for folder in (swin, tmp_path / "run"))
    assert set(before) == {"artificial", "human"}
    assert after["fake"] > 0.8
    assert abs(after["fake"] - before["artificial"]) > 0.05


def test_gradient_checkpointing_changes_no_step(swin: Path, data: Path, tmp_path: Path) -> None:
    for name, forgets in (("plain", False), ("checkpointed", True)):
        recipe = _small(swin, **{"train.gradient_checkpointing": forgets})
        finetune(recipe, data, tmp_path / name, progress=False, stop_after=3)
    left, right = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "checkpointed"))
    start = load_file(swin / "model.safetensors")
    assert all(torch.allclose(left[name], right[name], atol=1e-7) for name in left)
    assert any(not torch.equal(left[name], start[name]) for name in left)


def test_what_a_start_cannot_do_is_said(swin: Path, tiny_folders: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match=r"has no label made, only artificial, human"):
        build_learner(_small(swin, **{"model.rename": {"made": "fake"}}))
    with pytest.raises(RecipeError, match=r"train.gradient_checkpointing: .*ResNet"):
        build_learner(_small(tiny_folders["resnet"], **{"model.rename": {}, "train.gradient_checkpointing": True}))
    with pytest.raises(RecipeError, match="new head has new labels"):
        _small(swin, **{"model.new_head": True})


@pytest.mark.parametrize("labels", [["camera", "gan", "diffusion"], ["camera", "gan"]])
def test_a_new_head_knows_the_recipes_labels_and_nothing_else(labels: list[str], swin: Path) -> None:
    head = build_learner(_small(swin, **{"model.rename": {}, "model.new_head": True, "labels": labels})).classifier
    assert head.config.label2id == {label: index for index, label in enumerate(labels)}
    assert head.state_dict()["classifier.weight"].shape == (len(labels), 32)
    start = AutoModelForImageClassification.from_pretrained(swin).state_dict()
    changed = {name for name, tensor in head.state_dict().items() if not torch.equal(tensor, start[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_a_start_without_some_weights_is_refused(swin: Path, tmp_path: Path) -> None:
    shutil.copytree(swin, tmp_path / "half")
    kept = load_file(tmp_path / "half" / "model.safetensors")
    del kept["classifier.bias"]
    save_file(kept, tmp_path / "half" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RecipeError, match=r"lacks weights of a SwinForImageClassification, first classifier.bias"):
        build_learner(_small(tmp_path / "half"))
