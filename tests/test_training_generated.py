"""Generated pictures go straight from their commands into splits, recipes and measurements."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from training.__main__ import main
from training.labelled import read_labelled
from training.language_recipe import QuestionSource
from training.questions import read_questions
from training.readers import read_question_set

LABELS = ("unrelated", "drug chat", "drug deal place", "drug substance")
ASK = "What type of image is this?"
DIGITS = {label: str(index) for index, label in enumerate(LABELS)}
SCENES, CHARTS = 24, 6


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both sets, generated and split by their commands."""
    folder = tmp_path_factory.mktemp("data")
    made = [
        ["scenes", "--out", folder / "scenes", "--count", SCENES, "--size", 64, "--seed", 3],
        ["charts", "--out", folder / "charts", "--count", CHARTS, "--questions", 3, "--seed", 3],
        ["prepare", folder / "scenes", "--out", folder / "casework", "--split", "16,4,4"],
        ["prepare", folder / "charts", "--out", folder / "charted", "--split", "4,1,1"],
    ]
    for arguments in made:
        assert main([str(one) for one in arguments]) == 0
    return folder


def test_generated_pictures_are_split_with_all_that_is_known_of_them(data: Path) -> None:
    parts = {name: read_labelled(data / "casework" / f"{name}.parquet") for name in ("train", "validation", "test")}
    for name, each in (("train", 4), ("validation", 1), ("test", 1)):
        part = parts[name]
        assert Counter(part.names[label] for label in part.labels) == dict.fromkeys(LABELS, each)
    before = {row["number"]: row for row in pq.read_table(data / "scenes" / "casework.parquet").to_pylist()}
    after = [row for name in parts for row in pq.read_table(data / "casework" / f"{name}.parquet").to_pylist()]
    assert sorted(row["number"] for row in after) == [*range(SCENES)]
    for row in after:
        told = before[row["number"]]
        assert row["image"]["bytes"] == told["image"]["bytes"]
        assert {**row, "image": None} == {**told, "image": None}


def test_charts_keep_their_questions_and_boxes(data: Path) -> None:
    whole = read_question_set(data / "charts")
    parts = [read_question_set(data / "charted" / f"{name}.parquet") for name in ("train", "validation", "test")]
    assert [len(part.pictures) for part in parts] == [4, 1, 1]
    asked = {(whole.pictures[one.picture], one.text, one.answer) for one in whole.questions}
    assert asked == {(part.pictures[one.picture], one.text, one.answer) for part in parts for one in part.questions}
    boxes = pq.read_table(data / "charted" / "train.parquet")["answer_box_xyxy"].to_pylist()
    assert all(left < right and top < bottom for left, top, right, bottom in boxes)


def test_recipes_ask_for_labels_claims_and_questions_of_them(data: Path) -> None:
    sources = [QuestionSource.model_validate(source) for source in _sources("train")]
    read = read_questions(sources, data, seed=0)
    answers = Counter(one.answer for one in read.questions if one.text == ASK)
    assert answers == {"0": 4, "1": 4, "2": 4, "3": 4}
    claims = [one for one in read.questions if one.text.endswith("Is that so?")]
    rows = pq.read_table(data / "casework" / "train.parquet").to_pylist()
    held = {answer: {claim for row in rows for claim in row[f"claims_{answer}"]} for answer in ("true", "false")}
    assert Counter(one.answer for one in claims) == {"yes": 16, "no": 16}
    for one in claims:
        assert one.text.removesuffix(" Is that so?") in held["true" if one.answer == "yes" else "false"]
    assert len(read) == 16 + 32 + len(read_question_set(data / "charted" / "train.parquet"))


def _sources(part: str) -> list[dict[str, object]]:
    casework, truths = f"casework/{part}.parquet", {"true": "yes", "false": "no"}
    return [
        {"kind": "labels", "file": casework, "question": ASK, "answers": DIGITS},
        {"kind": "claims", "file": casework, "question": "{claim} Is that so?", "answers": truths, "per_picture": 2},
        {"kind": "questions", "file": f"charted/{part}.parquet"},
    ]


def _write_recipe(path: Path) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    vit = ViTConfig(**sizes, image_size=32, patch_size=8, hidden_act="gelu_pytorch_tanh")
    tower = path.parent / "vit"
    ViTForImageClassification(vit).save_pretrained(tower)
    ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(
        tower
    )
    text = {**sizes, "num_key_value_heads": 1, "head_dim": 16}
    recipe = {
        "kind": "vlm",
        "name": "tiny",
        "family": "paligemma",
        "model": {"build": {"tower": str(tower), "vocabulary": 400, "text_config": text}},
        "task": {"question": ASK, "answers": {digit: label for label, digit in DIGITS.items()}},
        "questions": _sources("train"),
        "held_out": _sources("validation"),
        "train": {"epochs": 4, "batch_size": 8, "learning_rate": 0.005, "checkpoint_steps": 100},
    }
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny PaliGemma after a few steps on both sets."""
    folder = tmp_path_factory.mktemp("run")
    recipe = _write_recipe(folder / "recipe.yaml")
    assert main(["finetune", "--recipe", str(recipe), "--data", str(data), "--out", str(folder / "tiny")]) == 0
    return folder / "tiny"


def test_a_model_learns_from_both_sets(run: Path) -> None:
    history = json.loads((run / "metrics.json").read_text())["history"]
    losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(("name", "kind"), [("casework", "labels"), ("charted", "answers")])
def test_it_is_measured_on_what_it_never_saw(data: Path, run: Path, tmp_path: Path, name: str, kind: str) -> None:
    test = data / name / "test.parquet"
    arguments = ["evaluate", "--model", str(run), "--data", str(test), "--out", str(tmp_path), "--tokens", "6"]
    assert main(arguments) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["kind"], report["generated"]) == (kind, True)
    assert len(report["rows"]) == pq.read_metadata(test).num_rows
    assert all(math.isfinite(figure["value"]) for figure in report["figures"].values() if figure)
