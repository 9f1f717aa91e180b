"""Vision towers with learnt positions, for pictures of another size than the network came with."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

__all__ = ["is_square", "make_room"]


def is_square(patches: int) -> bool:
    """Whether so many patches fill a square picture."""
    return math.isqrt(patches) ** 2 == patches


def make_room(embeddings: Any, patches: int) -> None:  # noqa: ANN401 - SigLIP's embeddings, which the library names anew
    """Let a SigLIP tower's embeddings take square pictures of so many patches; the new positions are yet to be loaded.

    Args:
        embeddings: with ``position_embedding`` and ``position_ids``; changed in place.
        patches: a square number.

    Raises:
        ValueError: patches do not make a square.
    """
    if not is_square(patches):
        raise ValueError(f"{patches} patches make no square")
    old: nn.Embedding = embeddings.position_embedding
    embeddings.position_embedding = nn.Embedding(
        patches, old.embedding_dim, device=old.weight.device, dtype=old.weight.dtype
    )
    embeddings.position_embedding.requires_grad_(old.weight.requires_grad)
    embeddings.position_ids = torch.arange(patches, device=old.weight.device)[None]
    embeddings.num_patches = embeddings.num_positions = patches
    embeddings.image_size = math.isqrt(patches) * embeddings.patch_size
