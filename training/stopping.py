"""Early stopping: training ends when the validation loss falls no more, and the best weights are what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

BEST = "best.safetensors"


class EarlyStopping:
    """Says when to end: after ``patience`` evaluations in a row without a lower loss. Remembers the best weights.

    ``CheckpointCallback`` asks it after every evaluation and takes it into the checkpoints, so that a killed run ends
    with the same weights. Only weights that are trained, and buffers such as those of BatchNorm, are
    kept: of a LoRA adapter a few megabytes. While a running average is evaluated the model holds the average, and that
    is remembered.

    Args:
        patience: evaluations to wait; None never stops and remembers nothing.
    """

    def __init__(self, patience: int | None) -> None:
        self.best_loss = float("inf")
        self.best_step: int | None = None
        self._patience = patience
        self._worse = 0
        self._best: dict[str, Tensor] = {}

    @property
    def over(self) -> bool:
        """Whether training should end."""
        return self._patience is not None and self._worse >= self._patience

    def take(self, model: nn.Module, step: int, loss: float) -> None:
        """Compare a validation loss with the best so far; of a lower one, remember the weights."""
        if self._patience is None:
            return
        if loss < self.best_loss:
            self.best_loss, self.best_step, self._worse = loss, step, 0
            self._best = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in _learnt(model).items()}
        else:
            self._worse += 1

    @torch.no_grad()
    def restore(self, model: nn.Module) -> bool:
        """Give a model the best weights; False if none are remembered."""
        for name, tensor in _learnt(model).items() if self._best else ():
            tensor.copy_(self._best[name])
        return bool(self._best)

    def save(self, folder: Path) -> None:
        """Write what is remembered into a checkpoint."""
        if self.best_step is not None:
            kept = json.dumps({"loss": self.best_loss, "step": self.best_step, "worse": self._worse})
            save_file(self._best, folder / BEST, metadata={"early_stopping": kept})

    def load(self, folder: Path) -> None:
        """Read it back from a checkpoint; one made before the first evaluation holds nothing."""
        if self._patience is None or not (folder / BEST).exists():
            return
        with safe_open(folder / BEST, framework="pt") as content:
            kept = json.loads(content.metadata()["early_stopping"])
            self._best = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        self.best_loss, self.best_step, self._worse = kept["loss"], kept["step"], kept["worse"]


def _learnt(model: nn.Module) -> dict[str, Tensor]:
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return trained | dict(model.named_buffers())
