"""Train an image classifier by a recipe with the Trainer of transformers, resumable after a kill."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedModel,
    ViTImageProcessor,
)
from transformers.image_processing_utils import BaseImageProcessor

from training.checkpoints import find_latest_checkpoint
from training.distillation import Student, Teacher
from training.errors import DataError, RecipeError, RunError
from training.files import write_whole
from training.initialise import start_like_convolution
from training.labelled import read_labelled
from training.masks import read_masks
from training.pictures import Pictures, decode_pictures, read_statistics
from training.plots import save_loss_curve
from training.reading import VOCABULARY, read_word_ids
from training.recipe import FILTERS, DistillRecipe, Recipe, read_recipe, write_recipe
from training.resizing import resize_positions
from training.trainer import ClassifierTrainer, checkpoint_activations, make_arguments, train_to_end

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Learner:
    """What is trained: the classifier, the module the optimiser sees (classifier plus hint heads), and its teacher.

    Attributes:
        classifier: what is saved.
        module: what is optimised.
        processor: resizes pictures for the classifier; saved beside it.
        teacher: labels what the student sees, if there is one.
        training_processor: resizes the training pictures; another one where the teacher sees them at its own size.
    """

    classifier: PreTrainedModel
    module: nn.Module
    processor: BaseImageProcessor
    teacher: Teacher | None
    training_processor: BaseImageProcessor


def finetune(
    recipe: Recipe, data: Path, out: Path, *, resume: bool = False, progress: bool = True, stop_after: int | None = None
) -> dict[str, Any]:
    """Train by a recipe and save model, processor, labels, recipe, figures and loss curve.

    Args:
        recipe: the whole run.
        data: folder written by ``prepare`` with ``train.parquet`` and, if any, ``validation.parquet``.
        out: folder of the run; checkpoints go there too.
        resume: continue from the newest complete checkpoint in ``out``, or begin when there is none.
        progress: show a progress bar on standard error.
        stop_after: end after so many optimiser steps, for trying out.

    Returns:
        The content of ``metrics.json``.

    Raises:
        RunError: if ``out`` holds another run or data is missing.
        RecipeError: if the recipe's model cannot be built.
        DataError: if the pictures cannot be used.
    """
    checkpoint = _open_run(recipe, out, resume)
    transformers.set_seed(recipe.seed)
    learner = build_learner(recipe)
    train_set, dev_set = _read_splits(recipe, data, learner)
    if recipe.model.start_like_convolution and checkpoint is None:
        start_like_convolution(learner.classifier, train_set.pixels, train_set.mean, train_set.std, recipe.seed)
    trainer = ClassifierTrainer(
        learner.module,
        make_arguments(
            recipe.train,
            out,
            seed=recipe.seed,
            evaluated=dev_set is not None,
            progress=progress,
            stop_after=stop_after,
        ),
        train_set,
        dev_set,
        recipe=recipe.train,
        teacher=learner.teacher,
        mask_weight=recipe.mask_weight,
        word_weight=recipe.word_weight,
        resumed_from=checkpoint,
    )
    trained = train_to_end(
        trainer, recipe.train, average=trainer.average, stopping=trainer.stopping, resumed_from=checkpoint
    )
    learner.classifier.save_pretrained(out)
    learner.processor.save_pretrained(out)
    save_loss_curve(trained["history"], out / "loss.png", kept_step=trainer.stopping.best_step)
    metrics = {
        "schema_version": 1,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "parameters": sum(parameter.numel() for parameter in learner.classifier.parameters()),
        "training_pictures": len(train_set),
        **trained,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    write_whole(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return metrics


def _open_run(recipe: Recipe, out: Path, resume: bool) -> Path | None:
    """Create the run's folder, or find where to continue."""
    written = out / "recipe.yaml"
    wanted = recipe.model_dump(mode="json")
    if written.exists():
        if not resume:
            raise RunError(f"{out}: holds a run already; continue it with --resume or give another --out.")
        if read_recipe(written).model_dump(mode="json") != wanted:
            raise RunError(f"{out}: its recipe differs from the one given; continue it with its own recipe.yaml.")
        if (out / "metrics.json").exists():
            raise RunError(f"{out}: this run is finished; give another --out.")
        return find_latest_checkpoint(out)
    out.mkdir(parents=True, exist_ok=True)
    write_recipe(recipe, written)
    return None


def build_learner(recipe: Recipe) -> Learner:
    """The model of a recipe with its processor, and its teacher if it has one.

    Raises:
        RecipeError: if the architecture or its values are unknown, or a folder or hub id cannot be loaded.
    """
    id2label = dict(enumerate(recipe.labels))
    label2id = {label: index for index, label in id2label.items()}
    side = {"height": recipe.image.size, "width": recipe.image.size}
    origin = recipe.model.start or recipe.model.architecture
    attention = {"attn_implementation": recipe.model.attention} if recipe.model.attention else {}
    try:
        if recipe.model.start is not None:
            head = {"id2label": id2label, "label2id": label2id, "ignore_mismatched_sizes": True}
            classifier = _load_classifier(recipe.model.start, **attention, **(head if recipe.model.new_head else {}))
            if recipe.model.new_head:  # the library draws one anew only where their number differs
                [layer for layer in classifier.modules() if isinstance(layer, nn.Linear)][-1].reset_parameters()
            _rename_labels(classifier, recipe.model.rename)
            resize_positions(classifier, recipe.image.size)
            processor = AutoImageProcessor.from_pretrained(recipe.model.start, size=side)
        else:
            config = AutoConfig.for_model(
                str(recipe.model.architecture), **recipe.model.config, id2label=id2label, label2id=label2id
            )
            classifier = AutoModelForImageClassification.from_config(config, **attention)
            processor = ViTImageProcessor(size=side, resample=3, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    except (ValueError, OSError, TypeError, StrictDataclassError) as error:
        raise RecipeError(f"model: {origin}: {' '.join(str(error).split())[:300]}") from error
    if recipe.train.gradient_checkpointing:
        checkpoint_activations(classifier)
    if recipe.image.resample is not None:
        processor.resample = FILTERS[recipe.image.resample]
    classes = len(classifier.config.id2label or {})
    if recipe.distill is None:
        heads = {"mask_logits": (classes + 1, recipe.mask_weight), "word_logits": (VOCABULARY + 1, recipe.word_weight)}
        student = Student(classifier, patch_heads={name: width for name, (width, weight) in heads.items() if weight})
        return Learner(classifier, student, processor, None, processor)
    network, taught_by = _load_teacher(recipe.distill, processor, classifier)
    teacher = Teacher(network, recipe.distill)
    student = Student(
        classifier,
        patch_heads={"patch_logits": classes} if recipe.distill.patches else {},
        hint_channels=teacher.hint_channels,
        side=recipe.image.crop if recipe.distill.size else None,
    )
    return Learner(classifier, student, processor, teacher, taught_by if recipe.distill.size else processor)


def _rename_labels(classifier: PreTrainedModel, names: Mapping[str, str]) -> None:
    known: dict[int, str] = classifier.config.id2label
    missing = set(names) - set(known.values())
    if missing:
        raise ValueError(f"has no label {', '.join(sorted(missing))}, only {', '.join(known.values())}")
    classifier.config.id2label = {index: names.get(label, label) for index, label in known.items()}
    classifier.config.label2id = {label: index for index, label in classifier.config.id2label.items()}


def _load_classifier(source: str, **options: Any) -> PreTrainedModel:  # noqa: ANN401
    # A trained half-precision folder is trained on in float32: small steps vanish in half precision.
    model: PreTrainedModel
    model, report = AutoModelForImageClassification.from_pretrained(
        source, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
    )
    if report["missing_keys"]:  # the library would draw them at random and go on
        raise ValueError(f"lacks weights of a {type(model).__name__}, first {min(report['missing_keys'])}")
    return model


def _load_teacher(
    recipe: DistillRecipe, processor: BaseImageProcessor, student: PreTrainedModel
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """The teacher, and its processor for pictures of the size at which it teaches."""
    source = recipe.teacher
    side = {"size": {"height": recipe.size, "width": recipe.size}} if recipe.size else {}
    try:
        teacher, taught_by = _load_classifier(source), AutoImageProcessor.from_pretrained(source, **side)
    except (ValueError, OSError) as error:
        raise RecipeError(f"distill.teacher: {source}: {' '.join(str(error).split())[:300]}") from error
    if teacher.config.id2label != student.config.id2label:
        raise RecipeError(f"distill.teacher: {source}: its labels are not the student's.")
    if read_statistics(taught_by) != read_statistics(processor):
        raise RecipeError(f"distill.teacher: {source}: its processor normalises otherwise than the student's.")
    return teacher, taught_by


def _read_splits(recipe: Recipe, data: Path, learner: Learner) -> tuple[Pictures, Pictures | None]:
    if not (data / "train.parquet").exists():
        raise RunError(f"{data}: holds no train.parquet; write it with python -m training prepare.")
    train = _decode_split(data / "train.parquet", learner, recipe, training=True)
    if len(train) < (fewest := recipe.train.micro_batch or recipe.train.batch_size):
        raise DataError(f"{len(train)} pictures to learn from do not fill one batch of {fewest}; add more.")
    held_out = data / "validation.parquet"
    if not held_out.exists():
        return train, None
    return train, _decode_split(held_out, learner, recipe, training=False)


def _decode_split(file: Path, learner: Learner, recipe: Recipe, *, training: bool) -> Pictures:
    labelled = read_labelled(file, recipe.labels)
    pixels, readable = decode_pictures(labelled, learner.training_processor if training else learner.processor)
    label2id = {str(label): int(index) for index, label in (learner.classifier.config.id2label or {}).items()}
    unknown = set(labelled.names) - set(label2id)
    if unknown:
        raise RunError(f"the data has labels the model lacks: {', '.join(sorted(unknown))}.")
    labels = [label2id[labelled.names[labelled.labels[index]]] for index in readable]
    side, maps = pixels.shape[-1], {}
    if training and recipe.mask_weight:
        maps["masks"] = read_masks(file, readable, side)
    if training and recipe.word_weight:
        maps["word_ids"] = read_word_ids(file, readable, side)
    crop = recipe.distill.size if recipe.distill and recipe.distill.size else recipe.image.crop
    return Pictures(
        pixels,
        labels,
        len(label2id),
        learner.processor,
        crop=crop if training else None,
        augment=recipe.augment if training else None,
        seed=recipe.seed,
        maps=maps,
    )
