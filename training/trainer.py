"""The Trainer of transformers with soft labels, averaged weights and a teacher."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainingArguments

from training.checkpoints import CheckpointCallback, RunningAverage
from training.decoding import count_cores
from training.distillation import Teacher
from training.errors import RecipeError
from training.masks import mask_loss
from training.memory import check_memory
from training.optimizer import MuonWithAdamW
from training.pictures import Pictures, keep_batch
from training.progress import watch
from training.reading import reading_loss
from training.recipe import TrainRecipe
from training.stopping import EarlyStopping


class ClassifierTrainer(Trainer):
    """Trains a classifier, or a student with its teacher.

    Args:
        module: maps ``pixel_values`` to ``logits`` (and hints, for a student).
        arguments: settings of the Trainer.
        train: training pictures.
        held_out: pictures to evaluate on, if any.
        recipe: optimiser, decay of the running average, label smoothing (used without a teacher).
        teacher: labels the training pictures besides their own labels, if any.
        mask_weight: of the loss of patches, for a student whose patches answer to masks.
        word_weight: the same for words.
        resumed_from: the checkpoint to continue, if any.
    """

    def __init__(
        self,
        module: nn.Module,
        arguments: TrainingArguments,
        train: Pictures,
        held_out: Pictures | None,
        *,
        recipe: TrainRecipe,
        teacher: Teacher | None,
        mask_weight: float = 0.0,
        word_weight: float = 0.0,
        resumed_from: Path | None,
    ) -> None:
        self.average = RunningAverage(module, recipe.ema_decay)
        self.stopping = EarlyStopping(recipe.patience)
        self.optimizer: Optimizer | None = None
        self._held_out = held_out
        self._teacher = teacher
        self._mask_weight, self._word_weight = mask_weight, word_weight
        self._recipe = recipe
        super().__init__(
            model=module,
            args=arguments,
            train_dataset=train,
            eval_dataset=held_out,
            data_collator=keep_batch,
            compute_metrics=_compute_accuracy,
            callbacks=[CheckpointCallback(self.average, resumed_from, self.stopping)],
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002 - the Trainer passes it; batches are not split
    ) -> Tensor | tuple[Tensor, Any]:
        """Cross-entropy with soft labels while evaluating; the teacher's loss, if there is one, while training."""
        outputs = model(pixel_values=inputs["pixel_values"])
        if self._teacher is not None and model.training:
            loss = self._teacher.loss(inputs["pixel_values"], inputs["labels"], outputs)
        else:
            smoothing = self._recipe.label_smoothing if model.training else 0.0
            loss = F.cross_entropy(outputs["logits"].float(), inputs["labels"], label_smoothing=smoothing)
            if model.training and "masks" in inputs:
                masks = inputs["masks"].squeeze(1)
                loss = loss + self._mask_weight * mask_loss(outputs["mask_logits"], masks, inputs["labels"])
            if model.training and "word_ids" in inputs:
                loss = loss + self._word_weight * reading_loss(outputs["word_logits"], inputs["word_ids"])
        return (loss, {"logits": outputs["logits"]}) if return_outputs else loss

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """The recipe's optimiser."""
        if self.optimizer is None and self._recipe.optimizer == "muon":
            self.optimizer = MuonWithAdamW(model or self.model, self._recipe)
        return super().create_optimizer(model)

    def get_eval_dataloader(self, eval_dataset: str | Dataset[Any] | None = None) -> DataLoader[Any]:  # noqa: ARG002
        """Every held-out picture counts, although training drops its incomplete last batch (BatchNorm)."""
        if self._held_out is None:
            raise ValueError("there are no held-out pictures")
        loader: DataLoader[Any] = DataLoader(
            self._held_out, batch_size=self.args.per_device_eval_batch_size, collate_fn=keep_batch
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def evaluate(
        self,
        eval_dataset: Dataset[Any] | dict[str, Dataset[Any]] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Evaluate the averaged weights, which are the ones that are saved in the end."""
        with self.average.in_place():
            measured: dict[str, float] = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        return measured


def train_to_end(
    trainer: Trainer,
    train: TrainRecipe,
    *,
    average: RunningAverage,
    stopping: EarlyStopping,
    resumed_from: Path | None,
    examples: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Tell the memory a run needs, train, leave the weights to keep in the model, and measure those.

    Args:
        trainer: with a ``CheckpointCallback`` of the same average and early stopping.
        train: the schedule.
        average: what is kept unless a best evaluation is.
        stopping: remembers the best evaluation, if it has patience.
        resumed_from: the checkpoint to continue, if any.
        examples: as for ``training.memory.estimate_memory``.

    Returns:
        What ``metrics.json`` says of the run: steps, speed, estimated memory in bytes, validation figures, history.

    Raises:
        RunError: if the memory does not do, or the loss is no number any more.
    """
    throughput = watch(trainer)
    memory = check_memory(trainer, train, examples=examples)
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=str(resumed_from) if resumed_from else None)
    elapsed_s = time.monotonic() - started
    # Before the kept weights are measured: on the loss curve they would stand at the last step.
    history = [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry]
    average.settle()
    stopping.restore(trainer.model)
    measured = trainer.evaluate() if trainer.eval_dataset is not None else {}
    return {
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "kept_step": stopping.best_step or trainer.state.global_step,
        "seconds_since_resume": round(elapsed_s, 3),
        **throughput.figures(),
        "estimated_memory": memory.to_json(),
        "validation": {key.removeprefix("eval_"): value for key, value in measured.items() if key.startswith("eval_")},
        "history": history,
    }


def checkpoint_activations(network: PreTrainedModel) -> None:
    """Turn on gradient checkpointing (Chen et al. 2016): layers are computed again in the backward pass.

    Raises:
        RecipeError: if the architecture cannot.
    """
    try:
        network.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as error:
        raise RecipeError(f"train.gradient_checkpointing: {' '.join(str(error).split())}") from error
    network.config.use_cache = False  # keys and values kept for writing on would be a second copy


def make_arguments(
    train: TrainRecipe, out: Path, *, seed: int, evaluated: bool, progress: bool, stop_after: int | None
) -> TrainingArguments:
    """Settings of the Trainer for a recipe.

    Args:
        train: schedule.
        out: folder of the run.
        seed: of the weights and the order of the pictures.
        evaluated: evaluate after each epoch.
        progress: show a progress bar.
        stop_after: end after so many optimiser steps.

    Raises:
        RecipeError: if it wants to stop early and nothing is held out to measure by.
    """
    if train.patience and not evaluated:
        raise RecipeError("train.patience: needs held-out data to evaluate on (validation.parquet, or held_out).")
    paged = train.optimizer == "paged_adamw_8bit" and torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(out),
        num_train_epochs=train.epochs,
        max_steps=stop_after or -1,
        per_device_train_batch_size=train.micro_batch or train.batch_size,
        gradient_accumulation_steps=train.batch_size // (train.micro_batch or train.batch_size),
        per_device_eval_batch_size=train.batch_size,
        learning_rate=train.learning_rate,
        weight_decay=train.weight_decay,
        warmup_steps=train.warmup,
        lr_scheduler_type="cosine",
        max_grad_norm=train.grad_clip,
        bf16=train.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        optim="paged_adamw_8bit" if paged else "adamw_torch_fused",
        seed=seed,
        eval_strategy="no" if not evaluated else "steps" if train.evaluate_steps else "epoch",
        eval_steps=train.evaluate_steps,
        save_strategy="steps",
        save_steps=train.checkpoint_steps,
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=0.01,  # a hundred points on the loss curve
        logging_nan_inf_filter=False,  # it would write the mean of the losses before, and the run look healthy
        dataloader_drop_last=True,
        # A GPU would wait for pictures to be changed; a CPU trains and changes them with the same cores.
        dataloader_num_workers=max(0, count_cores() - 2) if torch.cuda.is_available() else 0,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        disable_tqdm=not progress,
    )


def _compute_accuracy(prediction: EvalPrediction) -> dict[str, float]:
    logits = np.asarray(prediction.predictions)
    wanted = np.asarray(prediction.label_ids).argmax(-1)
    return {"accuracy": float((logits.argmax(-1) == wanted).mean())}
