"""Decoded pictures in memory, resized once by the very processor that is saved beside the weights."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from transformers.image_processing_utils import BaseImageProcessor

from models.errors import BadImageError
from models.imaging import read_image
from training.augment import augment_pictures, mix_batch
from training.decoding import decode_each
from training.errors import DataError
from training.labelled import LabelledSet
from training.recipe import AugmentRecipe

logger = logging.getLogger(__name__)


def decode_pictures(labelled: LabelledSet, processor: BaseImageProcessor) -> tuple[Tensor, list[int]]:
    """Read and resize every picture.

    Args:
        labelled: the set.
        processor: image processor of transformers; its resize (and centre crop) is applied, not its normalisation.

    Returns:
        uint8 (n, 3, h, w) and the indices of the pictures that could be read, aligned.

    Raises:
        DataError: if none can be read.
    """

    def decode(index: int) -> NDArray[np.uint8] | str:
        try:
            image = read_image(labelled.pictures[index], name=labelled.sources[index]).rgb
        except BadImageError as error:
            return str(error)
        pixels: Tensor = processor(image, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"][0]
        return pixels.round().clamp(0, 255).to(torch.uint8).numpy()

    decoded: Tensor | None = None
    readable: list[int] = []
    for index, pixels in enumerate(decode_each(len(labelled), decode, "decoding")):
        if isinstance(pixels, str):
            logger.warning("left out: %s", pixels)
            continue
        if decoded is None:  # room for all at once: stacking them in the end would need every picture twice
            decoded = torch.empty(len(labelled), *pixels.shape, dtype=torch.uint8)
        decoded[len(readable)] = torch.from_numpy(pixels)
        readable.append(index)
    if decoded is None:
        raise DataError("none of the pictures can be read.")
    return decoded[: len(readable)], readable


def read_statistics(processor: BaseImageProcessor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, for pixels in [0, 1], by which a processor normalises."""
    return list(getattr(processor, "image_mean", None) or [0.0] * 3), list(
        getattr(processor, "image_std", None) or [1.0] * 3
    )


class Pictures(Dataset[Any]):
    """Whole batches of normalised pictures and soft labels, augmented when a recipe for it is given.

    Args:
        pixels: uint8 (n, 3, h, w).
        labels: index of the model's label of each picture.
        classes: number of labels of the model.
        processor: gives mean and standard deviation.
        crop: side of the training crop in pixels.
        seed: of the random changes.
        augment: how to change training pictures; None leaves them whole and unchanged.
        maps: by name uint8 (n, channels, h, w) of what each pixel shows, for training pictures that have them.
    """

    def __init__(
        self,
        pixels: Tensor,
        labels: Sequence[int],
        classes: int,
        processor: BaseImageProcessor,
        *,
        crop: int | None = None,
        augment: AugmentRecipe | None = None,
        seed: int = 0,
        maps: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.pixels = pixels
        self._maps = dict(maps or {})
        self._targets = torch.nn.functional.one_hot(torch.tensor(labels), classes).float()
        mean, std = read_statistics(processor)
        self.mean = torch.tensor(mean).view(1, 3, 1, 1)
        self.std = torch.tensor(std).view(1, 3, 1, 1)
        self._crop = crop or pixels.shape[-1]
        self._augment = augment
        self._seed = seed

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """A batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        """One batch, which is what the data loader asks for.

        Returns:
            ``pixel_values`` (n, 3, h, w), ``labels`` (n, classes) and every map, its values over 255.
        """
        pixels, targets = self.pixels[indices], self._targets[indices]
        pixels = torch.cat([pixels, *(one[indices] for one in self._maps.values())], 1)
        if self._augment is None:
            values = pixels.float().div_(255)
        else:
            # The loader fetches ahead of the step that a checkpoint belongs to, so a stream of random numbers could not
            # be taken up again. Seeded by its own pictures, a batch is changed alike in a whole and in a resumed run.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(hash_batch(self._seed, indices))
                values = augment_pictures(pixels, self._crop, self._augment)
                values, targets = mix_batch(values, targets, self._augment)
        batch = {"pixel_values": (values[:, :3] - self.mean) / self.std, "labels": targets}
        widths = [one.shape[1] for one in self._maps.values()]
        return batch | dict(zip(self._maps, values[:, 3:].split(widths, 1), strict=True))


def hash_batch(seed: int, indices: Sequence[int]) -> int:
    """A seed for the random changes of one batch, by its pictures."""
    return int.from_bytes(hashlib.sha256(repr((seed, list(indices))).encode()).digest()[:7], "big")


def keep_batch(batch: Any) -> Any:  # noqa: ANN401 - the signature that data loaders want
    """Collate function for ``Pictures``, whose batches are complete already."""
    return batch
