"""How a network in training sees pictures: by features computed once, resized once, or by its processor every time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm
from transformers.modeling_outputs import BaseModelOutputWithPooling

from training.asking import Asked, AskedAnew, read_picture
from training.augment import augment_pictures
from training.decoding import decode_each
from training.errors import RecipeError
from training.language_recipe import LanguageRecipe
from training.pictures import read_statistics
from training.pupil import Pupil
from training.questions import QuestionSet
from training.recipe import AugmentRecipe

LOOKED_AT_ONCE = 16
Way = Literal["features", "resized", "processor"]


class SeenTower(nn.Module):
    """A frozen vision tower that has looked at every picture beforehand; it is given their numbers.

    Args:
        features: (views, tokens, channels), the last hidden state of the tower, any floating dtype.
        tower: the real one, whose config and dtype the model may ask for.
    """

    def __init__(self, features: Tensor, tower: nn.Module) -> None:
        super().__init__()
        self.config: Any = tower.config
        self.dtype = torch.float32
        self._features = features  # no buffer: it is no part of a checkpoint

    def forward(self, pixel_values: Tensor, **_: object) -> BaseModelOutputWithPooling:
        """The features of the views with these numbers, (n,) integers in any dtype."""
        seen = self._features[pixel_values.long().to(self._features.device)]
        return BaseModelOutputWithPooling(last_hidden_state=seen.to(pixel_values.device).float())


@dataclass(frozen=True)
class SeenViews:
    """Numbers of pictures to numbers of views of a ``SeenTower``; which of several views is drawn.

    Attributes:
        first: number of the first picture's first view.
        count: views per picture.
    """

    first: int = 0
    count: int = 1

    def __call__(self, pictures: Sequence[int]) -> Tensor:
        """(n,) int64."""
        numbers = torch.tensor(pictures)
        return self.first + numbers * self.count + torch.randint(self.count, numbers.shape)


class ResizedViews:
    """Pictures that were resized once, changed at random if a recipe for that is given, and normalised.

    Args:
        pixels: uint8 (n, 3, h, w).
        image_processor: gives mean and standard deviation.
        augment: how to change them.
    """

    def __init__(self, pixels: Tensor, image_processor: Any, augment: AugmentRecipe | None) -> None:  # noqa: ANN401
        self._pixels = pixels
        mean, std = read_statistics(image_processor)
        self._mean = torch.tensor(mean).view(1, 3, 1, 1)
        self._std = torch.tensor(std).view(1, 3, 1, 1)
        self._augment = augment

    def __call__(self, pictures: Sequence[int]) -> Tensor:
        """float32 (n, 3, h, w)."""
        pixels = self._pixels[list(pictures)]
        if self._augment is None:
            values = pixels.float().div_(255)
        else:
            values = augment_pictures(pixels, pixels.shape[-1], self._augment)
        return (values - self._mean) / self._std


def choose_way(recipe: LanguageRecipe, pupil: Pupil) -> Way:
    """How the pictures of a recipe reach its network.

    Raises:
        RecipeError: if the recipe asks for a way that this family or what is trained does not allow.
    """
    stretched = _stretches(pupil)
    if recipe.pictures is None:
        if not stretched:
            wanted: Way = "processor"
        else:
            wanted = "resized" if pupil.trains_tower or recipe.augment else "features"
    else:
        wanted = recipe.pictures
    if wanted != "processor" and not stretched:
        raise RecipeError(f"pictures: {wanted}: {recipe.family} does not stretch pictures to one size; say processor.")
    if wanted == "features" and pupil.trains_tower:
        raise RecipeError("pictures: features: the recipe trains the vision tower; say resized or processor.")
    if wanted == "processor" and (recipe.augment or recipe.flipped):
        entry = "augment" if recipe.augment else "flipped"
        raise RecipeError(f"{entry}: pictures that only the processor reads are not changed; leave {entry} out.")
    return wanted


@contextmanager
def looking(
    recipe: LanguageRecipe, pupil: Pupil, train: QuestionSet, held_out: QuestionSet
) -> Iterator[tuple[Dataset[Any], Dataset[Any]]]:
    """Both sets as batches; within the block the network sees their pictures.

    Raises:
        RecipeError: as ``choose_way``.
        DataError: if a picture cannot be read.
    """
    way = choose_way(recipe, pupil)
    family, processor = pupil.family, pupil.processor
    if way == "features":
        with _looking_beforehand(recipe, pupil, train, held_out) as both:
            yield both
    elif way == "resized":
        images = processor.image_processor
        augment = recipe.augment or (AugmentRecipe(flip=0.5) if recipe.flipped else None)
        shown = ResizedViews(resize_once(train.pictures, images), images, augment)
        held = ResizedViews(resize_once(held_out.pictures, images), images, None)
        yield Asked(train, family, processor, shown, recipe.seed), Asked(held_out, family, processor, held)
    else:
        for picture in tqdm((*train.pictures, *held_out.pictures), desc="checking", unit="img", mininterval=1.0):
            read_picture(picture)  # one that cannot be read would end a long run in the middle
        yield AskedAnew(train, family, processor), AskedAnew(held_out, family, processor)


@contextmanager
def _looking_beforehand(
    recipe: LanguageRecipe, pupil: Pupil, train: QuestionSet, held_out: QuestionSet
) -> Iterator[tuple[Asked, Asked]]:
    network, name = pupil.base, pupil.family.anatomy(pupil.base).tower
    tower = network.get_submodule(name).eval()
    images = pupil.processor.image_processor
    seen = look_once(tower, images, train.pictures, mirrored=recipe.flipped)
    held = look_once(tower, images, held_out.pictures, mirrored=False) if held_out.pictures else seen[:0]
    network.set_submodule(name, SeenTower(torch.cat([seen, held]), tower))
    views = SeenViews(count=2 if recipe.flipped else 1)
    try:
        yield (
            Asked(train, pupil.family, pupil.processor, views, recipe.seed),
            Asked(held_out, pupil.family, pupil.processor, SeenViews(first=len(seen))),
        )
    finally:
        network.set_submodule(name, tower)


@torch.no_grad()
def look_once(
    tower: nn.Module,
    processor: Any,  # noqa: ANN401
    pictures: Sequence[bytes | Path],
    *,
    mirrored: bool,
) -> Tensor:
    """The tower's last hidden state of every picture, (views, tokens, channels) bfloat16 on the CPU.

    Args:
        tower: vision encoder.
        processor: its image processor.
        pictures: encoded, n of them.
        mirrored: each picture is followed by its mirror image: 2 n views.

    Raises:
        DataError: if a picture cannot be read.
    """
    device = next(tower.parameters()).device

    def decode(place: int) -> NDArray[np.float32]:
        shown: Tensor = processor(images=[read_picture(pictures[place])], return_tensors="pt")["pixel_values"][0]
        return shown.numpy()

    seen: list[Tensor] = []
    views = decode_each(len(pictures), decode, "looking")
    while shown := list(itertools.islice(views, LOOKED_AT_ONCE)):
        pixels = torch.from_numpy(np.stack(shown)).to(device)
        if mirrored:
            pixels = torch.stack([pixels, pixels.flip(-1)], 1).flatten(0, 1)
        # Half the bits, twice the speed: what is kept of the features has no more of them.
        with torch.autocast(pixels.device.type, dtype=torch.bfloat16):
            seen.append(tower(pixels).last_hidden_state.to("cpu", torch.bfloat16))
    return torch.cat(seen)


def resize_once(pictures: Sequence[bytes | Path], image_processor: Any) -> Tensor:  # noqa: ANN401
    """Every picture at the size that the network sees, uint8 (n, 3, h, w).

    Raises:
        DataError: if a picture cannot be read.
    """

    def decode(place: int) -> NDArray[np.uint8]:
        shown = image_processor(
            read_picture(pictures[place]), do_rescale=False, do_normalize=False, return_tensors="pt"
        )
        pixels: Tensor = shown["pixel_values"][0]
        return pixels.round().clamp(0, 255).to(torch.uint8).numpy()

    resized = list(decode_each(len(pictures), decode, "decoding"))
    return torch.from_numpy(np.stack(resized)) if resized else torch.zeros(0, 3, 1, 1, dtype=torch.uint8)


def _stretches(pupil: Pupil) -> bool:
    """Whether every picture, whatever its shape, becomes one of the same size for the tower."""
    if pupil.family.remote_code:
        return False
    shapes = set()
    for size_wh in ((64, 64), (256, 64)):
        prompt = pupil.family.prompt(pupil.processor, "?")
        encoded = pupil.family.encode(pupil.processor, [Image.new("RGB", size_wh)], [prompt])
        shapes.add((tuple(encoded["pixel_values"].shape), encoded["input_ids"].shape[1]))
    (shape, _), *others = shapes
    return not others and len(shape) == 4
