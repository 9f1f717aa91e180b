"""Recipes are checked before a minute of computing is spent."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from training.cards import read_card_texts
from training.errors import RecipeError
from training.finetune import build_learner
from training.recipe import read_recipe, write_recipe

RECIPES = Path(__file__).parents[1] / "training" / "recipes"
SMALLEST = {
    "name": "tiny",
    "labels": ["fake", "real"],
    "model": {"architecture": "resnet"},
    "image": {"size": 32, "crop": 32},
    "train": {"epochs": 1, "learning_rate": 0.001},
}


def _write(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("name", ["deepfake-resnet", "deepfake-vit"])
def test_shipped_recipes_and_their_cards_are_valid(name: str) -> None:
    assert read_recipe(RECIPES / f"{name}.yaml").name == name
    assert set(read_card_texts(RECIPES / f"{name}.card.yaml").sets) == {"validation", "distorted", "generators"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.epoch": 3}, r"train\.epoch: Extra inputs"),
        ({"augment.flips": 0.5}, r"augment\.flips: Extra inputs"),
        ({"augment.flip": 1.5}, r"augment\.flip: Input should be less"),
        ({"image.crop": 64}, "crop 64 is larger than size 32"),
        ({"model.start": "some/model"}, "either start or architecture"),
        ({"labels": ["fake"]}, "labels"),
        ({"name.x": 1}, r"name\.x: there is no such entry"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_recipe(_write(tmp_path / "r.yaml", SMALLEST), changes)


@pytest.mark.parametrize("text", ["", "- a list", "a: [unclosed"])
def test_a_file_that_holds_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"r\.yaml"):
        read_recipe(tmp_path / "r.yaml")


def test_a_written_recipe_reads_back_the_same(tmp_path: Path) -> None:
    recipe = read_recipe(_write(tmp_path / "r.yaml", SMALLEST), {"train.epochs": 2.5})
    write_recipe(recipe, tmp_path / "copy.yaml")
    assert read_recipe(tmp_path / "copy.yaml") == recipe


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"architecture": "no-such-thing"}, "no-such-thing"),
        ({"architecture": "resnet", "config": {"layer_type": "odd"}}, "odd|layer_type"),
        ({"start": "/nowhere/at/all"}, "/nowhere/at/all"),
    ],
)
def test_a_model_that_cannot_be_built_is_a_recipe_error(tmp_path: Path, model: dict[str, object], message: str) -> None:
    recipe = read_recipe(_write(tmp_path / "r.yaml", SMALLEST | {"model": model}))
    with pytest.raises(RecipeError, match=message):
        build_learner(recipe)
