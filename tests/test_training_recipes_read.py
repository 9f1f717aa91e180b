"""Every file in training/recipes is read by the strict reader of its kind, and says what the systems published."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.cards import read_card_texts
from training.clip import ClipRecipe
from training.detector_data import read_recipe as read_detector_recipe
from training.doubt import DoubtRecipe
from training.language_recipe import LanguageRecipe, read_language_recipe
from training.rebundle import read_plan
from training.recipe import read_recipe, read_strict, read_yaml

RECIPES = Path(__file__).parents[1] / "training" / "recipes"
FILES = sorted(RECIPES.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_recipe_is_read_strictly_and_named_as_its_file(path: Path) -> None:
    content = read_yaml(path)
    if path.name.endswith(".card.yaml"):
        assert read_card_texts(path).title
    elif path.name == "bundled.yaml":
        assert read_plan(path)
    elif "outside" in content:
        assert read_strict(DoubtRecipe, path).outside
    elif content.get("kind") == "vlm":
        assert read_language_recipe(path).name == path.stem
    elif "model" in content:
        assert read_recipe(path).name == path.stem
    elif "image_ridge" in content:
        assert ClipRecipe.model_validate(content).name == path.stem
    else:
        assert read_detector_recipe(path).name == path.stem


def _read(name: str) -> LanguageRecipe:
    return read_language_recipe(RECIPES / f"{name}.yaml")


def test_published_settings_stand_in_the_full_recipes() -> None:
    llava = _read("casework-llava")
    assert llava.adapter is not None
    assert (llava.adapter.rank, llava.adapter.alpha, llava.adapter.dropout) == (16, 32, 0.05)
    assert (llava.train.learning_rate, llava.train.epochs, llava.train.batch_size) == (1e-5, 5, 16)
    assert llava.model.precision == "nf4"
    assert _read("deepfake-paligemma-full").train.epochs == 10
    for name in ("paligemma", "qwen2-vl", "smolvlm", "moondream"):
        assert _read(f"charts-{name}").train.epochs == 1


@pytest.mark.parametrize(
    "path", [path for path in FILES if read_yaml(path).get("kind") == "vlm"], ids=lambda path: path.stem
)
def test_answers_to_be_learnt_are_the_answers_measured(path: Path) -> None:
    recipe = read_language_recipe(path)
    for source in (*recipe.questions, *recipe.held_out):
        if source.kind == "labels":
            assert source.question == recipe.task.question
            assert {text: label for label, text in source.answers.items()} == recipe.task.answers
