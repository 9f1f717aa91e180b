"""Images and tokens per second, counted with a clock that the test winds, and what a run shows while it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from tests.stripes import write_stripes
from training import progress
from training.errors import RunError
from training.finetune import finetune
from training.progress import Throughput
from training.recipe import Recipe


class _Reader(nn.Module):
    def forward(self, **_: Tensor) -> None:
        """Takes whatever it is given."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until the test moves it."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress, "perf_counter", lambda: clock.now)
    return clock


def test_only_training_is_counted(clock: SimpleNamespace) -> None:
    throughput, model = Throughput(), _Reader()
    assert throughput.figures() == {}
    throughput.on_train_begin(model=model)
    for _ in range(2):  # two micro-batches of three in one step of four seconds
        model(pixel_values=torch.zeros(3, 3, 8, 8))
        clock.now += 2
    throughput.on_step_end()
    assert throughput.figures() == {"images_per_second": 1.5}
    clock.now += 50  # an evaluation of 50 seconds
    model.eval()(pixel_values=torch.zeros(9, 3, 8, 8))
    throughput.on_evaluate()
    clock.now += 7  # a checkpoint of 7
    throughput.on_save()
    clock.now += 1
    model.train()(pixel_values=torch.zeros(4, 3, 8, 8))
    throughput.on_step_end()
    assert throughput.figures() == {"images_per_second": 2.0}  # 10 pictures in 5 seconds
    throughput.on_train_end()
    model(pixel_values=torch.zeros(9, 3, 8, 8))
    assert throughput.images == 10


def test_tokens_are_counted_without_padding_and_images_by_rows(clock: SimpleNamespace) -> None:
    throughput, model = Throughput(), _Reader()
    throughput.on_train_begin(model=model)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    model(input_ids=torch.zeros(2, 4), attention_mask=mask, pixel_values=torch.zeros(37, 5))  # patches, not pictures
    model(input_ids=torch.zeros(1, 3))
    clock.now += 4
    throughput.on_step_end()
    assert throughput.figures() == {"images_per_second": 0.75, "tokens_per_second": 2.5}


def _recipe(**train: object) -> Recipe:
    sizes = {"embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic"}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "labels": ["fake", "real"],
            "model": {"architecture": "resnet", "config": sizes},
            "image": {"size": 32, "crop": 32},
            "train": {"epochs": 2, "batch_size": 8, "learning_rate": 0.01} | train,
        }
    )


def test_a_run_shows_loss_and_speed_on_standard_error_and_writes_them_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stripes(tmp_path / "train.parquet", 18)
    metrics = finetune(_recipe(), tmp_path, tmp_path / "run")
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = [line for line in shown.err.splitlines() if line.startswith("step 4/4")]
    loss, speed = (entry[key] for entry in metrics["history"][-1:] for key in ("loss", "images_per_second"))
    assert line == f"step 4/4: loss {loss:.4g}, {speed:.4g} images/s"
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert written["images_per_second"] == metrics["images_per_second"] > 0
    assert "tokens_per_second" not in written
    assert written["estimated_memory"]["total"] > 0
    # Four steps of eight pictures took no longer than training did; the two pictures left over are not trained on.
    assert metrics["images_per_second"] >= 4 * 8 / (metrics["seconds_since_resume"] + 0.1)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    write_stripes(tmp_path / "train.parquet", 16)
    with pytest.raises(RunError, match=r"the loss is (nan|inf) at step \d; give a smaller train.learning_rate"):
        finetune(_recipe(learning_rate=1e30, warmup=0), tmp_path, tmp_path / "run", progress=False)
