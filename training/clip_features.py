"""What the small image-text model is made from: an ImageNet network and its classes, photographs, their features."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import MobileNetV2ForImageClassification

from training.errors import DataError

__all__ = [
    "Captioned",
    "crop_view",
    "find_views",
    "read_captioned",
    "read_classes",
    "recall_or_find",
    "settle_norms",
    "take_over",
]

_CAPTIONS = 5
_SMALLEST_SHARE = 0.4
_MOST_STRETCH = 0.3  # of a crop's sides, as a logarithm


@dataclass(frozen=True)
class Captioned:
    """Photographs, each with five captions."""

    images: tuple[bytes, ...]
    captions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        """Number of photographs."""
        return len(self.images)

    def open(self, place: int) -> Image.Image:
        """One photograph in RGB."""
        return Image.open(io.BytesIO(self.images[place])).convert("RGB")


def read_captioned(files: Sequence[Path]) -> Captioned:
    """The rows of parquet files (``image``, ``captions``) that have five captions or more; the first five count.

    Raises:
        DataError: a file is missing or has no such rows.
    """
    images: list[bytes] = []
    captions: list[tuple[str, ...]] = []
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: there is no such file; the captions are described in ../shared/data/README.md.")
        if not {"image", "captions"} <= set(pq.read_schema(file).names):
            raise DataError(f"{file}: no columns image and captions.")
        before = len(images)
        for row in pq.read_table(file, columns=["image", "captions"]).to_pylist():
            if row["captions"] and len(row["captions"]) >= _CAPTIONS:
                images.append(row["image"]["bytes"])
                captions.append(tuple(row["captions"][:_CAPTIONS]))
        if len(images) == before:
            raise DataError(f"{file}: no row has {_CAPTIONS} captions.")
    return Captioned(tuple(images), tuple(captions))


def take_over(trunk: nn.Module, start: Path) -> None:
    """Give a MobileNetV2 of timm the weights of the transformers library's.

    Both hold the same convolutions in the same order. Their padding differs by a pixel at each halving, which shifts
    what a cell sees but not what it computes.

    Args:
        trunk: ``mobilenetv2_100`` without classifier.
        start: folder of a ``MobileNetV2ForImageClassification``.

    Raises:
        DataError: the folder is missing or holds another network.
    """
    if not (start / "model.safetensors").is_file():
        raise DataError(f"{start}: there is no model.safetensors; give the folder of MobileNetV2 as `start`.")
    source = MobileNetV2ForImageClassification.from_pretrained(start, use_safetensors=True, dtype=torch.float32).eval()
    for kind in (nn.Conv2d, nn.BatchNorm2d):
        theirs = [part for part in source.mobilenet_v2.modules() if isinstance(part, kind)]
        ours = [part for part in trunk.modules() if isinstance(part, kind)]
        if [part.weight.shape for part in theirs] != [part.weight.shape for part in ours]:
            raise DataError(f"{start}: holds a network of other widths than mobilenetv2_100.")
        for own, other in zip(ours, theirs, strict=True):
            own.load_state_dict(other.state_dict())
            if isinstance(own, nn.BatchNorm2d) and isinstance(other, nn.BatchNorm2d):
                own.eps = other.eps


def read_classes(start: Path) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """The classes of the ImageNet network: weights (n, channels) of its last layer, and the first name of each.

    Args:
        start: as for ``take_over``, which checks it.
    """
    names = json.loads((start / "config.json").read_text(encoding="utf-8"))["id2label"]
    weights = load_file(start / "model.safetensors")["classifier.weight"].float().numpy()
    kept = [place for place in range(len(weights)) if names[str(place)] != "background"]
    return weights[kept], tuple(names[str(place)].split(",")[0] for place in kept)


def settle_norms(trunk: nn.Module, pixels: Tensor, eps: float = 1e-5) -> None:
    """Set every batch norm's statistics from real activations, and its weights so that it computes what it did.

    The starting weights carry mean 0 and variance 1, which no later training could go on from.

    Args:
        trunk: the network, in evaluation mode.
        pixels: (n, 3, height, width), prepared pictures.
        eps: what the norms are to add to the variance from now on.
    """

    def settle(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)  # noqa: S101 - for the type checker
        assert norm.running_mean is not None  # noqa: S101
        assert norm.running_var is not None  # noqa: S101
        mean, variance = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3), unbiased=False)
        slope = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias.add_(slope * (mean - norm.running_mean))
        norm.weight.copy_(slope * (variance + eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.eps = eps

    norms = [part for part in trunk.modules() if isinstance(part, nn.BatchNorm2d)]
    handles = [norm.register_forward_pre_hook(settle) for norm in norms]
    try:
        with torch.no_grad():
            trunk(pixels)
    finally:
        for handle in handles:
            handle.remove()


def find_views(
    photos: Captioned,
    trunk: nn.Module,
    prepare: Callable[[Sequence[Image.Image]], Tensor],
    views: int,
    random: np.random.Generator,
) -> NDArray[np.float32]:
    """Pooled features (n, views, channels) of every photograph: of itself, mirrored, then of random crops.

    Args:
        photos: n photographs.
        trunk: pictures (n, 3, height, width) to (n, channels).
        prepare: a list of RGB pictures to such pictures.
        views: how many of each, 1 for the photograph alone; half of the crops are mirrored too.
        random: chooses the crops.
    """
    rows = []
    for place in tqdm(range(len(photos)), desc="features", unit="photo"):
        photo = photos.open(place)
        seen = [photo, ImageOps.mirror(photo), *(crop_view(photo, random) for _ in range(views - 2))][:views]
        with torch.no_grad():
            rows.append(trunk(prepare(seen)).numpy())
    return np.stack(rows)


def recall_or_find(
    file: Path | None, key: object, find: Callable[[], dict[str, NDArray[np.float32]]]
) -> dict[str, NDArray[np.float32]]:
    """Arrays that take minutes to find, read from a file if they were found there before from the same.

    Args:
        file: where they are kept (``.npz``); ``None`` keeps nothing.
        key: what they depend on, as JSON can say it; other contents of the file are replaced.
        find: finds them.
    """
    told = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
    if file is not None and file.is_file():
        with np.load(file, allow_pickle=False) as kept:
            if str(kept["key"]) == told:
                return {name: kept[name] for name in kept.files if name != "key"}
    found = find()
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        kept_now: dict[str, Any] = {"key": np.array(told), **found}
        np.savez(file, **kept_now)
    return found


def crop_view(photo: Image.Image, random: np.random.Generator) -> Image.Image:
    """A random part of a photograph, 40 to 100 % of it, mirrored half of the time."""
    share, stretch = np.sqrt(random.uniform(_SMALLEST_SHARE, 1)), np.exp(random.uniform(-_MOST_STRETCH, _MOST_STRETCH))
    width, height = (
        min(photo.width, int(photo.width * share * stretch)),
        min(photo.height, int(photo.height * share / stretch)),
    )
    left, top = random.integers(0, photo.width - width + 1), random.integers(0, photo.height - height + 1)
    crop = photo.crop((int(left), int(top), int(left) + width, int(top) + height))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else crop
