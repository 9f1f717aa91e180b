"""Masks of what decides a picture's class, and the loss by which every patch of a transformer learns from them.

A label tells a transformer once per picture what to look for; a mask tells each of its patches, which is why one that
starts from little learns several times as fast (token labelling, Jiang et al. 2021, with truth for a teacher).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training.decoding import decode_each
from training.errors import DataError

COLUMN = "mask"


def read_masks(file: Path, rows: Sequence[int], side: int) -> Tensor:
    """The masks of some rows of a parquet file, stretched to the pictures' size.

    Args:
        file: has a column ``mask`` of PNG bytes (a struct with ``bytes``), above 0 where a pixel shows what decides.
        rows: their numbers.
        side: of the pictures in pixels.

    Returns:
        uint8 (n, 1, side, side), 255 where the mask is set, softened at its edges by the resizing.

    Raises:
        DataError: if the file has no masks, or one cannot be read.
    """
    if COLUMN not in pq.read_schema(file).names:
        raise DataError(f"{file.name}: mask_weight needs a column {COLUMN}, as python -m training scenes writes it.")
    encoded = pq.read_table(file, columns=[COLUMN])[COLUMN]

    def decode(place: int) -> NDArray[np.uint8]:
        try:
            mask = Image.open(io.BytesIO(encoded[rows[place]].as_py()["bytes"]))
            deciding = Image.fromarray((np.asarray(mask.convert("L")) > 0).astype(np.uint8) * 255)
        except (OSError, TypeError, KeyError) as error:
            raise DataError(f"{file.name} row {rows[place]}: its mask cannot be read: {error}") from error
        return np.array(deciding.resize((side, side), Image.Resampling.BOX))

    masks = torch.empty(len(rows), 1, side, side, dtype=torch.uint8)
    for place, mask in enumerate(decode_each(len(rows), decode, "masks")):
        masks[place, 0] = torch.from_numpy(mask)
    return masks


def mask_loss(patch_logits: Tensor, masks: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every patch with what it shows: the picture's class where the mask is set, elsewhere nothing.

    Args:
        patch_logits: float32 (n, prefix + patches, classes + 1), the last entry for "nothing that decides"; the patches
            are a square grid, row by row.
        masks: float32 (n, side, side) in [0, 1].
        targets: float32 (n, classes), rows summing to 1.

    Returns:
        Scalar, the mean over all patches; a patch that is covered in part has a target in between.
    """
    grid = int(patch_logits.shape[1] ** 0.5)
    covered = F.adaptive_avg_pool2d(masks.unsqueeze(1), grid).flatten(1).unsqueeze(-1)
    wanted = torch.cat([covered * targets.unsqueeze(1), 1 - covered], -1)
    logits = patch_logits[:, -grid * grid :].float()
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(0, 1))
