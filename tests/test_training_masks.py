"""Patches that learn from masks: the loss by hand, masks that move with their picture, learning that reaches them."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.tiny_vit import SIDE, encode_png, tiny_vit_recipe
from training.augment import augment_pictures
from training.errors import DataError, RecipeError
from training.finetune import finetune
from training.masks import mask_loss, read_masks
from training.pictures import Pictures
from training.recipe import AugmentRecipe, Recipe, read_recipe


def _write(folder: Path, count: int = 32) -> Path:
    """Half of the pictures have a bright square (class ``bright``), the others a dark one; the mask is the square."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        label = number % 2
        pixels = rng.integers(100, 140, (SIDE, SIDE, 3), dtype=np.uint8)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        top, left = rng.integers(0, 9, 2)
        mask[top : top + 8, left : left + 8] = 1
        pixels[mask > 0] = 250 if label else 5
        rows.append(
            {
                "image": {"bytes": encode_png(pixels), "path": None},
                "label": ("dark", "bright")[label],
                "mask": {"bytes": encode_png(mask), "path": None},
            }
        )
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    return folder


def _recipe(**changes: object) -> Recipe:
    train = {"epochs": 30, "batch_size": 16, "learning_rate": 0.003, "checkpoint_steps": 1000}
    return tiny_vit_recipe(**{"augment": {"flip": 0.5, "shift": 2}, "train": train, "mask_weight": 1.0} | changes)


def test_loss_is_the_cross_entropy_of_what_each_patch_shows() -> None:
    # Two classes and "nothing"; four patches after one prefix token; the mask covers the first patch, half the second.
    masks = torch.zeros(1, 4, 4)
    masks[0, :2, :2] = 1
    masks[0, 0, 2:] = 1
    logits = torch.zeros(1, 5, 3)
    logits[0, 0] = torch.tensor([9.0, -9.0, 3.0])  # the prefix counts for nothing
    logits[0, 1] = torch.tensor([math.log(2), math.log(1), math.log(1)])  # 1/2, 1/4, 1/4
    logits[0, 2] = torch.tensor([math.log(2), math.log(1), math.log(1)])
    by_hand = [math.log(2), 0.5 * math.log(2) + 0.5 * math.log(4), math.log(3), math.log(3)]
    loss = mask_loss(logits, masks, torch.tensor([[1.0, 0.0]]))
    assert loss.item() == pytest.approx(sum(by_hand) / 4, abs=1e-6)


def test_masks_move_with_their_picture_and_keep_their_values() -> None:
    picture = torch.zeros(8, 4, SIDE, SIDE, dtype=torch.uint8)
    picture[:, :, 2:10, 3:8] = 255
    recipe = AugmentRecipe(flip=0.5, shift=3, affine=0.5, jpeg=0.3, blur=0.5, noise=1.0, noise_std=0.01, erase=0.0)
    torch.manual_seed(0)
    changed = augment_pictures(picture, SIDE, recipe)
    assert changed.shape == (8, 4, SIDE, SIDE)
    agree = ((changed[:, 0] > 0.5) == (changed[:, 3] > 0.5)).float().mean()
    assert agree > 0.97
    alone = augment_pictures(picture, SIDE, AugmentRecipe(flip=0, colour=1.0))
    assert torch.equal(alone[:, 3], picture[:, 3].float() / 255)


def test_masks_are_read_for_the_rows_asked_and_scaled(tmp_path: Path) -> None:
    file = _write(tmp_path / "set") / "train.parquet"
    masks = read_masks(file, [3, 0], SIDE * 2)
    assert masks.shape == (2, 1, 2 * SIDE, 2 * SIDE)
    stored = pq.read_table(file)["mask"]
    for place, row in enumerate((3, 0)):
        wanted = np.asarray(Image.open(io.BytesIO(stored[row].as_py()["bytes"]))) > 0
        assert np.array_equal(masks[place, 0].numpy()[::2, ::2] > 127, wanted)


def test_a_missing_column_or_mask_is_said(tmp_path: Path) -> None:
    file = _write(tmp_path / "set") / "train.parquet"
    table = pq.read_table(file)
    pq.write_table(table.drop_columns(["mask"]), tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"none\.parquet: mask_weight needs a column mask"):
        read_masks(tmp_path / "none.parquet", [0], SIDE)
    emptied = pa.array([None] * len(table), table.schema.field("mask").type)
    pq.write_table(table.set_column(2, "mask", emptied), tmp_path / "empty.parquet")
    with pytest.raises(DataError, match=r"empty\.parquet row 0: its mask cannot be read"):
        read_masks(tmp_path / "empty.parquet", [0], SIDE)


def test_patches_learn_where_it_is(tmp_path: Path) -> None:
    written = finetune(_recipe(), _write(tmp_path / "set"), tmp_path / "run", progress=False)
    losses = [entry["loss"] for entry in written["history"] if "loss" in entry]
    # Saying "nothing" everywhere, and the class at random, would stay at about 0.69 + 0.9.
    assert losses[-1] < 0.6 < losses[0]


def test_batches_without_masks_have_none(tmp_path: Path) -> None:
    pixels = torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8)
    processor = type("Plain", (), {"image_mean": [0.5] * 3, "image_std": [0.5] * 3})()
    assert set(Pictures(pixels, [0, 1], 2, processor)[0]) == {"pixel_values", "labels"}
    masked = Pictures(
        pixels, [0, 1], 2, processor, maps={"masks": torch.full((2, 1, SIDE, SIDE), 255, dtype=torch.uint8)}
    )
    assert masked[0]["masks"].shape == (1, 1, SIDE, SIDE) and masked[0]["masks"].min() == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"distill": {"teacher": "x"}}, "give either mask_weight or distill"),
        ({"augment": {"mixup": 0.1}}, "leave out mixup and cutmix"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    import yaml

    content = _recipe().model_dump(mode="json") | changes
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(RecipeError, match=said):
        read_recipe(tmp_path / "r.yaml")
