"""Checkpoints that survive a kill, and the running average of the weights that travels in them.

``Trainer`` writes a checkpoint file by file, so a kill can leave half of one. Here a marker is written after everything
else; a checkpoint without it is discarded when the run is resumed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.stopping import EarlyStopping

MARKER = "COMPLETE"
AVERAGE = "average.safetensors"


def find_latest_checkpoint(run: Path, *, discard: bool = True) -> Path | None:
    """The newest complete checkpoint of a run; half-written ones are removed unless another process may be writing."""
    complete: list[Path] = []
    for folder in run.glob("checkpoint-*"):
        if (folder / MARKER).exists():
            complete.append(folder)
        elif discard:
            shutil.rmtree(folder)
    return max(complete, key=lambda folder: int(folder.name.rsplit("-", 1)[1]), default=None)


class RunningAverage:
    """Exponential moving average of all weights and buffers of a model.

    Args:
        model: the model in training.
        decay: share of the old average kept at each step; None keeps no average.
    """

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        self._model = model
        self._average: AveragedModel | None = None
        if decay is not None:
            self._average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)

    def update(self) -> None:
        """Take in the weights after one optimiser step."""
        if self._average is not None:
            self._average.to(next(self._model.parameters()).device)  # made before the model went to the GPU, if to any
            self._average.update_parameters(self._model)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model holds the averaged weights."""
        if self._average is None:
            yield
            return
        kept = {name: tensor.detach().clone() for name, tensor in self._model.state_dict().items()}
        self._model.load_state_dict(self._average.module.state_dict())
        try:
            yield
        finally:
            self._model.load_state_dict(kept)

    def settle(self) -> None:
        """Leave the averaged weights in the model, once training is over, and average no more."""
        if self._average is not None:
            self._model.load_state_dict(self._average.module.state_dict())
            self._average = None

    def save(self, folder: Path) -> None:
        """Write the average into a checkpoint."""
        if self._average is not None:
            save_file(
                {name: tensor.contiguous() for name, tensor in self._average.state_dict().items()}, folder / AVERAGE
            )

    def load(self, folder: Path) -> None:
        """Read the average back from a checkpoint."""
        if self._average is not None:
            self._average.load_state_dict(load_file(folder / AVERAGE))


class CheckpointCallback(TrainerCallback):
    """Keeps the average up to date, stops early, restores both, and marks checkpoints complete.

    Args:
        average: the running average.
        resumed_from: the checkpoint this run continues, if any.
        stopping: when to end before the last epoch, if ever.
    """

    def __init__(
        self, average: RunningAverage, resumed_from: Path | None, stopping: EarlyStopping | None = None
    ) -> None:
        self._average = average
        self._resumed_from = resumed_from
        self._stopping = stopping or EarlyStopping(None)
        self._evaluated_at = -1

    def on_train_begin(
        self, _args: TrainingArguments, _state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Continue where the checkpoint left off."""
        if self._resumed_from is not None:
            self._average.load(self._resumed_from)
            self._stopping.load(self._resumed_from)
            control.should_training_stop = self._stopping.over

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Follow the weights; evaluate with the last step of an epoch.

        The library evaluates an epoch after a checkpoint of its last step is written. Resumed from that checkpoint, a
        run would begin the next epoch, and this evaluation would be missing.
        """
        self._average.update()
        if args.eval_strategy == "epoch" and state.epoch is not None and float(state.epoch).is_integer():
            control.should_evaluate = True
            self._evaluated_at = state.global_step

    def on_epoch_end(self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Not twice."""
        if self._evaluated_at == state.global_step:
            control.should_evaluate = False

    def on_evaluate(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        metrics: dict[str, float],
        **_: object,
    ) -> None:
        """Ask whether to go on."""
        self._stopping.take(model, state.global_step, metrics["eval_loss"])
        control.should_training_stop = control.should_training_stop or self._stopping.over

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
        """Complete the checkpoint; the marker comes last."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        self._average.save(folder)
        self._stopping.save(folder)
        (folder / MARKER).write_text(f"{state.global_step}\n", encoding="utf-8")
