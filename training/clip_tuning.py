"""The small image-text model's image tower and projections trained together, from the closed form on.

Contrastive loss in both directions (Radford et al. 2021, arXiv:2103.00020). A few hundred photographs in small batches
would have too few foreign ones to be told from, so each picture is held against one caption of every photograph, and
each caption against the latest vector of every photograph (a memory bank, Wu et al. 2018, arXiv:1805.01978). The
weights kept lie between those of the start and the trained ones, which generalises better than either (Wortsman et al.
2022, arXiv:2109.01903). Pictures are trained on smaller than they are read (Touvron et al. 2019, arXiv:1906.06423):
crops show things larger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from training.clip_features import Captioned, crop_view

__all__ = ["Tuning", "blend", "contrast", "tune"]

_JITTER = 0.3  # of brightness, contrast and colour, either way


class Tuning(BaseModel):
    """How both sides are trained together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(ge=1)
    image_size: int = Field(ge=64, le=512)
    batch: int = Field(ge=2)
    trunk_rate: float = Field(gt=0)
    head_rate: float = Field(gt=0)
    share: float = Field(ge=0, le=1)
    """Of the trained weights in those kept; 0 keeps the start."""


def tune(
    network: Any,  # noqa: ANN401 - CustomTextCLIP
    photos: Captioned,
    sentences: NDArray[np.float32],
    bank: Tensor,
    settings: Tuning,
    random: np.random.Generator,
) -> list[float]:
    """Train the image tower and both projections in place; ``settings.share`` of the way is kept.

    Args:
        network: with the projections of the closed form; batch norms keep their statistics.
        photos: n photographs.
        sentences: (n, captions, q), their captions as the text projection takes them.
        bank: (n, d), the start's vectors of the photographs.
        settings: how.
        random: chooses the order, crops and captions.

    Returns:
        The mean loss of each epoch.
    """
    tower, projection = network.visual, network.text.proj
    parts = {"visual": tower, "text": projection}
    start = {name: {key: value.clone() for key, value in part.state_dict().items()} for name, part in parts.items()}
    trunk, head = list(tower.trunk.parameters()), [*tower.head.parameters(), *projection.parameters()]
    for parameter in (*trunk, *head):
        parameter.requires_grad_()
    optimizer = torch.optim.AdamW(
        [{"params": trunk, "lr": settings.trunk_rate}, {"params": head, "lr": settings.head_rate}], weight_decay=0.0
    )
    steps = settings.epochs * -(-len(photos) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [settings.trunk_rate, settings.head_rate], total_steps=steps, pct_start=0.2
    )
    captions, scale = torch.from_numpy(sentences), float(network.logit_scale.detach().exp())
    bank, losses = functional.normalize(bank, dim=-1).clone(), []
    for epoch in range(settings.epochs):
        told = []
        for places in tqdm(list(_batches(len(photos), settings.batch, random)), desc=f"epoch {epoch + 1}"):
            pixels = torch.stack([_augment(photos.open(int(at)), settings.image_size, random) for at in places])
            picked = random.integers(captions.shape[1], size=len(captions))
            texts = functional.normalize(projection(captions[np.arange(len(captions)), picked]), dim=-1)
            images = functional.normalize(tower(pixels), dim=-1)
            loss = contrast(images, texts, bank, torch.from_numpy(places), scale)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bank[places] = images.detach()
            told.append(float(loss.detach()))
        losses.append(float(np.mean(told)))
    for name, part in parts.items():
        part.requires_grad_(requires_grad=False)
        blend(part, start[name], settings.share)
    return losses


def contrast(images: Tensor, texts: Tensor, bank: Tensor, places: Tensor, scale: float) -> Tensor:
    """Mean cross entropy of each picture among all texts, and of its text among all pictures.

    Args:
        images: (b, d) of length 1, in the graph.
        texts: (n, d) of length 1, one of each photograph.
        bank: (n, d) of length 1, the latest vector of each photograph.
        places: (b,) which of the photographs the pictures show.
        scale: what a cosine is multiplied by.
    """
    told = functional.cross_entropy(scale * images @ texts.T, places)
    seen = functional.cross_entropy(scale * texts[places] @ bank.index_copy(0, places, images).T, places)
    return (told + seen) / 2


def blend(part: torch.nn.Module, start: dict[str, Tensor], share: float) -> None:
    """Put a module's weights a share of the way from where it started to where they are."""
    with torch.no_grad():
        for name, value in part.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.lerp(start[name], value, share))


def _batches(count: int, size: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    order = random.permutation(count)
    yield from np.array_split(order, -(-count // size))


def _augment(photo: Image.Image, size: int, random: np.random.Generator) -> Tensor:
    """A crop of a photograph, its light and colours changed a little: (3, size, size) in [-1, 1]."""
    view = crop_view(photo, random).resize((size, size), Image.Resampling.BICUBIC)
    enhancers: Sequence[Any] = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for enhancer in enhancers:
        view = enhancer(view).enhance(1 + random.uniform(-_JITTER, _JITTER))
    return torch.from_numpy(np.asarray(view, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1).contiguous()
