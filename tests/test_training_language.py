"""A small PaliGemma for real: built, pre-trained, adapted, resumed, bundled and loaded as the app loads it."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from models.families import get_family
from tests.stripes import draw_stripes
from training.__main__ import main
from training.asking import IGNORED, Asked, aligned
from training.errors import DataError, RecipeError, RunError
from training.labelled import LabelledSet, write_parquet
from training.language import finetune_language
from training.language_recipe import LanguageRecipe, QuestionSource, read_language_recipe
from training.language_trainer import TRAINED, LanguageTrainer
from training.looking import ResizedViews, SeenViews, choose_way, looking, resize_once
from training.pupil import build_pupil
from training.questions import read_questions
from training.recipe import AugmentRecipe
from training.small_paligemma import train_tokenizer
from training.trainer import make_arguments

ASK = "Which way do the stripes run?"
LABELS = {"kind": "labels", "file": "train.parquet", "question": ASK, "answers": {"across": "0", "down": "1"}}
TASK = {"question": ASK, "answers": {"0": "across", "1": "down"}}
TRAIN = {"epochs": 2, "batch_size": 16, "micro_batch": 8, "learning_rate": 0.01, "checkpoint_steps": 3}
TARGETS = r".*(language_model.*\.(q|k|v|o|gate|up|down)_proj|multi_modal_projector\.linear)"
TOWER = r".*(vision_tower.*\.(q_proj|v_proj|fc1)|language_model.*\.(q|v)_proj)"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stripes with labels, and two of them with captions and boxes."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, count in (("train", 96), ("validation", 32)):
        labels = tuple(index % 2 for index in range(count))
        pictures = tuple(draw_stripes(label, rng) for label in labels)
        sources = tuple(f"{name} {index}" for index in range(count))
        write_parquet(LabelledSet(pictures, labels, ("across", "down"), sources), folder / f"{name}.parquet")
    images = [{"bytes": draw_stripes(0, rng), "path": None}, {"bytes": draw_stripes(1, rng), "path": None}]
    captions = [["Stripes run across .", "Bright , noisy stripes ."], []]
    boxes = [[[0.0, 0.0, 9.0, 9.0]] * 2, [[0.0, 0.0, 9.0, 9.0]]]
    table = {"image": images, "captions": captions, "labels": [["dog", "dog"], ["cat"]], "boxes_xyxy": boxes}
    pq.write_table(pa.table(table), folder / "photos.parquet")
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=1e-6,
        initializer_range=0.2,
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(
        folder
    )
    return folder


def _recipe(path: Path, model: dict[str, object], **changes: object) -> LanguageRecipe:
    content = {
        "kind": "vlm",
        "name": "tiny",
        "family": "paligemma",
        "model": model,
        "task": TASK,
        "questions": [LABELS],
        "held_out": [LABELS | {"file": "validation.parquet"}],
        "train": TRAIN,
    }
    path.write_text(yaml.safe_dump(content | changes))
    return read_language_recipe(path)


def _small(vit: Path) -> dict[str, object]:
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
    }
    return {"build": {"tower": str(vit), "vocabulary": 400, "text_config": text, "texts": ["0 1 across down"]}}


@pytest.fixture(scope="module")
def base(data: Path, vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that has learnt to write digits, and nothing about the task."""
    run = tmp_path_factory.mktemp("base") / "run"
    said = [
        LABELS | {"question": f"Say {name}.", "answers": dict.fromkeys(("across", "down"), digit)}
        for name, digit in (("zero", "0"), ("one", "1"))
    ]
    train = TRAIN | {"epochs": 6}
    recipe = _recipe(run.parent / "r.yaml", _small(vit), questions=said, held_out=[], train=train)
    finetune_language(recipe, data, run, progress=False)
    return run


def _adapter(base: Path, path: Path, changes: dict[str, object] | None = None, **train: object) -> LanguageRecipe:
    adapter = {"rank": 4, "alpha": 8, "dropout": 0.1, "targets": TARGETS}
    _recipe(path, {"start": str(base)}, adapter=adapter, train=TRAIN | train)
    return read_language_recipe(path, changes)


def test_the_vocabulary_writes_any_text_and_reads_digits_one_by_one() -> None:
    tokenizer = train_tokenizer(["Is this image made by AI? 0 1"] * 5, 300)
    for text in ("Is this image made by AI?", "이 이미지는 가짜 🙂", "żółć\n 12.5%"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer("2026")["input_ids"]) == 4


def test_the_tower_starts_with_the_vits_eyes(vit: Path, data: Path, tmp_path: Path) -> None:
    recipe = _recipe(tmp_path / "r.yaml", _small(vit))
    pupil = build_pupil(recipe, read_questions(recipe.questions, data, 0))
    tower, theirs = pupil.network.model.vision_tower, ViTForImageClassification.from_pretrained(vit).vit
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        seen, taught = tower.embeddings(pixels), theirs.embeddings(pixels)[:, 1:]
        assert torch.allclose(seen, taught, atol=1e-5)
        ours = tower.encoder.layers[0](seen, attention_mask=None)
        # Without the class token to look at, the ViT's own block gives just this.
        assert torch.allclose(ours, theirs.layers[0](taught), atol=1e-4)


def test_an_adapter_learns_the_task_and_is_bundled_on_its_base(base: Path, data: Path, tmp_path: Path) -> None:
    recipe = _adapter(base, tmp_path / "r.yaml", epochs=8, learning_rate=0.02)
    metrics = finetune_language(recipe, data, tmp_path / "run", progress=False)
    losses = [entry["eval_loss"] for entry in metrics["history"] if "eval_loss" in entry]
    assert losses[-1] < 0.8 * losses[0]
    assert metrics["validation"]["accuracy"] >= 0.9
    assert metrics["trained_parameters"] < metrics["parameters"] / 5
    card = {"title": "t", "summary": "s", "licence": "AGPL-3.0-only", "data": ["d"], "commands": ["c"]}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card | {"sets": {"validation": "stripes"}, "limits": ["l"]}))
    accuracies = {}
    for name, run in (("base", base), ("adapter", tmp_path / "run")):
        arguments = ["bundle", str(run), "--out", str(tmp_path / name), "--card", str(tmp_path / "card.yaml")]
        assert main([*arguments, "--measure", f"validation={data / 'validation.parquet'}"]) == 0
        measured = json.loads((tmp_path / name / "metrics.json").read_text())["validation"]
        accuracies[name] = measured["accuracy"]
    assert accuracies["adapter"] >= 0.9
    assert accuracies["base"] < accuracies["adapter"]
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    text = (tmp_path / "adapter" / "README.md").read_text()
    assert ASK in text
    assert f"{accuracies['adapter']:.4f}" in text


@pytest.mark.parametrize("changes", [{}, {"adapter.targets": TOWER, "augment": {"noise": 0.5, "colour": 0.5}}])
def test_a_resumed_run_ends_at_the_same_weights(
    base: Path, data: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    flipping = {"pictures": "features", "flipped": True}
    recipe = _adapter(base, tmp_path / "r.yaml", changes or flipping)
    finetune_language(recipe, data, tmp_path / "whole", progress=False)
    (tmp_path / "run").mkdir()
    shutil.copy(tmp_path / "whole" / "recipe.yaml", tmp_path / "run")
    shutil.copytree(tmp_path / "whole" / "checkpoint-9", tmp_path / "run" / "checkpoint-9")
    with pytest.raises(RunError, match="--resume"):
        finetune_language(recipe, data, tmp_path / "run", progress=False)
    finetune_language(recipe, data, tmp_path / "run", resume=True, progress=False)
    left, right = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(left[name], right[name]) for name in left)
    kept = load_file(tmp_path / "whole" / "checkpoint-9" / TRAINED)
    assert all("lora" in name for name in kept)
    assert any("vision_tower" in name for name in kept) == bool(changes)


@pytest.mark.parametrize("way", ["features", "resized", "processor"])
def test_pictures_are_seen_as_they_are(base: Path, data: Path, tmp_path: Path, way: str) -> None:
    mirrored = way == "features"
    recipe = _adapter(base, tmp_path / "r.yaml", {"pictures": way, "flipped": mirrored})
    train, held_out = (read_questions(part, data, 0) for part in (recipe.questions, recipe.held_out))
    pupil = build_pupil(recipe, train)
    network = pupil.network.eval()
    encoded = Image.open(io.BytesIO(held_out.pictures[5]))  # type: ignore[arg-type]
    whole = pupil.family.encode(pupil.processor, [encoded], [pupil.family.prompt(pupil.processor, ASK)])
    with torch.no_grad():
        wanted = network(**whole).logits[0, -1]
        with looking(recipe, pupil, train, held_out) as (asked, asked_held_out):
            batch = asked_held_out[5]
            answered = int((batch["labels"] != IGNORED).sum())
            given = network(**{name: batch[name] for name in batch if name != "labels"}).logits[0, -1 - answered]
            if mirrored:
                assert {asked[5]["pixel_values"].item(), asked[7]["pixel_values"].item()} <= {10, 11, 14, 15}
                assert batch["pixel_values"].item() == 2 * 96 + 5
            else:
                assert torch.allclose(batch["pixel_values"], whole["pixel_values"], atol=1e-6)
        assert torch.allclose(network(**whole).logits[0, -1], wanted)  # the real tower is back
    # Features are kept in bfloat16.
    assert torch.allclose(given, wanted, atol=0.05 if mirrored else 1e-4)


def test_mirror_images_are_drawn_by_the_batch_and_nothing_else() -> None:
    views = SeenViews(first=3, count=2)
    torch.manual_seed(0)
    drawn = torch.stack([views([0, 4]) for _ in range(40)])
    assert set(drawn[:, 0].tolist()) == {3, 4}
    assert set(drawn[:, 1].tolist()) == {11, 12}


def test_resized_pictures_are_changed_in_training_only(base: Path, data: Path) -> None:
    _, processor, _ = get_family("paligemma").load(base)
    questions = read_questions([QuestionSource.model_validate(LABELS)], data, 0)
    pixels = resize_once(questions.pictures[:4], processor.image_processor)
    assert pixels.shape == (4, 3, 32, 32)
    plain = ResizedViews(pixels, processor.image_processor, None)
    assert torch.equal(plain([2, 0]), (pixels[[2, 0]].float() / 255 - 0.5) / 0.5)
    noisy = Asked(
        questions,
        get_family("paligemma"),
        processor,
        ResizedViews(pixels, processor.image_processor, AugmentRecipe(noise=1.0)),
        seed=1,
    )
    before = torch.random.get_rng_state()
    first, again, other = (noisy[index]["pixel_values"] for index in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, plain([1]))
    assert not torch.allclose(other - plain([2]), first - plain([1]))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_adapter_reaches_into_the_tower(base: Path, data: Path, tmp_path: Path) -> None:
    recipe = _adapter(base, tmp_path / "r.yaml", {"adapter.targets": TOWER})
    pupil = build_pupil(recipe, read_questions(recipe.questions, data, 0))
    assert choose_way(recipe, pupil) == "resized"
    metrics = finetune_language(recipe, data, tmp_path / "run", progress=False)
    losses = [entry["eval_loss"] for entry in metrics["history"] if "eval_loss" in entry]
    assert losses[-1] < losses[0]
    learnt = load_file(tmp_path / "run" / "adapter_model.safetensors")
    tower = [tensor for name, tensor in learnt.items() if "vision_tower" in name and "lora_B" in name]
    assert len(tower) == 6
    assert all(tensor.any() for tensor in tower)  # they start at zero


def test_a_folded_adapter_computes_the_same(base: Path, data: Path, tmp_path: Path) -> None:
    found = []
    for dropout in (0.0, 1e-9):  # the library's own way is kept where there is dropout
        recipe = _adapter(base, tmp_path / "r.yaml", {"adapter.targets": TOWER, "adapter.dropout": dropout})
        torch.manual_seed(0)
        pupil = build_pupil(recipe, read_questions(recipe.questions, data, 0))
        folded = [part for part in pupil.network.modules() if "forward" in vars(part)]
        assert len(folded) == (2 * 2 + 2 * 2 if dropout == 0 else 0)  # not fc1, which is wide
        for name, weight in pupil.network.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
        encoded = pupil.family.encode(pupil.processor, [Image.new("RGB", (32, 32), "red")], ["<image>What?\n"])
        logits = pupil.network.train()(**encoded).logits
        logits[0, -1, 5].backward()
        grads = {name: p.grad for name, p in pupil.network.named_parameters() if p.requires_grad}
        found.append((logits.detach(), grads))
    (ours, our_grads), (theirs, their_grads) = found
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert all(torch.allclose(our_grads[name], grad, atol=1e-5) and grad.any() for name, grad in their_grads.items())


@pytest.mark.parametrize("trained", [False, True])
def test_a_whole_tower_is_trained_if_the_recipe_says_so(vit: Path, data: Path, tmp_path: Path, trained: bool) -> None:
    model = _small(vit) | {"train_tower": trained}
    recipe = _recipe(tmp_path / "r.yaml", model, train=TRAIN | {"epochs": 0.5, "precision": "bf16"})
    finetune_language(recipe, data, tmp_path / "run", progress=False)
    weights = load_file(tmp_path / "run" / "model.safetensors")
    name = next(name for name in weights if "layers.1.mlp.fc1.weight" in name and "vision" in name)
    before = ViTForImageClassification.from_pretrained(vit).vit.layers[1].mlp.fc1.weight
    assert torch.equal(weights[name], before) != trained


def test_only_the_answer_counts(base: Path, data: Path) -> None:
    family = get_family("paligemma")
    _, processor, _ = family.load(base)
    source = QuestionSource(kind="captions", file="photos.parquet", question="Describe the image.")
    asked = Asked(read_questions([source], data, 0), family, processor, SeenViews())
    batch = asked.__getitems__([0, 1])
    for labels, ids, kinds in zip(batch["labels"], batch["input_ids"], batch["token_type_ids"], strict=True):
        counted = labels != IGNORED
        assert torch.equal(labels[counted], ids[counted])
        assert bool(kinds[counted].all())
        written = processor.tokenizer.decode(ids[counted])
        assert written in ("stripes run across<eos>", "bright, noisy stripes<eos>")
        assert bool(counted[-1])  # answers end the batch
    singles = [asked[index] for index in (0, 1)]
    assert int(batch["attention_mask"].sum()) == sum(single["input_ids"].numel() for single in singles)
    rows = [{name: value[0] for name, value in single.items() if name != "pixel_values"} for single in singles]
    assert all(torch.equal(batch[name], padded) for name, padded in aligned(rows).items())


def test_the_loss_is_that_of_the_library_over_all_micro_batches(base: Path, data: Path, tmp_path: Path) -> None:
    described = {"kind": "captions", "file": "photos.parquet", "question": "Describe the image."}
    said = [described, LABELS]
    recipe = _adapter(base, tmp_path / "r.yaml", {"questions": said, "held_out": []})
    train = read_questions(recipe.questions, data, 0)
    pupil = build_pupil(recipe, train)
    arguments = make_arguments(recipe.train, tmp_path, seed=0, evaluated=False, progress=False, stop_after=None)
    with looking(recipe, pupil, train, train) as (asked, _):
        trainer = LanguageTrainer(pupil, arguments, asked, asked, recipe=recipe.train)
        pupil.network.eval()
        whole = asked.__getitems__(list(range(6)))
        with torch.no_grad():
            wanted = pupil.network(**whole).loss  # all of the sequence, shifted by the library
            counted = trainer._get_num_items_in_batch([whole], trainer.args.device)
            parts = [asked.__getitems__(indices) for indices in ([0], [1, 2, 3], [4, 5])]
            given = sum(trainer.compute_loss(pupil.network, part, num_items_in_batch=counted) for part in parts)
    assert int(counted) == int((whole["labels"] != IGNORED).sum()) > 12
    assert given.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_questions_about_objects_are_true(data: Path) -> None:
    source = QuestionSource(kind="objects", file="photos.parquet", per_picture=4)
    found = {(q.picture, q.text): q.answer for q in read_questions([source], data, 0).questions}
    assert found[0, "Is there a dog in the image?"] == "yes"
    assert found[0, "How many dogs are in the image?"] == "2"
    assert found[0, "Is there a cat in the image?"] == "no"
    assert found[1, "Is there a dog in the image?"] == "no"
    assert found[1, "How many dogs are in the image?"] == "0"


def test_what_cannot_be_trained_is_said(base: Path, vit: Path, data: Path, tmp_path: Path) -> None:
    described = {"kind": "captions", "file": "photos.parquet", "question": "Describe the image."}
    few = _recipe(tmp_path / "few.yaml", _small(vit), questions=[described])
    with pytest.raises(DataError, match="2 questions"):
        finetune_language(few, data, tmp_path / "few", progress=False)
    source = QuestionSource(kind="labels", file="train.parquet", question=ASK, answers={"across": "0"})
    with pytest.raises(DataError, match="down"):
        read_questions([source], data, 0)
    recipe = _adapter(base, tmp_path / "r.yaml")
    train = read_questions(recipe.questions, data, 0)
    wrong = _recipe(tmp_path / "w.yaml", {"start": str(base)}, adapter={"targets": "nothing"})
    with pytest.raises(RecipeError, match=r"adapter\.targets"):
        build_pupil(wrong, train)
    for changes, word in (
        ({"adapter.targets": TOWER, "pictures": "features"}, "trains the vision tower"),
        ({"pictures": "processor", "flipped": True}, "leave flipped out"),
        ({"pictures": "processor", "augment": {}}, "leave out pictures"),
        ({"augment": {"mixup": 0.5}}, "cannot be mixed"),
        ({"augment": {}, "flipped": True}, "either flipped or augment"),
        ({"model.train_tower": True}, "adapter.targets say"),
    ):
        with pytest.raises(RecipeError, match=word):
            wrong = _adapter(base, tmp_path / "w.yaml", changes)
            choose_way(wrong, build_pupil(wrong, train))
    with pytest.raises(RecipeError, match="start"):
        build_pupil(_recipe(tmp_path / "w.yaml", {"start": str(tmp_path)}), train)
