"""Early stopping: it ends in time, keeps the best weights, and a killed run comes to the same end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.stripes import write_stripes
from training.errors import RecipeError
from training.finetune import finetune
from training.recipe import Recipe
from training.stopping import BEST, EarlyStopping


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class _Counted(nn.Module):
    """A frozen weight, a trained one and a buffer, all of them holding the number of the step."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)
        self.trained = nn.Parameter(torch.zeros(2, 3))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def at(self, step: int) -> _Counted:
        for tensor in self.state_dict().values():
            tensor.fill_(step)
        return self


def test_it_waits_and_gives_back_the_best_weights() -> None:
    stopping, model = EarlyStopping(2), _Counted()
    over = []
    for step, loss in enumerate([1.0, 0.8, 0.9, 0.7, 0.7, float("nan")], start=1):
        stopping.take(model.at(step), step, loss)
        over.append(stopping.over)
    assert over == [False] * 5 + [True]  # an equal loss is no lower one, and no number is none either
    assert (stopping.best_step, stopping.best_loss) == (4, 0.7)
    assert stopping.restore(model.at(9))
    assert (model.trained.unique().tolist(), model.seen.item()) == ([4.0], 4)
    assert model.frozen.unique().tolist() == [9.0]  # not trained, so not kept


def test_it_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    stopping, model = EarlyStopping(2), _Counted()
    stopping.take(model.at(1), 1, 0.5)
    stopping.take(model.at(2), 2, 0.6)
    stopping.save(tmp_path)
    assert set(load_file(tmp_path / BEST)) == {"trained", "seen"}
    resumed = EarlyStopping(2)
    resumed.load(tmp_path)
    resumed.take(model.at(3), 3, 0.55)
    assert resumed.over
    assert resumed.restore(model)
    assert (resumed.best_step, model.seen.item()) == (1, 1)


def test_without_patience_nothing_is_kept(tmp_path: Path) -> None:
    stopping, model = EarlyStopping(None), _Counted()
    for step in (1, 2, 3):
        stopping.take(model.at(step), step, float(step))
    stopping.save(tmp_path)
    assert not stopping.over
    assert not stopping.restore(model)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def contrary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder whose held-out pictures bear the opposite labels: whatever is learnt makes their loss rise."""
    folder = tmp_path_factory.mktemp("contrary")
    write_stripes(folder / "train.parquet", 64)
    write_stripes(folder / "validation.parquet", 16, ("real", "fake"), seed=1)
    return folder


def _recipe(**train: object) -> Recipe:
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    schedule = {"epochs": 9, "batch_size": 16, "learning_rate": 0.01, "checkpoint_steps": 2, "patience": 3}
    return Recipe.model_validate(
        {
            "name": "contrary",
            "labels": ["fake", "real"],
            "model": {"architecture": "resnet", "config": sizes},
            "image": {"size": 32, "crop": 32},
            "train": schedule | train,
        }
    )


@pytest.mark.parametrize("average", [None, 0.6])
def test_a_run_stops_keeps_the_best_and_resumes_to_the_same_end(
    average: float | None, contrary: Path, tmp_path: Path
) -> None:
    recipe = _recipe(ema_decay=average)
    metrics = finetune(recipe, contrary, tmp_path / "whole", progress=False)
    losses = {entry["step"]: entry["eval_loss"] for entry in metrics["history"] if "eval_loss" in entry}
    best = min(losses, key=lambda step: losses[step])
    assert metrics["kept_step"] == best
    assert metrics["steps"] == best + 3 * 4 < 9 * 4  # three more epochs of four steps
    assert metrics["validation"]["loss"] == pytest.approx(losses[best], rel=1e-6)
    assert losses[metrics["steps"]] > losses[best]
    # A checkpoint of an epoch's last step knows that epoch's evaluation.
    (tmp_path / "run").mkdir()
    shutil.copy(tmp_path / "whole" / "recipe.yaml", tmp_path / "run")
    checkpoints = sorted(
        (tmp_path / "whole").glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2])
    )
    shutil.copytree(checkpoints[0], tmp_path / "run" / checkpoints[0].name)
    resumed = finetune(recipe, contrary, tmp_path / "run", resume=True, progress=False)
    assert (resumed["kept_step"], resumed["steps"]) == (metrics["kept_step"], metrics["steps"])
    left, right = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["kept_step"] == best


def test_evaluations_may_be_a_number_of_steps_apart(contrary: Path, tmp_path: Path) -> None:
    metrics = finetune(_recipe(evaluate_steps=3, epochs=2, patience=None), contrary, tmp_path / "run", progress=False)
    assert [entry["step"] for entry in metrics["history"] if "eval_loss" in entry] == [3, 6, 8]


def test_patience_needs_something_to_measure_by(contrary: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shutil.copy(contrary / "train.parquet", tmp_path / "data")
    with pytest.raises(RecipeError, match=r"train.patience: needs held-out data"):
        finetune(_recipe(), tmp_path / "data", tmp_path / "run", progress=False)
