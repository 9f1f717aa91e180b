"""Published layouts on tiny folders."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from training.charts import write_charts
from training.errors import DataError
from training.labelled import read_labelled
from training.layouts import read_table
from training.questions import Question
from training.readers import read_question_set


def _png(shade: int) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(encoded, "PNG")
    return encoded.getvalue()


def _save(path: Path, shade: int = 9) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_png(shade))
    return path


def _chartqa(folder: Path) -> Path:
    for name in ("a.png", "b.png"):
        _save(folder / "png" / name)
    human = [
        {"imgname": "a.png", "query": "How many bars?", "label": "3"},
        {"imgname": "b.png", "query": "Which is highest?", "label": "Poland"},
        {"imgname": "a.png", "query": "Is it red?", "label": "No"},
    ]
    augmented = [{"imgname": "b.png", "query": "What was it in 2010?", "label": 12.5}]
    (folder / "test_human.json").write_text(json.dumps(human))
    (folder / "test_augmented.json").write_text(json.dumps(augmented))
    # Real copies carry further folders with lists of their own.
    (folder / "annotations").mkdir()
    (folder / "annotations" / "a.json").write_text('{"models": []}')
    return folder


def test_chartqa_folder_is_all_its_lists(tmp_path: Path) -> None:
    read = read_question_set(_chartqa(tmp_path))
    assert read.pictures == (tmp_path / "png" / "b.png", tmp_path / "png" / "a.png")
    assert read.questions == (
        Question(0, "What was it in 2010?", "12.5"),
        Question(1, "How many bars?", "3"),
        Question(0, "Which is highest?", "Poland"),
        Question(1, "Is it red?", "No"),
    )


def test_one_list_of_chartqa_is_read_alone(tmp_path: Path) -> None:
    read = read_question_set(_chartqa(tmp_path) / "test_human.json")
    assert [question.answer for question in read.questions] == ["3", "Poland", "No"]
    assert all(Path(str(picture)).is_file() for picture in read.pictures)


def test_the_whole_of_chartqa_tells_the_split_of_each_question(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        _chartqa(tmp_path / split)
    table = read_table(tmp_path)
    assert table.get_list("split") == ["train"] * 4 + ["val"] * 4
    assert len(table.pictures) == 4
    assert len(read_question_set(tmp_path / "val")) == 4


def test_folder_without_png_is_not_chartqa(tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text("[]")
    with pytest.raises(DataError, match="is not the layout of ChartQA"):
        read_question_set(tmp_path)


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_lists_of_image_question_label(tmp_path: Path, kind: str) -> None:
    rows = [{"image": "pictures/a.png", "question": f"What {i}?", "label": str(i)} for i in (1, 2)]
    text = {
        "json": json.dumps(rows),
        "jsonl": "\n".join(json.dumps(row) for row in rows),
        "csv": "image,question,label\n" + "\n".join(",".join(row.values()) for row in rows),
    }[kind]
    (tmp_path / f"list.{kind}").write_text(text)
    read = read_question_set(tmp_path / f"list.{kind}")
    assert read.pictures == (tmp_path / "pictures" / "a.png",)
    assert read.questions == (Question(0, "What 1?", "1"), Question(0, "What 2?", "2"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"image": "a.png", "label": "1"}]', "no column question or query; it has image, label"),
        ('[{"image": "a.png", "question": "What?", "label": ""}]', "row 0 needs a question and an answer"),
        ('[{"question": "What?", "label": "1"}]', "entry 0 has no picture"),
        ('{"image": "a.png"}', "expected a list of objects"),
        ("[", "cannot be read as a list"),
        ("[]", "holds no question"),
    ],
)
def test_lists_that_lack_something_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_question_set(tmp_path / "list.json")


def test_generated_charts_are_read_with_each_picture_once(tmp_path: Path) -> None:
    summary = write_charts(tmp_path, 2, seed=8, questions=4)
    read = read_question_set(tmp_path / "charts.parquet")
    assert (len(read.pictures), len(read)) == (2, summary["questions"])
    rows = pq.read_table(tmp_path / "charts.parquet").to_pylist()
    assert [(read.pictures[q.picture], q.text, q.answer) for q in read.questions] == [
        (row["image"]["bytes"], row["question"], row["answer"]) for row in rows
    ]


def test_parquet_without_questions_and_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"], "label": [1]}), tmp_path / "set.parquet")
    with pytest.raises(DataError, match="no column question or query; it has image, label"):
        read_question_set(tmp_path / "set.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read_question_set(tmp_path / "broken.parquet")
    (tmp_path / "list.txt").write_text("")
    with pytest.raises(DataError, match="not a parquet file"):
        read_question_set(tmp_path / "list.txt")
    with pytest.raises(DataError, match="no such file"):
        read_question_set(tmp_path / "absent.json")


def test_genimage_is_fake_and_real_by_generator_and_split(tmp_path: Path) -> None:
    for name in (
        "Midjourney/train/ai/1.png",
        "Midjourney/train/nature/2.JPEG",
        "Midjourney/val/ai/3.png",
        "BigGAN/imagenet_ai_0419_biggan/val/nature/4.png",  # as it is published
        "BigGAN/imagenet_ai_0419_biggan/val/nature/notes.txt",
    ):
        _save(tmp_path / name)
    for name in ("Midjourney/val/nature", "BigGAN/imagenet_ai_0419_biggan/val/ai"):
        (tmp_path / name).mkdir()
    read = read_labelled(tmp_path)
    assert read.names == ("fake", "real")
    rows = zip(read.pictures, read.labels, read.extras["generator"], read.extras["split"], strict=True)
    assert [(Path(str(picture)).name, *rest) for picture, *rest in rows] == [
        ("1.png", 0, "Midjourney", "train"),
        ("3.png", 0, "Midjourney", "val"),
        ("4.png", 1, "BigGAN", "val"),
        ("2.JPEG", 1, "Midjourney", "train"),
    ]
    generator = read_labelled(tmp_path / "Midjourney")
    assert generator.extras == {"generator": ("Midjourney",) * 3, "split": ("train", "val", "train")}
    split = read_labelled(tmp_path / "Midjourney" / "train")
    assert (split.labels, split.extras) == ((0, 1), {"generator": ("Midjourney",) * 2, "split": ("train",) * 2})


def test_one_list_serves_labels_and_questions(tmp_path: Path) -> None:
    rows = [{"image": f"{i}.png", "question": "What type?", "label": str(i)} for i in (1, 0)]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    labelled = read_labelled(tmp_path / "list.json", ("chat", "place"))
    assert [labelled.names[label] for label in labelled.labels] == ["place", "chat"]
    assert [one.answer for one in read_question_set(tmp_path / "list.json").questions] == ["1", "0"]


def test_folder_with_a_list_and_folder_of_parquet_files(tmp_path: Path) -> None:
    (tmp_path / "listed").mkdir()
    (tmp_path / "listed" / "metadata.csv").write_text("file_name,label\na.png,real\n")
    assert read_labelled(tmp_path / "listed").pictures == (tmp_path / "listed" / "a.png",)
    (tmp_path / "parts").mkdir()
    for name, label in (("train-00", "real"), ("train-01", "fake")):
        pq.write_table(pa.table({"image": [_png(1)], "label": [label]}), tmp_path / "parts" / f"{name}.parquet")
    parts = read_labelled(tmp_path / "parts")
    assert [parts.names[label] for label in parts.labels] == ["real", "fake"]
    (tmp_path / "parts" / "split.json").write_text("{}")
    with pytest.raises(DataError, match=r"holds a split; name one of its files \(train-00.parquet, train-01.parquet\)"):
        read_labelled(tmp_path / "parts")


def test_sets_that_number_their_labels_differently_are_joined_by_name(tmp_path: Path) -> None:
    def write(name: str, names: list[str], labels: list[int]) -> Path:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = pa.table({"image": [_png(i) for i in labels], "label": labels})
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / name)
        return tmp_path / name

    joined = read_labelled([write("a.parquet", ["real", "fake"], [0, 1]), write("b.parquet", ["fake", "real"], [0, 1])])
    assert [joined.names[label] for label in joined.labels] == ["real", "fake", "fake", "real"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that `datasets` reads like a data set of the hub; its cache goes to the test's own folder."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "dataset"
    (folder / "data").mkdir(parents=True)
    return folder


def _write(hub: Path, features: dict[str, object] | None = None, **columns: list[object]) -> None:
    images = [{"bytes": _png(shade), "path": None} for shade in range(len(next(iter(columns.values()))))]
    table = pa.table({"image": images, **columns})
    described = {"image": {"_type": "Image"}, **(features or {})}
    metadata = {"huggingface": json.dumps({"info": {"features": described}})} if features else None
    pq.write_table(table.replace_schema_metadata(metadata), hub / "data" / "test-00000.parquet")


def test_labels_of_the_hub_keep_their_names_and_bytes(hub: Path) -> None:
    _write(hub, {"label": {"names": ["chat", "place"], "_type": "ClassLabel"}}, label=[1, 0])
    read = read_labelled(f"hub:{hub}#test")
    assert (read.names, read.labels) == (("chat", "place"), (1, 0))
    assert read.pictures == (_png(0), _png(1))


def test_labels_of_the_hub_without_names_take_those_given(hub: Path) -> None:
    _write(hub, label=[1, 0, 2])
    assert read_labelled(f"hub:{hub}#test", names=("x", "y", "z")).names == ("x", "y", "z")
    with pytest.raises(DataError, match=r"label 2 has no name \(the names are x, y\)"):
        read_labelled(f"hub:{hub}#test", names=("x", "y"))


def test_text_labels_of_the_hub_name_themselves(hub: Path) -> None:
    _write(hub, label=["place", "chat"])
    read = read_labelled(f"hub:{hub}#test")
    assert (read.names, read.labels) == (("chat", "place"), (1, 0))
    assert read_labelled(f"hub:{hub}#test", names=("place", "chat")).labels == (0, 1)


def test_questions_of_the_hub_in_the_form_of_chartqa(hub: Path) -> None:
    _write(hub, query=["How many?", "Which?"], label=[["3"], ["Poland", "PL"]])
    read = read_question_set(f"hub:{hub}#test")
    assert read.pictures == (_png(0), _png(1))
    assert read.questions == (Question(0, "How many?", "3"), Question(1, "Which?", "Poland"))


def test_other_names_of_columns_are_found_by_what_the_hub_says_of_them(hub: Path) -> None:
    image = pa.array([{"bytes": _png(0), "path": None}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.table({"img": image, "species": [1], "kind": ["leaf"]})
    features = {
        "img": {"_type": "Image"},
        "species": {"names": ["bean", "rust"], "_type": "ClassLabel"},
        "kind": {"dtype": "string", "_type": "Value"},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), hub / "data" / "train-00000.parquet")
    for source in (f"hub:{hub}", hub / "data"):  # a split need not be named where there is one only
        read = read_labelled(source)
        assert (read.pictures, read.labels, read.names) == ((_png(0),), (1,), ("bean", "rust"))
        assert read.extras == {"kind": ("leaf",)}


def test_several_splits_of_the_hub_are_not_mixed(hub: Path) -> None:
    _write(hub, label=["place", "chat"])
    pq.write_table(pq.read_table(hub / "data" / "test-00000.parquet"), hub / "data" / "train-00000.parquet")
    with pytest.raises(DataError, match=r"has the splits train, test; name one, hub:.*#train"):
        read_labelled(f"hub:{hub}")


def test_hub_without_network_or_split_is_one_clear_line(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(hub, query=["How many?"], label=[["3"]])
    with pytest.raises(DataError, match="check its name and split") as refused:
        read_question_set(f"hub:{hub}#validation")
    assert "\n" not in str(refused.value)
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="hub:nobody/nothing#test: cannot be had from the hub") as refused:
        read_labelled("hub:nobody/nothing#test")
    assert "\n" not in str(refused.value)
