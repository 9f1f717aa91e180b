"""What a run shows while it goes on: loss, images and tokens per second, counted where the model is called."""

from __future__ import annotations

import math
import sys
from time import perf_counter
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from tqdm.auto import tqdm
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from training.errors import RunError


class Throughput(TrainerCallback):
    """Counts what the model is shown in training and the seconds it takes, without evaluation and checkpoints.

    A row of a batch is one image (with its question, for a vision-language model). Tokens are all that a decoder reads
    or learns to write, those of the image among them, padding not.
    """

    def __init__(self) -> None:
        self.images = 0
        self.seconds = 0.0
        self._tokens: int | Tensor = 0  # added up on the model's own device: reading it there would wait for the GPU
        self._mark = 0.0
        self._hook: RemovableHandle | None = None

    def figures(self) -> dict[str, float]:
        """``images_per_second`` and, where there are tokens, ``tokens_per_second``; nothing before the first step."""
        if not self.seconds:
            return {}
        figures = {"images_per_second": round(self.images / self.seconds, 3)}
        if tokens := int(self._tokens):
            figures["tokens_per_second"] = round(tokens / self.seconds, 1)
        return figures

    def on_train_begin(self, *_: object, model: nn.Module, **__: object) -> None:
        """Start to count."""
        self._hook = model.register_forward_pre_hook(self._count, with_kwargs=True)
        self._mark = perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        """Time goes on from the step before: reading the pictures is part of training."""
        now = perf_counter()
        self.seconds += now - self._mark
        self._mark = now

    def on_evaluate(self, *_: object, **__: object) -> None:
        """What has passed since the step was no training."""
        self._mark = perf_counter()

    def on_save(self, *_: object, **__: object) -> None:
        """As after an evaluation."""
        self._mark = perf_counter()

    def on_log(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        logs: dict[str, float],
        **_: object,
    ) -> None:
        """Add the speed to what is logged and to the history.

        Raises:
            RunError: the loss is no number any more.
        """
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise RunError(
                f"the loss is {logs['loss']} at step {state.global_step}; give a smaller train.learning_rate, "
                "or train.precision fp32."
            )
        figures = self.figures()
        logs.update(figures)
        state.log_history[-1].update(figures)

    def on_train_end(self, *_: object, **__: object) -> None:
        """Count no more."""
        if self._hook is not None:
            self._hook.remove()

    def _count(self, model: nn.Module, _args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        if not model.training:
            return
        ids = inputs.get("input_ids")
        self.images += len(inputs["pixel_values"] if ids is None else ids)
        if ids is not None:
            mask = inputs.get("attention_mask")
            self._tokens = self._tokens + (ids.numel() if mask is None else mask.sum())


class ProgressLine(ProgressCallback):
    """The library's progress bar with one short line per log, all on standard error, where results do not stand."""

    def on_log(self, _args: object, state: TrainerState, _control: object, logs: dict[str, float], **_: object) -> None:
        """Write the line."""
        if not state.is_world_process_zero or self.training_bar is None:
            return
        parts = [
            f"{shown} {logs[key]:.4g}"
            for key, shown in (("loss", "loss"), ("eval_loss", "validation loss"), ("eval_accuracy", "accuracy"))
            if key in logs
        ]
        parts += [
            f"{logs[key]:.4g} {unit}"
            for key, unit in (("images_per_second", "images/s"), ("tokens_per_second", "tokens/s"))
            if key in logs
        ]
        if parts:
            tqdm.write(f"step {state.global_step}/{state.max_steps}: {', '.join(parts)}", file=sys.stderr)


def watch(trainer: Trainer) -> Throughput:
    """Count images and tokens per second in a Trainer, and show them if it shows progress.

    Returns:
        The counter; its ``figures()`` belong in ``metrics.json``.
    """
    throughput = Throughput()
    trainer.add_callback(throughput)
    trainer.remove_callback(PrinterCallback)  # it prints to standard output
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(ProgressLine())
    return throughput
