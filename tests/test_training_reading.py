"""Patches that learn to read: the loss by hand, words that move with their picture, learning that reaches them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from tests.tiny_vit import SIDE, encode_png, tiny_vit_recipe
from training.augment import augment_pictures
from training.errors import DataError, RecipeError
from training.finetune import finetune
from training.reading import VOCABULARY, read_word_ids, reading_loss
from training.recipe import AugmentRecipe, Recipe, read_recipe
from training.scenes import render_picture
from training.scenes_common import Sheet, find_fonts, load_font

WORDS = {"Ice,": (250, 20, 20), "snow": (20, 250, 20), "tea": (20, 20, 250)}


def _write(folder: Path, count: int = 32) -> Path:
    """Two words in each picture, each a block of its own colour; the label says nothing about them."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        pixels = rng.integers(100, 140, (SIDE, SIDE, 3), dtype=np.uint8)
        ids = np.zeros((SIDE, SIDE), np.uint8)
        written = [str(word) for word in rng.choice(list(WORDS), 2)]
        for place, word in enumerate(written, 1):
            top = 8 * (place - 1)
            pixels[top : top + 8, 4:12] = WORDS[word]
            ids[top : top + 8, 4:12] = place
        rows.append(
            {
                "image": {"bytes": encode_png(pixels), "path": None},
                "label": ("dark", "bright")[number % 2],
                "word_ids": {"bytes": encode_png(ids), "path": None},
                "words": written,
            }
        )
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    return folder


def _recipe(**changes: object) -> Recipe:
    return tiny_vit_recipe(**{"word_weight": 1.0} | changes)


def test_loss_is_the_cross_entropy_of_the_words_each_patch_shows() -> None:
    # Four patches of 2 x 2 pixels after one prefix token: word 1, half of word 1 and half of word 512, none, none.
    word_bytes = torch.zeros(1, 2, 4, 4)
    word_bytes[0, 1, :2, :3] = 1 / 255
    word_bytes[0, 0, :2, 3] = 2 / 255  # the higher byte: 512
    logits = torch.zeros(1, 5, VOCABULARY + 1)
    logits[0, 0, 7] = 50.0  # the prefix counts for nothing
    rest = VOCABULARY  # of 1,024 equal answers, all but one
    logits[0, 1, 1] = math.log(rest)  # 1/2
    logits[0, 2, 512] = math.log(rest)  # 1/2 for word 512; every other 1 / (2 rest)
    logits[0, 3, 0] = math.log(rest)
    by_hand = [math.log(2), 0.5 * math.log(2) + 0.5 * math.log(2 * rest), math.log(2), math.log(rest + 1)]
    assert reading_loss(logits, word_bytes).item() == pytest.approx(sum(by_hand) / 4, abs=1e-5)
    # Pixels beyond the last whole patch are seen by no patch, so what they show is asked of none.
    wider = torch.nn.functional.pad(word_bytes, (0, 1, 0, 1), value=9 / 255)
    assert reading_loss(logits, wider).item() == pytest.approx(sum(by_hand) / 4, abs=1e-5)


def test_words_are_numbered_by_how_often_they_stand_whatever_their_case(tmp_path: Path) -> None:
    ids = np.zeros((4, 4), np.uint8)
    ids[0], ids[1], ids[2] = 1, 2, 3
    rows = [
        {"word_ids": {"bytes": encode_png(ids), "path": None}, "words": ["Tea?", "ice", ":)"]},
        {"word_ids": {"bytes": encode_png(ids), "path": None}, "words": ["tea", "snow", "ICE,"]},
        {"word_ids": {"bytes": encode_png(ids), "path": None}, "words": []},
        {"word_ids": {"bytes": encode_png(ids), "path": None}, "words": ["tea", "tea", "tea"]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    maps = read_word_ids(tmp_path / "t.parquet", [0, 1, 2], 8)
    assert maps.shape == (3, 2, 8, 8) and maps.dtype == torch.uint8
    # "ice" and "tea" twice each, in the order of the alphabet; then what is left of ":)", nothing, and "snow".
    assert maps[0, 1, ::2, 0].tolist() == [2, 1, 3, 0]
    assert maps[1, 1, ::2, 0].tolist() == [2, 4, 1, 0]
    assert maps[2].max() == 0
    assert torch.equal(maps[0, 1, ::2, ::2].repeat_interleave(2, 0).repeat_interleave(2, 1), maps[0, 1])
    assert maps[:, 0].max() == 0


def test_more_words_than_a_byte_holds_are_told_apart(tmp_path: Path) -> None:
    ids = np.arange(1, 101, dtype=np.uint8).reshape(10, 10)
    rows = [
        {
            "word_ids": {"bytes": encode_png(ids), "path": None},
            "words": [f"w{100 * row + number:04d}" for number in range(100)],
        }
        for row in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    high, low = read_word_ids(tmp_path / "t.parquet", range(3), 10).long().unbind(1)
    assert (256 * high + low).flatten().tolist() == list(range(1, 301))


def test_missing_columns_and_broken_maps_are_said(tmp_path: Path) -> None:
    table = pq.read_table(_write(tmp_path / "set") / "train.parquet")
    pq.write_table(table.drop_columns(["words"]), tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"none\.parquet: word_weight needs a column words"):
        read_word_ids(tmp_path / "none.parquet", [0], SIDE)
    for column, said in (("word_ids", "its word_ids cannot be read"), ("words", "its words are not known")):
        emptied = pa.array([None] * len(table), table.schema.field(column).type)
        place = table.schema.names.index(column)
        pq.write_table(table.set_column(place, column, emptied), tmp_path / "empty.parquet")
        with pytest.raises(DataError, match=rf"empty\.parquet row 0: {said}"):
            read_word_ids(tmp_path / "empty.parquet", [0], SIDE)


def test_numbers_of_words_move_with_their_picture_and_are_never_blended() -> None:
    picture = torch.zeros(16, 5, SIDE, SIDE, dtype=torch.uint8)
    picture[:, :3, 2:10, 3:8] = 255
    picture[:, 4, 2:10, 3:8] = 200
    torch.manual_seed(0)
    changed = augment_pictures(picture, SIDE, AugmentRecipe(flip=0.0, shift=3, affine=1.0, degrees=20, scale=0.2))
    numbers = changed[:, 4].mul(255).round()
    assert set(numbers.unique().tolist()) == {0.0, 200.0}
    assert ((changed[:, 0] > 0.5) == (numbers > 0)).float().mean() > 0.97


def test_patches_learn_which_word_they_show(tmp_path: Path) -> None:
    written = finetune(_recipe(), _write(tmp_path / "set"), tmp_path / "run", progress=False)
    losses = [entry["loss"] for entry in written["history"] if "loss" in entry]
    # Knowing where words stand but not which, and the label at random, would stay at about 0.69 + ln(3) / 2.
    assert losses[-1] < 1.0 < losses[0]


def test_a_sheet_remembers_where_its_words_stand_and_adopts_those_of_another() -> None:
    font = load_font(find_fonts("en")[0], 24)
    screen = Sheet(200, 60, (255, 255, 255))
    screen.write((10, 10), "ice  tea?", font, (0, 0, 0))
    ink, ids = np.asarray(screen.rgb.convert("L")) < 200, np.asarray(screen.word_ids)
    assert screen.words == ["ice", "tea?"]
    assert (ids[ink] > 0).mean() > 0.97  # a letter may reach a pixel beyond its width
    first, second = (np.flatnonzero((ids == number).any(0)) for number in (1, 2))
    assert first[0] >= 10 and first[-1] < second[0]
    table = Sheet(400, 200)
    table.write((10, 150), "snow", font, (255, 255, 255))
    table.adopt(screen, [(100, 50), (300, 50), (300, 110), (100, 110)])
    laid = np.asarray(table.word_ids)
    assert table.words == ["snow", "ice", "tea?"]
    assert np.array_equal(laid[50:110, 100:300], np.where(ids > 0, ids + 1, 0))
    assert (laid[150:] <= 1).all() and (laid[150:] == 1).any()


def test_a_sheet_numbers_no_more_words_than_8_bits_hold() -> None:
    sheet, font = Sheet(), load_font(find_fonts("en")[0], 12)
    for _ in range(300):
        sheet.write((4, 4), "a", font, (9, 9, 9))
    assert len(sheet.words) == 255


def test_a_chat_tells_its_words_and_other_pictures_none() -> None:
    chat = render_picture(5, 0, kinds=["talk"])
    assert chat.word_ids.shape == (256, 256) and chat.word_ids.dtype == np.uint8
    assert 0 < chat.word_ids.max() <= len(chat.words)
    claim = next(one for one in chat.claims_true if one.startswith("One message says"))
    said = claim.split("“")[1].split("”")[0]
    assert said in " ".join(chat.words)
    thing = render_picture(5, 0, kinds=["things"])
    assert thing.words == () and thing.word_ids.max() == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"distill": {"teacher": "x"}}, "give either word_weight or distill"),
        ({"augment": {"cutmix": 0.1, "flip": 0.0}}, "leave out mixup and cutmix"),
        ({"augment": {"flip": 0.5}}, "mirrored words cannot be read"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    content = _recipe().model_dump(mode="json") | changes
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(RecipeError, match=said):
        read_recipe(tmp_path / "r.yaml")
