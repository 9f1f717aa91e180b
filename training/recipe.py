"""Recipes: everything that decides a training run, as one strictly checked YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.errors import RecipeError
from training.files import write_whole

FILTERS: Final = {"bilinear": 2, "bicubic": 3}
"""Filters that processors resize by, as Pillow numbers them."""


class Strict(BaseModel):
    """Frozen, and refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Form = TypeVar("Form", bound=Strict)


class ModelRecipe(Strict):
    """Where the weights come from: ``start`` (a folder or hub id) or an ``architecture`` with random weights."""

    start: str | None = None
    """Folder or hub id with safetensors; its own labels and normalisation are kept."""
    rename: dict[str, str] = Field(default_factory=dict)
    """Other names for labels of the start: what it calls them to what the data does."""
    new_head: bool = False
    """Give the start a new last layer for the recipe's ``labels``, when it knows others."""
    architecture: str | None = None
    """Model type of transformers, for instance ``resnet`` or ``vit``."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Values of that architecture's config class."""
    start_like_convolution: bool = False
    """Start a ViT with whitened patches and heads that look at neighbouring patches (``training/initialise.py``)."""
    attention: Literal["eager", "sdpa"] | None = None
    """Attention code used in training; not saved, it changes no weight. The library's choice when not given."""

    @model_validator(mode="after")
    def _one_origin(self) -> ModelRecipe:
        if (self.start is None) == (self.architecture is None):
            raise ValueError("give either start or architecture")
        if self.start is not None and self.config:
            raise ValueError("config belongs to architecture; a start brings its own")
        if self.start is None and (self.rename or self.new_head):
            raise ValueError("rename and new_head belong to a start")
        if self.rename and self.new_head:
            raise ValueError("a new head has new labels; give either rename or new_head")
        return self


class ImageRecipe(Strict):
    """Sizes in pixels."""

    size: int = Field(ge=8, le=1024)
    """Side to which the saved processor resizes any picture, square."""
    crop: int = Field(ge=8, le=1024)
    """Side of the random crop seen in training."""
    resample: Literal["bilinear", "bicubic"] | None = None
    """How the saved processor resizes; as the start does, or bicubic, when not given. Bilinear is the softer one."""

    @model_validator(mode="after")
    def _crop_fits(self) -> ImageRecipe:
        if self.crop > self.size:
            raise ValueError(f"crop {self.crop} is larger than size {self.size}")
        return self


class AugmentRecipe(Strict):
    """Random changes of the training pictures; probabilities are per picture, those of mixing per batch."""

    flip: float = Field(default=0.5, ge=0, le=1)
    shift: int = Field(default=0, ge=0)
    """Largest shift in pixels beyond what the crop gives; the border is mirrored."""
    affine: float = Field(default=0.0, ge=0, le=1)
    degrees: float = Field(default=10.0, ge=0, le=180)
    """Largest rotation of an affine change."""
    scale: float = Field(default=0.15, ge=0, lt=1)
    """Largest relative zoom in or out of an affine change."""
    jpeg: float = Field(default=0.0, ge=0, le=1)
    blur: float = Field(default=0.0, ge=0, le=1)
    sharpen: float = Field(default=0.0, ge=0, le=1)
    noise: float = Field(default=0.0, ge=0, le=1)
    noise_std: float = Field(default=0.06, ge=0)
    """Largest standard deviation of the noise, for pixels in [0, 1]."""
    colour: float = Field(default=0.0, ge=0, le=1)
    """Strength of brightness, contrast, saturation and per-channel changes."""
    erase: float = Field(default=0.0, ge=0, le=1)
    mixup: float = Field(default=0.0, ge=0, le=1)
    cutmix: float = Field(default=0.0, ge=0, le=1)
    mix_alpha: float = Field(default=0.4, gt=0)
    """Parameter of the Beta distribution of the mixing share."""


class TrainRecipe(Strict):
    """The schedule."""

    epochs: float = Field(gt=0)
    batch_size: int = Field(default=64, ge=2)
    """Pictures per optimiser step."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Pictures per forward pass, a divisor of ``batch_size``; few stay in the cache. All at once when not given."""
    gradient_checkpointing: bool = False
    """Forget what layers computed and compute it again in the backward pass: less memory, about a third more time."""
    learning_rate: float = Field(gt=0)
    """Peak; cosine to zero after the warm-up."""
    optimizer: Literal["adamw", "muon", "paged_adamw_8bit"] = "adamw"
    """``muon`` trains the matrices of transformer layers with Muon, the rest with AdamW; ``paged_adamw_8bit`` (QLoRA,
    Dettmers et al. 2023) keeps AdamW's state in 8 bits, where a GPU may page it out, and is plain AdamW on a CPU."""
    muon_learning_rate: float = Field(default=0.02, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of all steps."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    grad_clip: float = Field(default=1.0, gt=0)
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Decay per step of the running average of the weights, which is what is evaluated and saved."""
    precision: Literal["bf16", "fp32"] = "fp32"
    """bf16 computes under autocast; the weights stay float32."""
    patience: int | None = Field(default=None, ge=1)
    """End after so many evaluations in a row without a lower validation loss, and keep the best weights."""
    evaluate_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps between two evaluations; after each epoch when not given."""
    checkpoint_steps: int = Field(default=250, ge=1)
    """Optimiser steps between two checkpoints: the most a kill can lose."""

    @model_validator(mode="after")
    def _batch_divides(self) -> TrainRecipe:
        if self.micro_batch and self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of micro_batch {self.micro_batch}")
        return self


class DistillRecipe(Strict):
    """Learning from a trained teacher besides the labels."""

    teacher: str
    """Folder or hub id of an image classifier with the same labels."""
    temperature: float = Field(default=2.0, gt=0)
    logits: float = Field(default=1.0, ge=0)
    """Weight of the Kullback-Leibler divergence to the teacher's softened probabilities."""
    labels: float = Field(default=0.5, ge=0)
    """Weight of the cross-entropy with the labels."""
    patches: float = Field(default=0.0, ge=0)
    """Weight of the same divergence patch by patch, to the teacher's class map (token labelling); 0 turns it off."""
    features: float = Field(default=0.0, ge=0)
    """Weight of the distance between patches halfway and the teacher's feature maps (hints); 0 turns it off."""
    size: int | None = Field(default=None, ge=8, le=1024)
    """Side in pixels at which pictures are resized as the teacher's processor does, changed at random, and seen by the
    teacher; the student sees the same pictures made smaller. The student's own size when not given: a teacher is at
    its best at the size it learnt with."""


class Recipe(Strict):
    """A whole training run; see ``training/recipes``."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    seed: int = 0
    labels: tuple[str, ...] = Field(min_length=2)
    """Label names by index of a new model; a ``start`` keeps its own."""
    model: ModelRecipe
    image: ImageRecipe
    augment: AugmentRecipe = AugmentRecipe()
    train: TrainRecipe
    distill: DistillRecipe | None = None
    mask_weight: float = Field(default=0.0, ge=0)
    """For transformers: weight of the loss by which every patch learns from the column ``mask`` of the training
    pictures whether it shows what decides the class (``training/masks.py``)."""
    word_weight: float = Field(default=0.0, ge=0)
    """For transformers: weight of the loss by which every patch learns from the columns ``word_ids`` and ``words`` what
    word it shows (``training/reading.py``)."""

    @model_validator(mode="after")
    def _one_teacher_of_patches(self) -> Recipe:
        for name in ("mask_weight", "word_weight"):
            if getattr(self, name) and self.distill is not None:
                raise ValueError(f"patches learn from truth or from a teacher; give either {name} or distill")
            if getattr(self, name) and (self.augment.mixup or self.augment.cutmix):
                raise ValueError(f"{name}: maps of mixed pictures would be wrong; leave out mixup and cutmix")
        if self.word_weight and self.augment.flip:
            raise ValueError("word_weight: mirrored words cannot be read; leave out augment.flip")
        return self


def read_recipe(path: Path, changes: Mapping[str, object] | None = None) -> Recipe:
    """Read and check the recipe of an image classifier.

    Args:
        path: YAML file.
        changes: dotted entries to replace, for instance ``{"train.epochs": 1}``.

    Raises:
        RecipeError: if the file is missing, is not YAML, or an entry is unknown, missing or out of range.
    """
    return read_strict(Recipe, path, changes)


def read_strict(form: type[Form], path: Path, changes: Mapping[str, object] | None = None) -> Form:
    """A YAML file checked against a form; arguments and errors as for ``read_recipe``."""
    content = read_yaml(path)
    for dotted, value in (changes or {}).items():
        _replace(content, dotted, value, path.name)
    try:
        return form.model_validate(content)
    except ValidationError as error:
        found = error.errors()[0]
        entry = ".".join(str(part) for part in found["loc"]) or "recipe"
        raise RecipeError(f"{path.name}: {entry}: {found['msg']}.") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        RecipeError: if the file is missing, is not YAML, or holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}).") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path.name}: is not YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path.name}: holds no recipe.")
    return content


def _replace(content: dict[str, Any], dotted: str, value: object, where: str) -> None:
    *parents, last = dotted.split(".")
    place: Any = content
    for key in parents:
        place = place.setdefault(key, {}) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        raise RecipeError(f"{where}: {dotted}: there is no such entry to change.")
    place[last] = value


def write_recipe(recipe: Strict, path: Path) -> None:
    """Write a recipe with every value spelled out, so that a later default changes nothing."""
    write_whole(path, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
