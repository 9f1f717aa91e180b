"""Train a vision-language model by a recipe with the Trainer of transformers: whole parts, or a LoRA adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from training.checkpoints import find_latest_checkpoint
from training.errors import DataError, RunError
from training.files import write_whole
from training.language_recipe import LanguageRecipe, read_language_recipe
from training.language_trainer import LanguageTrainer
from training.looking import looking
from training.plots import save_loss_curve
from training.pupil import build_pupil
from training.questions import QuestionSet, read_questions
from training.recipe import write_recipe
from training.trainer import make_arguments, train_to_end


def finetune_language(
    recipe: LanguageRecipe, data: Path, out: Path, *, resume: bool = False, progress: bool = True, stop_after: int = 0
) -> dict[str, Any]:
    """Train and save the whole model (or its adapter in peft's format), recipe, figures and loss curve.

    Args:
        recipe: the whole run.
        data: folder of the recipe's files.
        out: folder of the run; checkpoints go there too.
        resume: continue from the newest complete checkpoint in ``out``, or begin when there is none.
        progress: show a progress bar on standard error.
        stop_after: end after so many optimiser steps, for trying out; 0 does not.

    Returns:
        The content of ``metrics.json``.

    Raises:
        RunError: if ``out`` holds another run.
        RecipeError: if the recipe's model cannot be built.
        DataError: if files or pictures cannot be used.
    """
    train_set = read_questions(recipe.questions, data, recipe.seed)
    if len(train_set) < recipe.train.batch_size:
        raise DataError(f"{len(train_set)} questions do not fill one batch of {recipe.train.batch_size}; add more.")
    checkpoint = _open_run(recipe, out, resume)
    transformers.set_seed(recipe.seed)
    held_out = read_questions(recipe.held_out, data, recipe.seed)
    pupil = build_pupil(recipe, train_set)
    arguments = make_arguments(
        recipe.train,
        out,
        seed=recipe.seed,
        evaluated=len(held_out) > 0,
        progress=progress,
        stop_after=stop_after or None,
    )
    arguments.dataloader_num_workers = recipe.workers
    with looking(recipe, pupil, train_set, held_out) as (asked, asked_held_out):
        trainer = LanguageTrainer(
            pupil,
            arguments,
            asked,
            asked_held_out if len(held_out) else None,
            recipe=recipe.train,
            resumed_from=checkpoint,
        )
        trained = train_to_end(
            trainer,
            recipe.train,
            average=trainer.average,
            stopping=trainer.stopping,
            resumed_from=checkpoint,
            examples=_longest(train_set),
        )
    pupil.save(out)
    save_loss_curve(trained["history"], out / "loss.png", kept_step=trainer.stopping.best_step)
    metrics = {
        "schema_version": 1,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "parameters": sum(parameter.numel() for parameter in pupil.network.parameters()),
        "trained_parameters": sum(p.numel() for p in pupil.network.parameters() if p.requires_grad),
        "questions": len(train_set),
        **trained,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__},
    }
    write_whole(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return metrics


def _longest(questions: QuestionSet, count: int = 4) -> list[int]:
    """The questions with the most text: they show what a batch takes at most."""
    told = [len(question.text) + len(question.answer) for question in questions.questions]
    return sorted(range(len(told)), key=told.__getitem__, reverse=True)[:count]


def _open_run(recipe: LanguageRecipe, out: Path, resume: bool) -> Path | None:
    """Create the run's folder, or find where to continue."""
    written = out / "recipe.yaml"
    if written.exists():
        if not resume:
            raise RunError(f"{out}: holds a run already; continue it with --resume or give another --out.")
        if read_language_recipe(written) != recipe:
            raise RunError(f"{out}: its recipe differs from the one given; continue it with its own recipe.yaml.")
        if (out / "metrics.json").exists():
            raise RunError(f"{out}: this run is finished; give another --out.")
        return find_latest_checkpoint(out)
    out.mkdir(parents=True, exist_ok=True)
    write_recipe(recipe, written)
    return None
