"""A start for a vision transformer that small data can learn from: it begins as a kind of convolution.

From a random start a transformer has to find out from the pictures that texture matters and that neighbours belong
together. Here the patch embedding starts as whitened principal components of real patches, and each attention head
starts by looking one patch up, down, left or right, by position alone (compare Cordonnier et al. 2020, that attention
can express convolutions, and Zheng et al. 2024, structured starts for small data). Both are only starts: everything is
trained.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor
from transformers import PreTrainedModel

from training.errors import RecipeError

SAMPLED_PICTURES, SAMPLED_PATCHES = 600, 12_000
FLOOR = 1e-3  # variance below which a component counts as noise and is not blown up
GAIN = 0.5
FREQUENCIES = 6  # per axis, a sine and a cosine each
POSITION_CHANNELS = 4 * FREQUENCIES
SHARPNESS = 3.0
CONTENT = 0.2  # what is left of the random queries and keys for the content of the patches
OFFSETS_RC = ((-1, 0), (1, 0), (0, -1), (0, 1))


def start_like_convolution(model: PreTrainedModel, pixels: Tensor, mean: Tensor, std: Tensor, seed: int) -> None:
    """Let a ViT start with whitened patches and with heads that look at neighbouring patches.

    Coarse brightness has ten thousand times the variance of fine texture, so from a random start the texture, in which
    the traces of a swap lie, is learnt last. The last ``POSITION_CHANNELS`` channels hold the position only.

    Args:
        model: a ``ViTForImageClassification`` for square pictures.
        pixels: uint8 (n, 3, h, w), training pictures of the model's size.
        mean: (1, 3, 1, 1), by which the processor normalises.
        std: (1, 3, 1, 1).
        seed: chooses the sampled pictures and patches.

    Raises:
        RecipeError: if the model has no patch embedding of this kind, or is too narrow.
    """
    vit: Any = getattr(model, "vit", None)
    if getattr(vit, "embeddings", None) is None or not hasattr(vit, "layers"):
        raise RecipeError("model.start_like_convolution: this architecture has no patch embedding to start so.")
    projection = vit.embeddings.patch_embeddings.projection
    content = projection.out_channels - POSITION_CHANNELS
    head = projection.out_channels // int(model.config.num_attention_heads)
    if content < 1 or head < POSITION_CHANNELS:
        raise RecipeError(
            f"model.start_like_convolution: hidden_size must exceed {POSITION_CHANNELS}, and each head have at least "
            f"that many channels (there are {head})."
        )
    patch = projection.kernel_size[0]
    weight, centre = _principal_components((pixels, mean, std), patch, content, seed)
    angles, waves = _positions(pixels.shape[-1] // patch)
    with torch.no_grad():
        projection.weight.zero_()
        projection.bias.zero_()
        projection.weight[:content] = weight.view_as(projection.weight[:content])
        projection.bias[:content] = -weight @ centre
        vit.embeddings.cls_token.zero_()
        vit.embeddings.position_embeddings.zero_()
        vit.embeddings.position_embeddings[0, 1:, content:] = waves
        for layer in vit.layers:
            _look_around(layer.attention, head, angles)
            # What a layer adds leaves the position alone, so that the next one still finds it.
            layer.attention.o_proj.weight[content:] = 0
            layer.mlp.fc2.weight[content:] = 0


def _principal_components(
    pictures: tuple[Tensor, Tensor, Tensor], patch: int, count: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Whitening components (count, 3 * patch * patch) of sampled patches and their mean (3 * patch * patch,)."""
    pixels, mean, std = pictures
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(pixels), generator=generator)[:SAMPLED_PICTURES]
    patches = F.unfold((pixels[chosen].float() / 255 - mean) / std, patch, stride=patch)
    rows = patches.transpose(1, 2).flatten(0, 1)
    rows = rows[torch.randperm(len(rows), generator=generator)[:SAMPLED_PATCHES]]
    centre = rows.mean(0)
    variances, components = torch.linalg.eigh((rows - centre).T @ (rows - centre) / len(rows))
    if len(variances) < count:
        raise RecipeError(
            f"model.start_like_convolution: a patch has {len(variances)} values, fewer than the {count} channels "
            "it would fill; take a smaller hidden_size or larger patches."
        )
    weight = (components.flip(1)[:, :count] / (variances.flip(0)[:count] + FLOOR).sqrt()).T * GAIN
    return weight, centre


def _positions(side: int) -> tuple[Tensor, Tensor]:
    """Angles per patch (FREQUENCIES,), and cosine and sine of every patch's row and column (side * side, channels)."""
    angles = torch.exp(torch.linspace(math.log(math.pi / side), math.log(0.8 * math.pi), FREQUENCIES))
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    turned = torch.stack([line.flatten()[:, None] * angles for line in (rows, columns)], 1)
    return angles, torch.stack([turned.cos(), turned.sin()], -1).flatten(1)


def _look_around(attention: Any, head: int, angles: Tensor) -> None:  # noqa: ANN401 - the library names no type
    """Queries of each head turn a patch's position into that of a neighbour, for which the keys then match."""
    for projection in (attention.q_proj, attention.k_proj):
        projection.bias.zero_()
        projection.weight.mul_(CONTENT)
    for index in range(attention.q_proj.out_features // head):
        offset = OFFSETS_RC[index % len(OFFSETS_RC)]
        turns = [_rotation(steps * float(angle)) for steps in offset for angle in angles]
        rows = slice(index * head, index * head + POSITION_CHANNELS)
        for projection, turn in (
            (attention.q_proj, torch.block_diag(*turns)),
            (attention.k_proj, torch.eye(POSITION_CHANNELS)),
        ):
            projection.weight[rows] *= CONTENT / 2
            projection.weight[rows, -POSITION_CHANNELS:] = turn * SHARPNESS


def _rotation(angle: float) -> Tensor:
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
