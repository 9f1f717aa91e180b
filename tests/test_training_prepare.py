"""No picture and no near copy of it on two sides of a split."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter
from PIL.JpegImagePlugin import JpegImageFile

from training.__main__ import main
from training.augment_rare import change_picture, encode_like
from training.duplicates import Fingerprints, group_duplicates
from training.errors import DataError
from training.labelled import LabelledSet, read_labelled, write_parquet
from training.picture_table import PICTURE_TYPE
from training.prepare import prepare
from training.readers import read_question_set
from training.splitting import SplitSizes, deal_groups

WHOLE, HALVES = SplitSizes(shares=(1.0,)), SplitSizes(shares=(0.5, 0.5))


def _draw_picture(seed: int) -> Image.Image:
    """A smooth random pattern: as unlike its neighbours for a perceptual hash as two photographs are."""
    noise = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))


def _encode(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _write_set(path: Path, pictures: Sequence[bytes], labels: Sequence[int]) -> Path:
    sources = tuple(f"row {index}" for index in range(len(pictures)))
    write_parquet(LabelledSet(tuple(pictures), tuple(labels), ("fake", "real"), sources), path)
    return path


def _locate(folder: Path) -> dict[bytes, str]:
    return {
        picture: file.stem
        for file in folder.glob("*.parquet")
        for picture in read_labelled(file).pictures
        if isinstance(picture, bytes)
    }


def test_split_is_stratified_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    source = _write_set(tmp_path / "all.parquet", [_encode(_draw_picture(i)) for i in range(60)], [0] * 40 + [1] * 20)
    first = prepare([source], tmp_path / "first", seed=3).summary
    again = prepare([source], tmp_path / "again", seed=3).summary
    other = prepare([source], tmp_path / "other", seed=4).summary
    assert first["splits"] == {
        "train": {"pictures": 42, "rows": 42, "labels": {"fake": 28, "real": 14}},
        "validation": {"pictures": 9, "rows": 9, "labels": {"fake": 6, "real": 3}},
        "test": {"pictures": 9, "rows": 9, "labels": {"fake": 6, "real": 3}},
    }
    assert first["split_sha256"] == again["split_sha256"] != other["split_sha256"]
    assert json.loads((tmp_path / "first" / "split.json").read_text()) == first


def test_copies_and_near_copies_stay_on_one_side(tmp_path: Path) -> None:
    families: list[list[bytes]] = []
    for seed in range(12):
        image = _draw_picture(seed)
        exact = _encode(image)
        families.append([exact, _encode(image, 60), _encode(image.resize((64, 64)))])
    pictures = [picture for family in families for picture in family]
    source = _write_set(tmp_path / "all.parquet", pictures, [0, 0, 0, 1, 1, 1] * 6)
    summary = prepare([source], tmp_path / "out", sizes=HALVES).summary
    assert summary["groups_of_duplicates"] == 12
    where = _locate(tmp_path / "out")
    assert all(len({where[picture] for picture in family}) == 1 for family in families)
    assert Counter(where.values()) == {"train": 18, "validation": 18}


def test_groups_are_closed_under_union() -> None:
    # 0 resembles 1, 1 resembles 2, 0 and 2 differ too much; 3 has the bytes of 2; 4 stands alone.
    hashes = np.array([0, 0b111111, 0b111111_111111, 1 << 62, 0xFFFF << 30], dtype=np.uint64)
    groups = group_duplicates(Fingerprints(("a", "b", "c", "c", "d"), hashes, hashes))
    assert len(set(groups[:4].tolist())) == 1
    assert groups[4] != groups[0]


def test_both_hashes_must_agree_for_a_near_copy() -> None:
    same, different = np.zeros(2, dtype=np.uint64), np.array([0, 0xFFFF], dtype=np.uint64)
    assert len(set(group_duplicates(Fingerprints(("a", "b"), same, different)).tolist())) == 2


def test_a_share_of_zero_gets_nothing() -> None:
    wanted = SplitSizes(shares=(0.8, 0.2, 0.0)).share_out(np.array([5, 5]))
    split = deal_groups(np.arange(10, dtype=np.int32), [0, 1] * 5, wanted, seed=0)
    assert Counter(split.tolist()) == {0: 8, 1: 2}


def test_copies_of_held_out_pictures_are_dropped(tmp_path: Path) -> None:
    images = [_draw_picture(seed) for seed in range(8)]
    source = _write_set(tmp_path / "all.parquet", [_encode(image) for image in images], [0, 1] * 4)
    held_out = _write_set(tmp_path / "held.parquet", [_encode(images[2]), _encode(images[5], 50)], [0, 1])
    summary = prepare([source], tmp_path / "out", against=[held_out]).summary
    assert summary["dropped_as_held_out"] == ["all.parquet row 2", "all.parquet row 5"]
    assert summary["pictures"] == 6


def test_unreadable_pictures_are_listed_and_left_out(tmp_path: Path) -> None:
    pictures = [_encode(_draw_picture(0)), b"no picture", _encode(_draw_picture(1))[:200]]
    source = _write_set(tmp_path / "all.parquet", pictures, [0, 1, 1])
    summary = prepare([source], tmp_path / "out", sizes=WHOLE).summary
    assert summary["pictures"] == 1
    assert [line.split(":")[0] for line in summary["unreadable"]] == ["all.parquet row 1", "all.parquet row 2"]


def test_an_existing_split_is_refused(tmp_path: Path) -> None:
    source = _write_set(tmp_path / "all.parquet", [_encode(_draw_picture(0))], [0])
    prepare([source], tmp_path / "out", sizes=WHOLE)
    with pytest.raises(DataError, match="holds a split already"):
        prepare([source], tmp_path / "out", sizes=WHOLE)


@pytest.mark.parametrize(
    ("text", "shares", "counts"),
    [
        ("70/15/15", (0.7, 0.15, 0.15), ()),
        ("72.25/12.75/15", (0.7225, 0.1275, 0.15), ()),
        ("0.97,0.03,0", (0.97, 0.03, 0.0), ()),
        ("1200,150,150", (), (1200, 150, 150)),
        ("1,0,0", (1.0, 0.0, 0.0), ()),
    ],
)
def test_sizes_are_per_cent_shares_or_counts(text: str, shares: tuple[float, ...], counts: tuple[int, ...]) -> None:
    sizes = SplitSizes.parse(text)
    assert sizes.shares == pytest.approx(shares)
    assert sizes.counts == counts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.7,0.7", "sum to 1"),
        ("70/20/15", "sum to 1"),
        ("70,15,15", "could be shares or counts; write 70/15/15"),
        ("1/2/3/94", "one to three sizes"),
        ("-1,2", "give shares"),
        ("many", "give shares"),
        ("0,0", "at least one"),
    ],
)
def test_wrong_sizes_are_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SplitSizes.parse(text)


def test_counts_are_met_exactly_and_stratified() -> None:
    # Of 30 and 10: 20 pictures for train are 15 and 5, 5 are 3.75 and 1.25, and 10 are left over.
    wanted = SplitSizes(counts=(20, 5, 5)).share_out(np.array([30, 10]))
    assert wanted.tolist() == [[15, 5], [4, 1], [4, 1], [7, 3]]
    labels = [0] * 30 + [1] * 10
    split = deal_groups(np.arange(40, dtype=np.int32), labels, wanted, seed=1)
    assert Counter(zip(split.tolist(), labels, strict=True)) == {
        (0, 0): 15, (0, 1): 5, (1, 0): 4, (1, 1): 1, (2, 0): 4, (2, 1): 1, (3, 0): 7, (3, 1): 3,
    }  # fmt: skip
    with pytest.raises(DataError, match="only 40 pictures"):
        SplitSizes(counts=(40, 1)).share_out(np.array([30, 10]))


def test_counts_leave_the_rest_unused(tmp_path: Path) -> None:
    source = _write_set(tmp_path / "all.parquet", [_encode(_draw_picture(i)) for i in range(12)], [0, 1, 1] * 4)
    summary = prepare([source], tmp_path / "out", sizes=SplitSizes(counts=(6, 3))).summary
    assert [part["labels"] for part in summary["splits"].values()] == [{"fake": 2, "real": 4}, {"fake": 1, "real": 2}]
    assert summary["unused"] == 3
    assert sorted(file.name for file in (tmp_path / "out").glob("*.parquet")) == ["train.parquet", "validation.parquet"]


def _write_columns(path: Path, pictures: Sequence[bytes], **columns: object) -> Path:
    images = pa.array([{"bytes": one, "path": None} for one in pictures], PICTURE_TYPE)
    pq.write_table(pa.table({"image": images, **columns}), path)
    return path


def test_every_column_survives(tmp_path: Path) -> None:
    pictures = [_encode(_draw_picture(i)) for i in range(6)]
    boxes = [[[float(i), 1.0, 2.0, 3.0]] for i in range(6)]
    claims = [[f"Claim {i}.", "Other."] for i in range(6)]
    masks = pa.array([{"bytes": b"mask", "path": f"{i}.png"} for i in range(6)], PICTURE_TYPE)
    columns = {"label": ["a", "b"] * 3, "boxes_xyxy": boxes, "claims_true": claims, "mask": masks, "number": range(6)}
    source = _write_columns(tmp_path / "all.parquet", pictures, **columns)
    prepare([source], tmp_path / "out", sizes=HALVES)
    rows = [
        row
        for name in ("train", "validation")
        for row in pq.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist()
    ]
    assert sorted(row["number"] for row in rows) == [*range(6)]
    for row in rows:
        number = row["number"]
        assert row["image"]["bytes"] == pictures[number]
        assert (row["boxes_xyxy"], row["claims_true"]) == (boxes[number], claims[number])
        assert row["mask"] == {"bytes": b"mask", "path": f"{number}.png"}
        assert row["label"] == number % 2
    datasets = pytest.importorskip("datasets")
    loaded = datasets.Dataset.from_parquet(str(tmp_path / "out" / "train.parquet"), cache_dir=str(tmp_path / "cache"))
    assert loaded.features["label"].names == ["a", "b"]
    assert loaded[0]["image"].size == (96, 96)


def test_questions_of_one_picture_stay_together(tmp_path: Path) -> None:
    pictures = [_encode(_draw_picture(i // 3)) for i in range(30)]
    questions, answers = [f"What is {i}?" for i in range(30)], [str(i * i) for i in range(30)]
    kinds = [("bar" if i < 15 else "pie") for i in range(30)]
    source = _write_columns(tmp_path / "all.parquet", pictures, question=questions, answer=answers, chart_kind=kinds)
    sizes = SplitSizes(counts=(6, 2, 2))
    summary = prepare([source], tmp_path / "out", sizes=sizes, stratify="chart_kind").summary
    assert {name: (part["pictures"], part["rows"], part["labels"]) for name, part in summary["splits"].items()} == {
        "train": (6, 18, {"bar": 3, "pie": 3}),
        "validation": (2, 6, {"bar": 1, "pie": 1}),
        "test": (2, 6, {"bar": 1, "pie": 1}),
    }
    found: dict[str, tuple[str, object, str]] = {}
    for name in ("train", "validation", "test"):
        read = read_question_set(tmp_path / "out" / f"{name}.parquet")
        found |= {one.text: (one.answer, read.pictures[one.picture], name) for one in read.questions}
    for index in range(30):
        answer, picture, name = found[f"What is {index}?"]
        assert (answer, picture) == (str(index * index), pictures[index])
        assert name == found[f"What is {index // 3 * 3}?"][2]


def test_few_answers_are_labels_too_and_many_are_not(tmp_path: Path) -> None:
    def write(name: str, answers: list[str]) -> Path:
        (tmp_path / "pictures").mkdir(exist_ok=True)
        rows = []
        for index, answer in enumerate(answers):
            (tmp_path / "pictures" / f"{index}.jpg").write_bytes(_encode(_draw_picture(index)))
            rows.append({"image": f"pictures/{index}.jpg", "question": "What type?", "label": answer})
        (tmp_path / name).write_text(json.dumps(rows))
        return tmp_path / name

    few = prepare([write("few.json", ["2", "3"] * 8)], tmp_path / "few", sizes=HALVES)
    assert few.summary["splits"]["train"]["labels"] == {"2": 4, "3": 4}
    read = read_question_set(few.folder / "train.parquet")
    labelled = read_labelled(few.folder / "train.parquet")
    assert [one.answer for one in read.questions] == [labelled.names[label] for label in labelled.labels]
    many = prepare([write("many.json", [str(i) for i in range(16)])], tmp_path / "many", sizes=HALVES)
    assert many.summary["splits"]["train"]["labels"] == {"(all)": 8}
    assert len(read_question_set(many.folder / "train.parquet")) == 8


@pytest.mark.parametrize("layout", ["classes", "genimage", "csv", "chartqa", "hub"])
def test_every_layout_is_split(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source: Path | str = tmp_path / layout
    pictures = [_encode(_draw_picture(index)) for index in range(8)]
    files = {
        "classes": [f"{name}/{i}.jpg" for i in range(4) for name in ("fake", "real")],
        "genimage": [f"BigGAN/val/{name}/{i}.jpg" for i in range(4) for name in ("ai", "nature")],
        "chartqa": [f"png/{i}.jpg" for i in range(8)],
    }.get(layout, [f"{i}.jpg" for i in range(8)])
    for name, picture in zip(files, pictures, strict=True):
        (tmp_path / layout / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / layout / name).write_bytes(picture)
    labels = ["fake", "real"] * 4
    if layout == "csv":
        source = tmp_path / layout / "list.csv"
        source.write_text(
            "image,label\n" + "".join(f"{name},{label}\n" for name, label in zip(files, labels, strict=True))
        )
    elif layout == "chartqa":
        rows = [{"imgname": f"{i}.jpg", "query": f"What is {i}?", "label": i / 4} for i in range(8)]
        (tmp_path / layout / "test_human.json").write_text(json.dumps(rows))
    elif layout == "hub":
        datasets = pytest.importorskip("datasets")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        _write_columns(tmp_path / "hub" / "train.parquet", pictures, label=labels)
        source = f"hub:{tmp_path / 'hub'}#train"
    out = prepare([source], tmp_path / "out", sizes=SplitSizes(counts=(6, 2))).folder
    if layout == "chartqa":
        read = [read_question_set(out / f"{name}.parquet") for name in ("train", "validation")]
        found = {(part.pictures[one.picture], one.text, one.answer) for part in read for one in part.questions}
        assert found == {(pictures[i], f"What is {i}?", str(i / 4)) for i in range(8)}
        return
    read_parts = [read_labelled(out / f"{name}.parquet") for name in ("train", "validation")]
    assert [len(part) for part in read_parts] == [6, 2]
    assert {
        (picture, part.names[label])
        for part in read_parts
        for picture, label in zip(part.pictures, part.labels, strict=True)
    } == set(zip(pictures, labels, strict=True))


def test_pictures_that_share_a_column_stay_together(tmp_path: Path) -> None:
    pictures = [_encode(_draw_picture(i)) for i in range(16)]
    videos = [f"v{i // 4}" for i in range(16)]
    source = _write_columns(tmp_path / "all.parquet", pictures, label=["a"] * 16, video=videos)
    prepare([source], tmp_path / "out", sizes=HALVES, group="video")
    where = _locate(tmp_path / "out")
    assert all(len({where[picture] for picture in pictures[i : i + 4]}) == 1 for i in range(0, 16, 4))
    assert Counter(where.values()) == {"train": 8, "validation": 8}
    with pytest.raises(DataError, match="no column camera"):
        prepare([source], tmp_path / "other", group="camera")


def test_rare_labels_are_augmented_in_the_train_split_only(tmp_path: Path) -> None:
    pictures = [_encode(_draw_picture(i)) for i in range(24)]
    source = _write_set(tmp_path / "all.parquet", pictures, [0] * 16 + [1] * 8)
    sizes = SplitSizes(shares=(0.5, 0.25, 0.25))
    plain = prepare([source], tmp_path / "plain", sizes=sizes).summary
    summary = prepare([source], tmp_path / "out", sizes=sizes, augment={"real": 4}).summary
    assert summary["counts"] == {
        "fake": {"all": 16, "train": 8, "validation": 4, "test": 4},
        "real": {"all": 8, "train": 4, "validation": 2, "test": 2, "added to train": 16},
    }
    assert summary["split_sha256"] == plain["split_sha256"]
    rows = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    originals = [row for row in rows if row["augmented_from"] is None]
    copies = [row for row in rows if row["augmented_from"] is not None]
    digests = Counter(hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in originals if row["label"] == 1)
    assert Counter(row["augmented_from"] for row in copies) == dict.fromkeys(digests, 4)
    assert {row["label"] for row in copies} == {1}
    assert len({row["image"]["bytes"] for row in rows}) == 28
    assert len(read_labelled(tmp_path / "out" / "train.parquet").originals()) == 12
    for name in ("validation", "test"):
        assert "augmented_from" not in pq.read_table(tmp_path / "out" / f"{name}.parquet").column_names
    with Image.open(tmp_path / "out" / "counts.png") as drawn:
        assert drawn.size[0] > 300
    again = prepare([source], tmp_path / "again", sizes=sizes, augment={"real": 4})
    assert (again.folder / "train.parquet").read_bytes() == (tmp_path / "out" / "train.parquet").read_bytes()


def test_augmented_copies_never_cross_and_are_never_measured_on(tmp_path: Path) -> None:
    pictures = [_encode(_draw_picture(i)) for i in range(8)]
    first = prepare(
        [_write_set(tmp_path / "all.parquet", pictures, [0, 1] * 4)],
        tmp_path / "first",
        sizes=WHOLE,
        augment={"real": 2},
    )
    second = prepare([first.folder / "train.parquet"], tmp_path / "second", sizes=HALVES).folder
    where = {hashlib.sha256(picture).hexdigest(): name for picture, name in _locate(second).items()}
    rows = {name: pq.read_table(second / f"{name}.parquet").to_pylist() for name in ("train", "validation")}
    copies = [row["augmented_from"] for row in rows["train"] if row["augmented_from"]]
    assert copies and {where[digest] for digest in copies} == {"train"}
    assert not any(row["augmented_from"] for row in rows["validation"])
    assert len(rows["validation"]) and len(rows["train"]) + len(rows["validation"]) < 16


@pytest.mark.parametrize(
    ("augment", "message"), [({"surreal": 4}, "no such label; there are fake, real"), ({"real": 0}, "at least one new")]
)
def test_augmentation_that_cannot_be_is_refused_before_anything_is_read(
    tmp_path: Path, augment: dict[str, int], message: str
) -> None:
    source = _write_set(tmp_path / "all.parquet", [b"no picture"], [0])
    with pytest.raises(DataError, match=message):
        prepare([source], tmp_path / "out", augment=augment)


def test_changed_pictures_keep_size_and_have_no_black_corners() -> None:
    white = Image.new("RGB", (90, 60), (255, 255, 255))
    left = np.zeros((64, 64, 3), np.uint8)
    left[:, :32] = 200
    sides = set()
    for number in range(12):
        changed = np.asarray(change_picture(white, f"seed {number}"))
        assert changed.shape == (60, 90, 3)
        assert changed.min() > 255 * 0.75 * 0.7  # the darkest that brightness, contrast and noise make of white
        halves = np.asarray(change_picture(Image.fromarray(left), str(number)))
        sides.add(bool(halves[:, :20].mean() > 80))
    assert sides == {True, False}, "some are mirrored, some are not"


def test_copies_are_compressed_like_their_originals() -> None:
    picture = _draw_picture(3)
    for quality in (60, 92):
        original = _encode(picture, quality)
        copy = Image.open(io.BytesIO(encode_like(change_picture(picture, "key"), original)))
        assert isinstance(copy, JpegImageFile)
        assert copy.quantization == Image.open(io.BytesIO(original)).quantization  # type: ignore[attr-defined]
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    assert Image.open(io.BytesIO(encode_like(picture, buffer.getvalue()))).format == "PNG"


def test_command_prints_json_and_exits_2_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _write_set(tmp_path / "all.parquet", [_encode(_draw_picture(i)) for i in range(4)], [0, 0, 1, 1])
    arguments = ["prepare", str(source), "--out", str(tmp_path / "out"), "--split", "0.5,0.5"]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["labels"] == {"fake": 1, "real": 1}
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith("error: ")
    assert main([*arguments[:-1], "70,15,15"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: --split 70,15,15: could be shares or counts")


@pytest.mark.filterwarnings("error:Glyph")
def test_command_shows_counts_before_and_after_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index, name in enumerate(["거래", "기타", "기타", "거래", "기타", "기타"]):
        (tmp_path / "all" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name / f"{index}.jpg").write_bytes(_encode(_draw_picture(index)))
    arguments = ["prepare", str(tmp_path / "all"), "--out", str(tmp_path / "out"), "--split", "50/50"]
    assert main([*arguments, "--augment-rare", "거래=3"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[:3]]
    assert lines == [
        ["label", "all", "train", "validation", "added", "to", "train"],
        ["거래", "2", "1", "1", "3"],
        ["기타", "4", "2", "2", "0"],
    ]
