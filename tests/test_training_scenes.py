"""Generated scenes: the same everywhere, with ground truth that fits the pixels, and no way to tell a class cheaply."""

from __future__ import annotations

import io
import json
from collections import Counter
from importlib import metadata
from pathlib import Path
from random import Random

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFont
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.__main__ import main
from training.errors import DataError
from training.labelled import read_labelled
from training.scenes import ROWS_PER_GROUP, Rendered, render_picture, write_scenes
from training.scenes_common import LABEL_NAMES, PLACE, UNRELATED, Sheet, change_one, find_fonts, load_font
from training.scenes_photo import take_photo
from training.scenes_words import GOODS, LANGUAGES, Language, fill_line

SEED = 5
ABSENT = "\U0010fffe"  # a code point that no font has


@pytest.fixture(scope="module")
def pictures() -> list[Rendered]:
    return [render_picture(SEED, number, 128) for number in range(400)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes")
    write_scenes(out, ROWS_PER_GROUP + 8, SEED, size=64)
    return out


def test_any_number_of_workers_writes_the_same_file(written: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path, ROWS_PER_GROUP + 8, SEED, workers=2, size=64)
    assert (tmp_path / "casework.parquet").read_bytes() == (written / "casework.parquet").read_bytes()


def test_rows_stream_in_groups(written: Path) -> None:
    table = pq.ParquetFile(written / "casework.parquet")
    assert [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)] == [ROWS_PER_GROUP, 8]


def test_another_seed_draws_other_pictures() -> None:
    same, again, other = (render_picture(seed, 2, 64).jpeg for seed in (1, 1, 2))
    assert same == again != other


def test_classes_are_balanced_and_unrelated_holds_look_alikes_of_all(pictures: list[Rendered]) -> None:
    assert Counter(picture.label for picture in pictures) == dict.fromkeys(range(4), 100)
    unrelated = Counter(picture.kind.split("/")[0] for picture in pictures if picture.label == UNRELATED)
    assert set(unrelated) == {"chat", "place", "things", "page", "landscape", "table"}
    alike = unrelated["chat"] + unrelated["place"] + unrelated["things"]
    assert 0.3 < alike / unrelated.total() < 0.7


def test_only_the_kinds_that_were_named_take_turns_and_half_of_each_is_unrelated(tmp_path: Path) -> None:
    kinds = ("place", "things", "place")
    drawn = [render_picture(7, number, 64, hard=True, kinds=kinds) for number in range(60)]
    for turn, kind in enumerate(kinds):
        own = drawn[turn :: len(kinds)]
        assert [one.label == UNRELATED for one in own] == [False, True] * 10
        assert {one.kind.split("/")[0] for one in own if one.label != UNRELATED} == {kind}
    assert (
        main(
            [
                *["scenes", "--count", "12", "--seed", "7", "--size", "64", "--kinds", "place", "things"],
                "--out",
                str(tmp_path),
            ]
        )
        == 0
    )
    told = json.loads((tmp_path / "scenes.json").read_text())
    assert told["turns"] == ["place", "things"]
    assert told["labels"] == {"drug deal place": 3, "drug substance": 3, "unrelated": 6}
    with pytest.raises(DataError, match="choose among chat, place, things, crowd, album, talk"):
        write_scenes(tmp_path / "none", 4, 7, kinds=("cat",))


def test_crowded_places_hold_many_finds_beside_harmless_things_or_none() -> None:
    drawn = [render_picture(7, number, 64, hard=True, kinds=("crowd",)) for number in range(24)]
    found = [one for one in drawn if one.label == PLACE]
    assert len(found) == 12
    assert all(one.mask.any() for one in found)
    counts = [len(one.box_labels) for one in found]
    assert min(counts) >= 1
    assert 3 < sum(counts) / len(counts) < 10
    assert all(
        label.split()[0] == "envelope" or "packet" in label or "bag" in label
        for one in found
        for label in one.box_labels
    )
    harmless = [one for one in drawn if one.label == UNRELATED]
    assert not any(one.mask.any() for one in harmless if one.kind.startswith("crowd"))


def test_albums_show_several_photos_of_one_class() -> None:
    drawn = [render_picture(7, number, 64, hard=True, kinds=("album",)) for number in range(24)]
    found = [one for one in drawn if one.label != UNRELATED]
    photos = [one.box_labels.count("deal photo") for one in found]
    assert len(found) == 12
    assert max(photos) >= 2
    assert min(photos) >= 1
    assert not any("deal photo" in one.box_labels for one in drawn if one.label == UNRELATED)


def test_talk_is_words_alone_and_many_of_them() -> None:
    drawn = [render_picture(7, number, 64, hard=True, kinds=("talk",)) for number in range(24)]
    found = [one for one in drawn if one.label != UNRELATED]
    assert {label for one in found for label in one.box_labels} == {"deal message"}
    assert np.mean([len(one.box_labels) for one in found]) > 3
    harmless = [len(one.box_labels) for one in drawn if one.label == UNRELATED and one.kind.startswith("chat")]
    assert min(harmless) >= 5


def test_a_hard_set_is_half_look_alikes_of_all_three_classes() -> None:
    drawn = [render_picture(7, number, 64, hard=True) for number in range(120)]
    unrelated = [picture for picture in drawn if picture.label == 0]
    assert len(unrelated) == 60
    assert {picture.label for picture in drawn} == {0, 1, 2, 3}
    alike = Counter(picture.kind.split("/")[0] for picture in unrelated)
    assert min(alike[kind] for kind in ("chat", "place", "things")) >= 10
    assert sum(alike[kind] for kind in ("chat", "place", "things")) > 45


def test_places_and_languages_occur_in_both_classes(pictures: list[Rendered]) -> None:
    for family in ("chat", "place"):
        kinds = [
            {p.kind for p in pictures if p.kind.startswith(family) and (p.label == UNRELATED) is unrelated}
            for unrelated in (True, False)
        ]
        assert kinds[0] == kinds[1], family


def test_masks_fill_their_boxes_and_nothing_else(pictures: list[Rendered]) -> None:
    for picture in pictures:
        assert picture.mask.dtype == np.uint8 and set(np.unique(picture.mask)) <= {0, 1}
        inside = np.zeros_like(picture.mask)
        for left, top, right, bottom in picture.boxes_xyxy:
            assert 0 <= left < right <= 128 and 0 <= top < bottom <= 128
            inside[top:bottom, left:right] = 1
            assert picture.mask[top:bottom, left:right].any()
        assert not (picture.mask > inside).any()
        assert picture.mask.mean() < 0.8, "a mask of nearly everything explains nothing"
        assert len(picture.boxes_xyxy) == len(picture.box_labels)
        ordinary = picture.kind.split("/")[0] in ("page", "landscape", "table")
        assert (len(picture.boxes_xyxy) == 0) is ordinary, picture.kind
        assert picture.mask.any() != ordinary, picture.kind


def test_mask_marks_the_pixels_of_a_part_and_what_hides_it_not() -> None:
    sheet = Sheet(fill=(0, 0, 0))
    red, green = (Image.new("RGBA", (side, side), colour) for side, colour in ((200, (255, 0, 0)), (60, (0, 255, 0))))
    sheet.stamp(red, (256, 256), sheet.add_part("thing"))
    sheet.stamp(green, (256, 256))
    photo = take_photo(sheet, 256, Random(3))
    pixels = np.asarray(Image.open(io.BytesIO(photo.jpeg)).convert("RGB")).astype(int)
    looks_red = pixels[..., 0] > pixels[..., 1:].max(-1) + 60
    overlap = (looks_red & (photo.ids == 1)).sum() / (looks_red | (photo.ids == 1)).sum()
    assert overlap > 0.9


def test_false_claims_change_one_span_of_a_true_one(pictures: list[Rendered]) -> None:
    for picture in pictures:
        assert len(picture.claims_true) == len(picture.claims_false) >= 2
        for true, false in zip(picture.claims_true, picture.claims_false, strict=True):
            before, after = true.split(), false.split()
            start = next(i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1])
            assert start >= 1, (true, false)
            changed = len(before) - start - sum(1 for _ in _shared_tail(before[start:], after[start:]))
            assert 1 <= changed <= (10 if "“" in true else 7), (true, false)


def _shared_tail(one: list[str], other: list[str]) -> list[str]:
    tail: list[str] = []
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        tail.append(a)
    return tail


def test_a_claimed_number_is_the_number_of_boxes(pictures: list[Rendered]) -> None:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    counted = [(p, claim) for p in pictures for claim in p.claims_true if claim.startswith("The number of")]
    assert len(counted) > 10
    for picture, claim in counted:
        assert words.index(claim.rstrip(".").split()[-1]) == len(picture.boxes_xyxy), (picture.number, claim)


def test_change_one_fills_one_slot_twice() -> None:
    claim = change_one("The tablets are {}.", "blue", "pink")
    assert (claim.true, claim.false) == ("The tablets are blue.", "The tablets are pink.")


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_every_font_has_every_letter_of_its_language(code: str) -> None:
    letters = _letters(LANGUAGES[code]) | set(
        "".join(words[("en", "pl", "ko").index(code)] for words in GOODS.values())
    )
    for path in find_fonts(code):
        font = load_font(path, 24)
        missing = [letter for letter in sorted(letters) if not letter.isspace() and _draws_box(font, letter)]
        assert not missing, f"{path.name}: {missing}"


def test_a_letter_that_a_font_lacks_is_noticed() -> None:
    assert _draws_box(load_font(find_fonts("pl")[0], 24), "한")


def _letters(language: Language) -> set[str]:
    lines = language.deal + language.near + language.plain
    slots = [value for values in language.slots.values() for value in values]
    return set(
        "".join([*lines, *slots, *language.people, language.box, language.online, *language.keys, "0123456789:"])
    )


def _draws_box(font: ImageFont.FreeTypeFont, letter: str) -> bool:
    return bytes(font.getmask(letter)) == bytes(font.getmask(ABSENT))


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_every_slot_is_filled_and_no_deal_line_is_a_harmless_one(code: str) -> None:
    language = LANGUAGES[code]
    for line in language.deal + language.near + language.plain:
        assert "{" not in fill_line(line, language, Random(0))
    assert not set(language.deal) & set(language.plain + language.near)


def test_a_missing_font_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", refuse)
    with pytest.raises(DataError, match="pip install"):
        find_fonts("ko")


def test_file_reads_as_a_labelled_set(written: Path) -> None:
    labelled = read_labelled(written / "casework.parquet")
    assert labelled.names == LABEL_NAMES
    assert labelled.labels[:5] == (0, 1, 2, 3, 0)
    assert Image.open(io.BytesIO(labelled.read_bytes(0))).size == (64, 64)
    assert {"kind", "caption"} <= set(labelled.extras)


def test_file_opens_in_the_datasets_library(written: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    loaded = datasets.Dataset.from_parquet(str(written / "casework.parquet"), cache_dir=str(tmp_path))
    assert loaded.features["label"].names == list(LABEL_NAMES)
    row = loaded[3]
    assert np.asarray(row["mask"]).shape == (64, 64) and np.asarray(row["mask"]).max() == 1
    assert len(row["boxes_xyxy"][0]) == 4 and len(row["claims_true"]) == len(row["claims_false"])


def test_neither_colour_nor_brightness_nor_file_size_tells_the_class(pictures: list[Rendered]) -> None:
    labels = np.array([picture.label for picture in pictures])
    cheap = np.stack([_describe_cheaply(picture.jpeg) for picture in pictures])
    assert _score(cheap, labels) < 0.6
    tinted = cheap + 120 * np.eye(4, cheap.shape[1])[labels]
    assert _score(tinted, labels) > 0.9, "a tint per class would be noticed"


def _describe_cheaply(jpeg: bytes) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(float)
    histogram = np.histogram(pixels.mean(-1), 16, (0, 255))[0] / pixels[..., 0].size
    return np.concatenate([pixels.mean((0, 1)), [len(jpeg)], histogram])


def _score(features: np.ndarray, labels: np.ndarray) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(cross_val_score(model, features, labels, cv=5).mean())


def test_command_writes_a_set_and_its_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["scenes", "--out", str(tmp_path / "set"), "--count", "8", "--seed", "2", "--size", "64", "--json"]
    assert main(command) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((tmp_path / "set" / "scenes.json").read_text(encoding="utf-8"))
    assert summary["labels"] == dict.fromkeys(sorted(LABEL_NAMES), 2)
    assert main(command) == 2
    assert "holds a set already" in capsys.readouterr().err


@pytest.mark.parametrize(("count", "workers", "size"), [(0, 1, 64), (4, 0, 64), (4, 1, 32), (4, 1, 4096)])
def test_numbers_out_of_range_are_refused(tmp_path: Path, count: int, workers: int, size: int) -> None:
    with pytest.raises(DataError):
        write_scenes(tmp_path / "set", count, 0, workers=workers, size=size)
    assert not (tmp_path / "set").exists()
