"""Training for real on tiny models: it learns, survives a kill to the last bit, and a student follows its teacher."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForImageClassification, ViTConfig, ViTForImageClassification

from tests.stripes import write_stripes
from training.__main__ import main
from training.checkpoints import MARKER, RunningAverage, find_latest_checkpoint
from training.errors import DataError, RecipeError, RunError
from training.finetune import build_learner, finetune
from training.initialise import OFFSETS_RC, start_like_convolution
from training.recipe import Recipe, read_recipe

ROOT = Path(__file__).parents[1]
RESNET = {
    "architecture": "resnet",
    "config": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
}
VIT = {
    "architecture": "vit",
    "config": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 32,
        "patch_size": 8,
    },
}


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder: 64 pictures to train on, 20 held out."""
    folder = tmp_path_factory.mktemp("stripes")
    write_stripes(folder / "train.parquet", 64)
    write_stripes(folder / "validation.parquet", 20, seed=1)
    return folder


def _write_recipe(path: Path, model: dict[str, object], **changes: object) -> Recipe:
    content = {
        "name": "tiny",
        "labels": ["fake", "real"],
        "model": model,
        "image": {"size": 32, "crop": 32},
        "augment": {"shift": 2, "noise": 0.5, "mixup": 0.2, "cutmix": 0.2},
        "train": {"epochs": 3, "batch_size": 16, "learning_rate": 0.01, "ema_decay": 0.8, "checkpoint_steps": 5},
    }
    path.write_text(yaml.safe_dump(content))
    return read_recipe(path, changes)


def test_a_run_learns_and_leaves_everything_needed(stripes: Path, tmp_path: Path) -> None:
    recipe = _write_recipe(tmp_path / "r.yaml", RESNET, **{"train.epochs": 8})
    metrics = finetune(recipe, stripes, tmp_path / "run", progress=False)
    assert metrics["steps"] == 8 * 4
    assert metrics["validation"]["accuracy"] >= 0.9
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "run", use_safetensors=True)
    assert model.config.id2label == {0: "fake", 1: "real"}
    assert dict(AutoImageProcessor.from_pretrained(tmp_path / "run").size) == {"height": 32, "width": 32}
    assert read_recipe(tmp_path / "run" / "recipe.yaml") == recipe
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["validation"] == metrics["validation"]
    assert Image.open(tmp_path / "run" / "loss.png").size[0] > 300


def _start(recipe: Path, data: Path, run: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "training", "finetune", "--recipe", str(recipe), "--data", str(data)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("wb") as shown:
        return subprocess.Popen(
            [*command, "--out", str(run), "--threads", "1", "--resume"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=shown,
        )


def _kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not ready():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def _last_step(log: Path) -> int:
    """The last step that the run has shown as done."""
    return max((int(step) for step in re.findall(r"^step (\d+)/", log.read_text(), re.MULTILINE)), default=0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in one order, so that runs can be compared bit by bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_a_run_killed_again_and_again_loses_at_most_an_interval_and_ends_the_same(
    stripes: Path, tmp_path: Path
) -> None:
    # 100 steps, so that each is shown; 7 steps end within an epoch of 4. Weights large enough to be caught in writing.
    wide = RESNET | {"config": RESNET["config"] | {"hidden_sizes": [8, 400]}}  # type: ignore[operator]
    changes = {"train.epochs": 25, "train.checkpoint_steps": 7, "train.patience": 25}
    recipe = _write_recipe(tmp_path / "r.yaml", wide, **changes)
    changed, run, log = tmp_path / "long.yaml", tmp_path / "run", tmp_path / "log.txt"
    changed.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    for is_time in (
        (run / "checkpoint-7").exists,  # while its first checkpoint is written
        lambda: _last_step(log) >= 17,  # between two checkpoints
        (run / "checkpoint-28").exists,  # while a later one is written, or an older one removed
    ):
        process = _start(changed, stripes, run, log)
        _kill_when(process, is_time)
        assert not (run / "metrics.json").exists()
        done, kept = _last_step(log), find_latest_checkpoint(run, discard=False)
        assert done - (int(kept.name.rpartition("-")[2]) if kept else 0) <= 7
    resumed = finetune(recipe, stripes, run, resume=True, progress=False)
    whole = finetune(recipe, stripes, tmp_path / "whole", progress=False)
    assert resumed["steps"] == whole["steps"] == 100
    assert resumed["kept_step"] == whole["kept_step"]
    left, right = load_file(run / "model.safetensors"), load_file(tmp_path / "whole" / "model.safetensors")
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_too_few_pictures_for_a_batch_are_refused(stripes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="64 pictures to learn from do not fill one batch of 65"):
        finetune(_write_recipe(tmp_path / "r.yaml", RESNET, **{"train.batch_size": 65}), stripes, tmp_path / "run")


def test_a_half_written_checkpoint_is_passed_over(tmp_path: Path) -> None:
    for step, files in ((5, [MARKER, "model.safetensors"]), (10, ["model.safetensors", "trainer_state.json"])):
        (tmp_path / f"checkpoint-{step}").mkdir()
        for file in files:
            (tmp_path / f"checkpoint-{step}" / file).touch()
    assert find_latest_checkpoint(tmp_path, discard=False) == tmp_path / "checkpoint-5"
    assert (tmp_path / "checkpoint-10").exists()
    assert find_latest_checkpoint(tmp_path) == tmp_path / "checkpoint-5"
    assert not (tmp_path / "checkpoint-10").exists()


def test_a_folder_with_a_run_is_never_overwritten(stripes: Path, tmp_path: Path) -> None:
    recipe = _write_recipe(tmp_path / "r.yaml", RESNET)
    finetune(recipe, stripes, tmp_path / "run", progress=False, stop_after=2)
    with pytest.raises(RunError, match="holds a run already"):
        finetune(recipe, stripes, tmp_path / "run")
    with pytest.raises(RunError, match="is finished"):
        finetune(recipe, stripes, tmp_path / "run", resume=True)
    other = _write_recipe(tmp_path / "other.yaml", RESNET, seed=5)
    with pytest.raises(RunError, match="recipe differs"):
        finetune(other, stripes, tmp_path / "run", resume=True)


def test_a_start_keeps_its_own_labels_and_processor(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    recipe = _write_recipe(tmp_path / "r.yaml", {"start": str(tiny_folders["vit"])}, labels=["a", "b"])
    learner = build_learner(recipe)
    assert learner.classifier.config.id2label == {0: "fake", 1: "real"}
    assert next(learner.classifier.parameters()).dtype == torch.float32


def test_pickled_weights_are_not_a_start(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_bytes((tiny_folders["vit"] / "config.json").read_bytes())
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(RecipeError, match="pickled"):
        build_learner(_write_recipe(tmp_path / "r.yaml", {"start": str(folder)}))


def test_a_student_learns_from_its_teacher_and_is_saved_without_its_head(
    stripes: Path, tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    distill = {"teacher": str(tiny_folders["resnet"]), "patches": 1.0, "labels": 0.0, "features": 1.0}
    changes = {"distill": distill, "train.epochs": 15, "train.optimizer": "muon", "train.learning_rate": 0.003}
    wide = {"hidden_size": 64, "num_attention_heads": 2}  # room for the channels of the position
    model = {"architecture": "vit", "config": VIT["config"] | wide, "start_like_convolution": True}
    recipe = _write_recipe(tmp_path / "r.yaml", model, **changes)
    metrics = finetune(recipe, stripes, tmp_path / "run", progress=False)
    losses = [entry["loss"] for entry in metrics["history"] if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]
    model, report = AutoModelForImageClassification.from_pretrained(tmp_path / "run", output_loading_info=True)
    assert type(model).__name__ == "ViTForImageClassification"
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


@pytest.mark.usefixtures("one_thread")
def test_muon_continues_from_a_checkpoint_to_the_last_bit(stripes: Path, tmp_path: Path) -> None:
    recipe = _write_recipe(tmp_path / "r.yaml", VIT, **{"train.optimizer": "muon", "train.checkpoint_steps": 7})
    finetune(recipe, stripes, tmp_path / "whole", progress=False)
    (tmp_path / "run").mkdir()
    shutil.copy(tmp_path / "whole" / "recipe.yaml", tmp_path / "run")
    shutil.copytree(tmp_path / "whole" / "checkpoint-7", tmp_path / "run" / "checkpoint-7")
    finetune(recipe, stripes, tmp_path / "run", resume=True, progress=False)
    left, right = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_an_unusable_teacher_is_named(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    nowhere = {"teacher": "nowhere/at-all/here"}
    with pytest.raises(RecipeError, match="nowhere/at-all/here"):
        build_learner(_write_recipe(tmp_path / "r.yaml", VIT, distill=nowhere))
    without_map = {"teacher": str(tiny_folders["vit"]), "patches": 1.0}
    with pytest.raises(RecipeError, match="no class map"):
        build_learner(_write_recipe(tmp_path / "r.yaml", VIT, distill=without_map))


def test_a_student_that_says_what_its_teacher_says_has_no_loss(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    distill = {"teacher": str(tiny_folders["resnet"]), "patches": 1.0, "labels": 0.0, "temperature": 2.0}
    teacher = build_learner(_write_recipe(tmp_path / "r.yaml", VIT, distill=distill)).teacher
    assert teacher is not None
    resnet = AutoModelForImageClassification.from_pretrained(tiny_folders["resnet"]).eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        said = resnet(pixel_values=pixels, output_hidden_states=True)
    cells = said.hidden_states[-1].flatten(2).transpose(1, 2)
    map_logits = resnet.classifier(cells.reshape(-1, cells.shape[-1], 1, 1)).view(2, cells.shape[1], 2)
    prefix = torch.full((2, 1, 2), 9.0)  # what a CLS token says must not count
    outputs = {"logits": said.logits, "patch_logits": torch.cat([prefix, map_logits], 1)}
    assert teacher.loss(pixels, torch.eye(2), outputs).item() == pytest.approx(0, abs=1e-6)
    outputs["patch_logits"] = outputs["patch_logits"].flip(2)
    assert teacher.loss(pixels, torch.eye(2), outputs).item() > 0.01


def test_hints_that_foretell_the_teachers_features_have_no_loss(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    distill = {"teacher": str(tiny_folders["resnet"]), "logits": 0.0, "labels": 0.0, "features": 2.0}
    teacher = build_learner(_write_recipe(tmp_path / "r.yaml", VIT, distill=distill)).teacher
    assert teacher is not None
    resnet = AutoModelForImageClassification.from_pretrained(tiny_folders["resnet"]).eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = resnet(pixel_values=pixels, output_hidden_states=True).hidden_states[-len(teacher.hint_channels) :]
    hints = []
    for channels, features in zip(teacher.hint_channels, maps, strict=True):
        cells = features.flatten(2).transpose(1, 2)
        assert cells.shape[2] == channels
        hints.append((cells - cells.mean((0, 1))) / (cells.std((0, 1)) + 1e-3))
    outputs = {"logits": torch.zeros(2, 2), "hints": hints}
    assert teacher.loss(pixels, torch.eye(2), outputs).item() == pytest.approx(0, abs=1e-5)
    outputs["hints"] = [hints[0] + 3.0, *hints[1:]]  # smooth L1 of 3 is 2.5
    assert teacher.loss(pixels, torch.eye(2), outputs).item() == pytest.approx(2 * 2.5, abs=1e-3)


def test_a_batch_in_parts_takes_the_same_steps_as_a_whole_one(stripes: Path, tmp_path: Path) -> None:
    changes = {"augment": {"flip": 0.0}, "train.epochs": 1, "train.batch_size": 16, "train.learning_rate": 0.001}
    for name, parts in (("whole", None), ("parts", 4)):
        recipe = _write_recipe(tmp_path / f"{name}.yaml", VIT, **changes, **{"train.micro_batch": parts})
        assert finetune(recipe, stripes, tmp_path / name, progress=False)["steps"] == 4
    left, right = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.allclose(left[name], right[name], atol=1e-4) for name in left)


def test_a_vit_starts_like_a_convolution() -> None:
    config = ViTConfig(
        hidden_size=128, num_attention_heads=4, image_size=64, patch_size=8, num_hidden_layers=2, intermediate_size=64
    )
    torch.manual_seed(0)
    model = ViTForImageClassification._from_config(config, attn_implementation="eager").eval()
    noise = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 255
    pixels = torch.nn.functional.interpolate(noise, (64, 64), mode="bilinear").to(torch.uint8)
    half = torch.full((1, 3, 1, 1), 0.5)
    start_like_convolution(model, pixels, half, half, seed=0)
    inputs = (pixels.float() / 255 - 0.5) / 0.5
    rows = model.vit.embeddings.patch_embeddings.projection(inputs).flatten(2).transpose(1, 2).flatten(0, 1)
    assert torch.allclose(rows[:, :4].mean(0), torch.zeros(4), atol=0.02)
    assert torch.allclose(rows[:, :4].std(0), torch.full((4,), 0.5), atol=0.02)  # the gain
    assert not rows[:, -24:].any()  # the channels of the position
    row, column, side = 4, 3, 8
    with torch.no_grad():
        for attention in model(inputs[:2], output_attentions=True).attentions:
            for head, (down, right) in enumerate(OFFSETS_RC):
                looked_at = int(attention[0, head, 1 + row * side + column, 1:].argmax())
                assert divmod(looked_at, side) == (row + down, column + right)


def test_a_model_too_narrow_for_the_positions_is_refused() -> None:
    model = ViTForImageClassification(ViTConfig(**VIT["config"]))  # type: ignore[arg-type]
    half = torch.full((1, 3, 1, 1), 0.5)
    with pytest.raises(RecipeError, match="hidden_size"):
        start_like_convolution(model, torch.zeros(4, 3, 32, 32, dtype=torch.uint8), half, half, seed=0)


def test_the_average_is_in_place_only_within_the_block() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.0)
    average = RunningAverage(layer, decay=0.75)
    average.update()  # the first step starts the average
    with torch.no_grad():
        layer.weight.fill_(8.0)
    average.update()
    with average.in_place():
        assert layer.weight.item() == pytest.approx(2.0)
    assert layer.weight.item() == 8.0


def test_command_says_in_one_line_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write_recipe(tmp_path / "r.yaml", RESNET)
    arguments = ["finetune", "--recipe", str(tmp_path / "r.yaml"), "--data", str(tmp_path), "--out"]
    assert main([*arguments, str(tmp_path / "run")]) == 2
    assert "python -m training prepare" in capsys.readouterr().err.splitlines()[-1]


def test_a_teacher_sees_pictures_at_its_own_size_and_the_student_the_same_made_smaller(
    stripes: Path, tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    distill = {"teacher": str(tiny_folders["resnet"]), "size": 48}
    recipe = _write_recipe(tmp_path / "r.yaml", VIT, distill=distill, **{"image.resample": "bilinear"})
    learner = build_learner(recipe)
    assert (learner.processor.size["height"], learner.processor.resample) == (recipe.image.size, 2)
    assert (learner.training_processor.size["height"], learner.training_processor.resample) == (48, 2)
    large = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    side = recipe.image.crop
    small = torch.nn.functional.interpolate(large, (side, side), mode="bilinear", antialias=True)
    learner.module.eval()
    torch.testing.assert_close(learner.module(large)["logits"], learner.module(small)["logits"])
    shapes: list[tuple[str, int]] = []
    learner.teacher._model.register_forward_pre_hook(
        lambda _, __, given: shapes.append(("teacher", given["pixel_values"].shape[-1])), with_kwargs=True
    )
    learner.classifier.register_forward_pre_hook(
        lambda _, __, given: shapes.append(("student", given["pixel_values"].shape[-1])), with_kwargs=True
    )
    outputs = learner.module(large)
    learner.teacher.loss(large, torch.eye(2), outputs)
    assert shapes == [("student", side), ("teacher", 48)]
    finetune(recipe, stripes, tmp_path / "run", progress=False)
    assert AutoImageProcessor.from_pretrained(tmp_path / "run").size["height"] == recipe.image.size
