"""The Trainer of transformers for answers: loss on what is to be written, checkpoints of what is trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from safetensors.torch import load_file, save_file
from torch import Tensor, nn, no_grad
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset
from transformers import EvalPrediction, Trainer, TrainingArguments

from training.asking import IGNORED
from training.checkpoints import CheckpointCallback, RunningAverage
from training.errors import RecipeError, RunError
from training.optimizer import MuonWithAdamW
from training.pictures import keep_batch
from training.pupil import Pupil
from training.recipe import TrainRecipe
from training.stopping import EarlyStopping
from training.trainer import checkpoint_activations

TRAINED = "trained.safetensors"


class LanguageTrainer(Trainer):
    """Learns answers from whole batches; keeps in checkpoints what is trained, under the module's own names.

    The library would write a whole model under names of its own, which it does not always find again (see
    ``training.distillation.Student``), and refuses embeddings that are shared with the output layer.

    Args:
        pupil: what learns.
        arguments: settings of the Trainer.
        train: whole batches to learn from.
        held_out: whole batches to evaluate on, if any.
        recipe: optimiser, label smoothing, patience, gradient checkpointing.
        resumed_from: the checkpoint to continue, if any.
    """

    def __init__(
        self,
        pupil: Pupil,
        arguments: TrainingArguments,
        train: Dataset[Any],
        held_out: Dataset[Any] | None,
        *,
        recipe: TrainRecipe,
        resumed_from: Path | None = None,
    ) -> None:
        self.average = RunningAverage(pupil.network, None)
        self.stopping = EarlyStopping(recipe.patience)
        self.optimizer: Optimizer | None = None
        self._recipe = recipe
        if recipe.gradient_checkpointing:
            if pupil.family.remote_code:
                raise RecipeError("train.gradient_checkpointing: code of a repository cannot; leave it out.")
            checkpoint_activations(pupil.base)
        super().__init__(
            model=pupil.network,
            args=arguments,
            train_dataset=train,
            eval_dataset=held_out,
            data_collator=keep_batch,
            compute_metrics=_share_right,
            callbacks=[CheckpointCallback(self.average, resumed_from, self.stopping)],
        )
        # The loss below is a mean over all answers of a step, however they are spread over its micro-batches.
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = True

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Mean cross-entropy of the answers' tokens, each after the right ones before it.

        Logits are computed for the columns that hold answers and no others: a whole prompt's would take, with a
        vocabulary of 257,000 words, more memory than the network.

        Returns:
            The loss; with ``return_outputs`` also ``right`` (n,), whether the whole answer was foretold.
        """
        labels = inputs["labels"]
        answered = labels.ne(IGNORED)
        columns = int(labels.shape[1] - answered.any(dim=0).int().argmax())
        given = {name: value for name, value in inputs.items() if name != "labels"}
        logits = model(**given, use_cache=False, logits_to_keep=columns + 1).logits[:, :-1].float()
        wanted = labels[:, -columns:]
        total = F.cross_entropy(
            logits.flatten(0, 1),
            wanted.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self._recipe.label_smoothing if model.training else 0.0,
        )
        loss = total / (answered.sum() if num_items_in_batch is None else num_items_in_batch)
        if not return_outputs:
            return loss
        return loss, {"right": (logits.argmax(-1).eq(wanted) | wanted.eq(IGNORED)).all(dim=1)}

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """The recipe's optimiser."""
        if self.optimizer is None and self._recipe.optimizer == "muon":
            self.optimizer = MuonWithAdamW(model or self.model, self._recipe)
        return super().create_optimizer(model)

    def get_eval_dataloader(self, eval_dataset: str | Dataset[Any] | None = None) -> DataLoader[Any]:  # noqa: ARG002
        """Every held-out question counts, although training drops its incomplete last batch."""
        if self.eval_dataset is None:
            raise ValueError("there are no held-out questions")
        loader: DataLoader[Any] = DataLoader(
            self.eval_dataset,
            batch_size=self.args.per_device_train_batch_size,  # what fits in training
            collate_fn=keep_batch,
            num_workers=self.args.dataloader_num_workers,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.detach().contiguous() for name, tensor in self._trained()}, folder / TRAINED)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:  # noqa: ARG002
        kept = load_file(Path(resume_from_checkpoint) / TRAINED)
        for name, tensor in self._trained():
            with no_grad():
                tensor.copy_(kept.pop(name))
        if kept:
            raise RunError(f"{resume_from_checkpoint}: holds weights the model lacks ({next(iter(kept))}).")

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        model: nn.Module = self.model
        return ((name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad)


def _share_right(prediction: EvalPrediction) -> dict[str, float]:
    """Share of questions whose whole answer is foretold, each token given the right ones before it."""
    return {"accuracy": float(np.asarray(prediction.predictions).mean())}
