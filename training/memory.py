"""What a training run will take, told before it starts: counted from the weights, measured on a few rows of a batch."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader
from transformers import Trainer

from models.memory import free_bytes
from training.errors import RunError
from training.optimizer import is_muons
from training.recipe import TrainRecipe

logger = logging.getLogger(__name__)

__all__ = ["MemoryEstimate", "PeakMemory", "check_memory", "estimate_memory"]

MEASURED_ROWS = 4
"""A micro-batch of more rows is extrapolated from so many and half as many."""
EIGHT_BIT_FROM, EIGHT_BIT_BLOCK = 4096, 256
"""bitsandbytes keeps the state of smaller weights in float32, and of others a byte per number and a scale per block."""


class PeakMemory(TorchDispatchMode):
    """Within the block, counts the bytes of all tensors that operations make, and the most of them alive at once.

    The same on every device, and exact for tensors; scratch space inside an operation and what an allocator wastes are
    not seen. Tensors that were there before are not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Do what was asked, and count what came out."""
        before = {_storage(tensor) for tensor in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            key = _storage(tensor)
            if key not in before and key not in self._alive:
                self._add(key, tensor.untyped_storage())
        return result

    def _add(self, key: int, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self._alive.add(key)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        finalize(storage, self._remove, key, size).atexit = False

    def _remove(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.bytes -= size


def _tensors(values: object) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training takes at its fullest moment, on the device that trains.

    Attributes:
        weights: of the model as it is loaded, quantised weights as they are kept.
        gradients: one number for each weight that is trained.
        optimizer: what the optimiser remembers for each of them.
        average: the running average of the weights, if one is kept.
        activations: the most that the forward and backward pass hold besides, for one micro-batch; measured on a few
            rows and extended linearly where it has more.
        rows: of that micro-batch.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    rows: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.certain + self.activations

    @property
    def certain(self) -> int:
        """What comes to the weights whatever the batch holds."""
        return self.gradients + self.optimizer + self.average

    def __str__(self) -> str:
        """One line that says what was counted."""
        parts = {"weights": self.weights, "gradients": self.gradients, "optimiser": self.optimizer}
        if self.average:
            parts["running average"] = self.average
        parts[f"activations of {self.rows} at once"] = self.activations
        return f"{_size(self.total)}: " + ", ".join(f"{name} {_size(value)}" for name, value in parts.items())

    def to_json(self) -> dict[str, int]:
        """For ``metrics.json``, in bytes."""
        return asdict(self) | {"total": self.total}


def check_memory(trainer: Trainer, train: TrainRecipe, *, examples: Sequence[int] | None = None) -> MemoryEstimate:
    """Estimate the memory of a run, say it, and refuse what cannot fit. Call it right before ``trainer.train()``.

    What is certain is refused. Activations may be extrapolated, so they are only warned of.

    Args:
        trainer: ready to train, its model on the device.
        train: optimiser, running average and sizes of batches.
        examples: as for ``estimate_memory``.

    Raises:
        RunError: gradients, optimiser and average alone need more than is free, or the measured rows did.
    """
    device = trainer.args.device
    free = free_bytes(device)
    place = "on the GPU" if device.type == "cuda" else "on this machine"
    certain = _count(trainer.model, train, device).certain
    if certain > free:
        raise RunError(
            f"training needs {_size(certain)} besides the weights, and {_size(free)} are free {place}; train an "
            "adapter, choose a smaller model, or the train.optimizer paged_adamw_8bit on a GPU."
        )
    estimate = estimate_memory(trainer, train, examples=examples)
    needed = estimate.total - estimate.weights
    logger.info("memory: %s; %s free %s", estimate, _size(free), place)
    if needed > free:
        logger.warning(
            "training may run out of memory: it needs about %s besides the weights; %s",
            _size(needed),
            _remedy(estimate),
        )
    return estimate


def estimate_memory(trainer: Trainer, train: TrainRecipe, *, examples: Sequence[int] | None = None) -> MemoryEstimate:
    """What a Trainer's run takes; the model and all random states stay as they are.

    Args:
        trainer: ready to train, its model on the device.
        train: optimiser, running average and sizes of batches.
        examples: indices of training examples to measure with, the longest ones; the first ones if not given.

    Raises:
        RunError: the GPU's memory does not do for the measured rows.
    """
    counted = _count(trainer.model, train, trainer.args.device)
    available = list(examples or range(min(counted.rows, len(trainer.train_dataset))))
    most = min(counted.rows, len(available), MEASURED_ROWS)
    try:
        activations = _measure_pass(trainer, available[:most])
        if most < counted.rows:
            fewer = max(1, most // 2)
            rest = _measure_pass(trainer, available[:fewer])
            per_row = (activations - rest) / (most - fewer) if most > fewer else activations
            activations += int(per_row * (counted.rows - most))
    except torch.OutOfMemoryError as error:
        raise RunError(f"the GPU's memory does not do for {most} rows at once; {_remedy(counted)}.") from error
    return replace(counted, activations=activations)


def _count(model: nn.Module, train: TrainRecipe, device: torch.device) -> MemoryEstimate:
    """All but the activations."""
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    weights = sum(_bytes(tensor) for tensor in itertools.chain(model.parameters(), model.buffers()))
    return MemoryEstimate(
        weights=weights,
        gradients=sum(_bytes(weight) for _, weight in trained),
        optimizer=sum(_state_bytes(name, weight, train, device) for name, weight in trained),
        average=weights if train.ema_decay is not None else 0,
        activations=0,
        rows=train.micro_batch or train.batch_size,
    )


def _state_bytes(name: str, weight: nn.Parameter, train: TrainRecipe, device: torch.device) -> int:
    """What the optimiser remembers of one weight: two moments, with Muon one."""
    if train.optimizer == "muon" and is_muons(name, weight):
        return _bytes(weight)
    if train.optimizer == "paged_adamw_8bit" and device.type == "cuda" and weight.numel() >= EIGHT_BIT_FROM:
        return 2 * (weight.numel() + 4 * math.ceil(weight.numel() / EIGHT_BIT_BLOCK))
    return 2 * _bytes(weight)


def _measure_pass(trainer: Trainer, examples: Sequence[int]) -> int:
    """The most bytes that a forward and a backward pass hold besides weights and gradients."""
    model: nn.Module = trainer.model
    device = trainer.args.device
    was_training, buffers = model.training, {name: buffer.clone() for name, buffer in model.named_buffers()}
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        loader = DataLoader(
            trainer.train_dataset,
            batch_sampler=[list(examples)],
            collate_fn=trainer.data_collator,
        )
        batch = {name: tensor.to(device) for name, tensor in next(iter(loader)).items()}
        model.train()
        try:
            for weight in trained:
                # As when gradients of other micro-batches are there already; so they are not counted twice.
                weight.grad = torch.zeros_like(weight)
            with PeakMemory() as memory:
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bool(trainer.args.bf16)):
                    loss = trainer.compute_loss(model, dict(batch))
                loss.backward()
        finally:
            model.train(was_training)
            for weight in trained:
                weight.grad = None
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
    return memory.peak + sum(_bytes(tensor) for tensor in batch.values())


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _remedy(estimate: MemoryEstimate) -> str:
    smaller = f"give a train.micro_batch below {estimate.rows}, or " if estimate.rows > 1 else "give "
    return f"{smaller}train.gradient_checkpointing true"
