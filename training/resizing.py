"""A vision transformer for pictures of another size than it learnt with: its positions are interpolated.

As in Dosovitskiy et al. 2021 (arXiv:2010.11929, section 3.2): patches stay as large as they are, so a larger picture
has more of them, and each takes the position that lies where it lies.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from training.errors import RecipeError


def resize_positions(classifier: PreTrainedModel, side: int) -> None:
    """Let a ViT take square pictures of that side; networks without learnt positions take any as they are.

    Args:
        classifier: changed in place, its config too.
        side: pixels, a multiple of the patches' side.

    Raises:
        RecipeError: patches do not fill such a picture.
    """
    embeddings: Any = getattr(getattr(classifier, "vit", None), "embeddings", None)
    if embeddings is None or classifier.config.image_size == side:
        return
    patch = int(classifier.config.patch_size)
    if side % patch:
        raise RecipeError(f"image.size: patches of {patch} px do not fill {side} px; take a multiple of {patch}.")
    wanted = torch.empty(1, (side // patch) ** 2 + 1, classifier.config.hidden_size)  # it reads the shape alone
    with torch.no_grad():
        positions = embeddings.interpolate_pos_encoding(wanted, side, side)
    embeddings.position_embeddings = nn.Parameter(positions.clone())
    embeddings.image_size = embeddings.patch_embeddings.image_size = (side, side)
    embeddings.patch_embeddings.num_patches = (side // patch) ** 2
    classifier.config.image_size = side
