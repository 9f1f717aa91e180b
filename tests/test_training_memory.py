"""The memory of a run, told before it starts: by hand for a linear layer, and against what a step really holds."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer

from training import memory
from training.errors import RunError
from training.memory import PeakMemory, check_memory, estimate_memory
from training.recipe import TrainRecipe
from training.trainer import checkpoint_activations, make_arguments


class _Rows(Dataset[dict[str, Tensor]]):
    def __init__(self, width: int, count: int = 64) -> None:
        self._rows = torch.randn(count, width, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"rows": self._rows[index]}


class _Linear(nn.Module):
    """10 to 20 without bias, a BatchNorm and a frozen linear layer; the loss is the mean square."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(10, 20, bias=False)
        self.norm = nn.BatchNorm1d(20)
        self.frozen = nn.Linear(20, 5).requires_grad_(requires_grad=False)

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        return {"loss": self.frozen(torch.nn.functional.dropout(self.norm(self.one(rows)))).square().mean()}


def _trainer(model: nn.Module, out: Path, data: Dataset[dict[str, Tensor]], train: TrainRecipe) -> Trainer:
    arguments = make_arguments(train, out, seed=0, evaluated=False, progress=False, stop_after=1)
    return Trainer(model, arguments, train_dataset=data)


def test_bytes_alive_are_counted_while_they_live() -> None:
    given = torch.ones(1000, requires_grad=True)
    with PeakMemory() as counted:
        double = given * 2
        square = double * double
        total = square.sum()
        del square
        assert counted.bytes == 4000 + 4  # `double` and the sum
        assert counted.peak == 8000 + 4
        double.view(10, 100).mul_(1.0)  # a view, and in place: nothing new
        assert counted.bytes == 4000 + 4
        del double
        assert counted.bytes == 4000 + 4  # the graph keeps it for the backward pass
        del total
    assert counted.bytes == 0


@pytest.mark.parametrize(
    ("changes", "optimizer", "average"),
    [({}, 2, 0), ({"ema_decay": 0.9}, 2, 1), ({"optimizer": "paged_adamw_8bit"}, 2, 0)],
)
def test_what_is_certain_is_counted_by_hand(
    changes: dict[str, object], optimizer: int, average: int, tmp_path: Path
) -> None:
    train = TrainRecipe.model_validate({"epochs": 1, "learning_rate": 0.1, "batch_size": 8} | changes)
    estimate = estimate_memory(_trainer(_Linear(), tmp_path, _Rows(10), train), train)
    trained = 4 * (10 * 20 + 2 * 20)
    weights = trained + 4 * (20 * 5 + 5) + 4 * 2 * 20 + 8  # frozen layer; BatchNorm's statistics and its counter
    assert (estimate.weights, estimate.gradients) == (weights, trained)
    assert (estimate.optimizer, estimate.average) == (optimizer * trained, average * weights)
    assert estimate.total == weights + trained * (1 + optimizer) + average * weights + estimate.activations


def test_eight_bits_hold_a_byte_per_number_and_a_scale_per_block() -> None:
    train = TrainRecipe(epochs=1, learning_rate=0.1, optimizer="paged_adamw_8bit")
    gpu = torch.device("cuda")
    small, large = (nn.Parameter(torch.empty(count, device="meta")) for count in (4095, 4097))
    assert memory._state_bytes("w", small, train, gpu) == 2 * 4 * 4095
    assert memory._state_bytes("w", large, train, gpu) == 2 * (4097 + 4 * 17)
    muon = train.model_copy(update={"optimizer": "muon"})
    matrix, vector = (nn.Parameter(torch.empty(shape, device="meta")) for shape in ((8, 8), (8,)))
    assert memory._state_bytes("encoder.layer.0.w", matrix, muon, gpu) == 4 * 64
    assert memory._state_bytes("encoder.layer.0.w", vector, muon, gpu) == 2 * 4 * 8


def test_estimating_leaves_model_and_chance_as_they_were(tmp_path: Path) -> None:
    train = TrainRecipe(epochs=1, learning_rate=0.1, batch_size=8)
    trainer = _trainer(_Linear().eval(), tmp_path, _Rows(10), train)
    kept = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    estimate_memory(trainer, train)
    assert torch.equal(torch.rand(4), wanted)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in trainer.model.state_dict().items())
    assert all(weight.grad is None for weight in trainer.model.parameters())
    assert not trainer.model.training


class _Texts(_Rows):
    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": torch.arange(32) + index, "labels": torch.tensor(index % 2)}


def _bert() -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=128, hidden_size=64, num_hidden_layers=4, num_attention_heads=2, intermediate_size=256
    )
    return BertForSequenceClassification(config)


def test_activations_of_a_large_batch_are_foretold_from_a_few_rows(tmp_path: Path) -> None:
    train = TrainRecipe(epochs=1, learning_rate=0.1, batch_size=24)
    trainer = _trainer(_bert(), tmp_path, _Texts(8), train)
    foretold = estimate_memory(trainer, train).activations
    held = memory._measure_pass(trainer, range(24))
    assert foretold == pytest.approx(held, rel=0.03)
    small = estimate_memory(trainer, train.model_copy(update={"micro_batch": 4})).activations
    assert small == memory._measure_pass(trainer, range(4))  # so few are not extrapolated


def test_gradient_checkpointing_needs_less_and_the_estimate_knows(tmp_path: Path) -> None:
    train = TrainRecipe(epochs=1, learning_rate=0.1, batch_size=8)
    model = _bert()
    plain = estimate_memory(_trainer(model, tmp_path, _Texts(8), train), train).activations
    checkpoint_activations(model)
    assert estimate_memory(_trainer(model, tmp_path, _Texts(8), train), train).activations < 0.5 * plain


def test_a_run_that_cannot_fit_is_refused_and_one_that_may_not_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train = TrainRecipe(epochs=1, learning_rate=0.1, batch_size=8)
    trainer = _trainer(_bert(), tmp_path, _Texts(8), train)
    estimate = estimate_memory(trainer, train)
    monkeypatch.setattr(memory, "free_bytes", lambda _: estimate.certain - 1)
    with pytest.raises(RunError, match=r"besides the weights, .* are free on this machine; train an adapter"):
        check_memory(trainer, train)
    monkeypatch.setattr(memory, "free_bytes", lambda _: estimate.certain + estimate.activations - 1)
    with caplog.at_level(logging.INFO):
        assert check_memory(trainer, train) == estimate
    assert "may run out of memory" in caplog.text
    assert "train.micro_batch below 8" in caplog.text
    caplog.clear()
    monkeypatch.setattr(memory, "free_bytes", lambda _: estimate.certain + estimate.activations)
    with caplog.at_level(logging.INFO):
        check_memory(trainer, train)
    assert f"activations of 8 at once {estimate.activations / 1e6:.1f} MB" in caplog.text
    assert "may run out" not in caplog.text
