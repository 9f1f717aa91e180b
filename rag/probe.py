"""A head that reads a claim off a picture's vectors, for kinds of pictures that an image-text model never learned.

A general image-text model puts all drawn chats into one corner of its space: its cosines cannot tell their claims
apart, although its vectors can. The head compares the claim with the whole and with every region in a space of its own,
attends to the regions that matter (attention as in Vaswani et al. 2017, arXiv:1706.03762; products of projected vectors
as in Kim et al. 2017, arXiv:1610.04325) and gives log-odds. Where it attends is the region it rests on. It is
calibrated per image-text model and kind of picture, like the fusion that weighs it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from models.errors import ExhibitError
from models.schema import Box

__all__ = ["Probe", "ProbeSettings", "Sample", "fit_probe", "load_probe", "place_features", "save_probe"]

_PLACES = 6


@dataclass(frozen=True)
class ProbeSettings:
    """How a probe is trained.

    Attributes:
        width: of the space in which claim and regions are compared.
        epochs: passes over the samples.
        batch: pictures at a time, each with all of its claims.
        learning_rate: peak, reached after a tenth of the steps.
        weight_decay: of AdamW.
        dropout: share of the comparisons that are hidden.
        noise: standard deviation of the noise on the vectors' entries, in units of their own standard deviation.
        region_weight: of the loss that draws attention to the regions a claim is known to be about.
        seed: of the start, the order and the noise.
    """

    width: int = 96
    epochs: int = 40
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    dropout: float = 0.2
    noise: float = 0.8
    region_weight: float = 0.3
    seed: int = 0


@dataclass(frozen=True)
class Sample:
    """One picture to learn from.

    Attributes:
        whole: float32 (d,).
        regions: float32 (k, d).
        places: float32 (k, 6), from ``place_features``.
        texts: float32 (n, d), vectors of n claims.
        truths: bool (n,).
        about: bool (n, k), regions that a claim is about; all False where that is not known.
    """

    whole: NDArray[np.float32]
    regions: NDArray[np.float32]
    places: NDArray[np.float32]
    texts: NDArray[np.float32]
    truths: NDArray[np.bool_]
    about: NDArray[np.bool_]


def place_features(boxes: Sequence[Box], size_wh: tuple[int, int]) -> NDArray[np.float32]:
    """Where regions lie: float32 (k, 6), centre in [-1, 1], its squares, width and height as shares."""
    table = np.asarray(boxes, dtype=np.float32).reshape(-1, 4) / np.tile(np.asarray(size_wh, np.float32), 2)
    centre, extent = table[:, :2] + table[:, 2:] - 1, table[:, 2:] - table[:, :2]
    return np.concatenate([centre, centre**2, extent], axis=1).astype(np.float32)


class _Network(nn.Module):
    """Claims about pictures: log-odds (n,) and unnormalised attention (n, k), from p pictures and n claims."""

    def __init__(self, dims: int, width: int, dropout: float) -> None:
        super().__init__()
        self.region_key = nn.Linear(dims + _PLACES, width)
        self.region_value = nn.Linear(dims + _PLACES, width)
        self.whole_value = nn.Linear(dims, width)
        self.text_key = nn.Linear(dims, width)
        self.text_value = nn.Linear(dims, 2 * width)
        self.hidden = nn.Linear(4 * width, width)
        self.out = nn.Linear(width, 1)
        self.dropout = nn.Dropout(dropout)
        # Vectors of length 1 have small entries; brought to the size that linear layers start from.
        self.scale = dims**0.5

    def forward(self, pictures: _Pictures, texts: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
        """Texts (n, d), and the number (n,) of the picture that each is about."""
        placed = torch.cat([pictures.regions * self.scale, pictures.places], dim=-1)
        keys, values = self.region_key(placed), self.region_value(placed)  # once per picture, not per claim
        text = texts * self.scale
        scores = torch.einsum("nw,nkw->nk", self.text_key(text), keys[owners]) / keys.shape[-1] ** 0.5
        scores = scores.masked_fill(~pictures.present[owners], float("-inf"))
        looked = torch.einsum("nk,nkw->nw", scores.softmax(-1), values[owners])
        seen = torch.cat([looked, self.whole_value(pictures.whole * self.scale)[owners]], dim=-1)
        said = self.text_value(text)
        compared = self.dropout(torch.cat([seen * said, functional.gelu(seen + said)], dim=-1))
        return self.out(functional.gelu(self.hidden(compared)))[:, 0], scores


class _Pictures(NamedTuple):
    """Vectors of p pictures: whole (p, d), regions (p, k, d), their places (p, k, 6), which are there (p, k)."""

    whole: Tensor
    regions: Tensor
    places: Tensor
    present: Tensor


class _Batch(NamedTuple):
    """Pictures with their claims: vectors, picture, truth, and the regions that each is about."""

    pictures: _Pictures
    texts: Tensor
    owners: Tensor
    truths: Tensor
    about: Tensor


@dataclass(frozen=True)
class Probe:
    """A trained head; ``about`` says what it learned from."""

    network: _Network
    about: Mapping[str, Any]

    def read(
        self,
        whole: NDArray[np.float32],
        regions: NDArray[np.float32],
        places: NDArray[np.float32],
        texts: NDArray[np.float32],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Log-odds (n,) of n claims about one picture, and how much each rests on each region (n, k), summing to 1.

        Args:
            whole: float32 (d,), the picture's vector.
            regions: float32 (k, d).
            places: float32 (k, 6), from ``place_features``.
            texts: float32 (n, d), the claims' vectors.
        """
        about = np.zeros((len(texts), len(regions)), dtype=bool)
        batch = _collate([Sample(whole, regions, places, texts, np.zeros(len(texts), dtype=bool), about)])
        with torch.no_grad():
            odds, scores = self.network(batch.pictures, batch.texts, batch.owners)
        attention: NDArray[np.float32] = scores.softmax(-1).numpy()
        return odds.numpy(), attention

    @cached_property
    def dims(self) -> int:
        """Length of the vectors it reads."""
        return self.network.whole_value.in_features


def fit_probe(samples: Sequence[Sample], settings: ProbeSettings, about: Mapping[str, Any]) -> Probe:
    """Train a probe by AdamW with a one-cycle rate.

    Args:
        samples: pictures with true and false claims.
        settings: how.
        about: provenance, stored with the weights.
    """
    torch.manual_seed(settings.seed)
    random = np.random.default_rng(settings.seed)
    network = _Network(samples[0].whole.shape[0], settings.width, settings.dropout)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    steps = settings.epochs * -(-len(samples) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps, pct_start=0.1)
    noise = settings.noise / samples[0].whole.shape[0] ** 0.5
    network.train()
    for _ in range(settings.epochs):
        order = random.permutation(len(samples))
        for start in range(0, len(order), settings.batch):
            batch = _collate([samples[at] for at in order[start : start + settings.batch]])
            shown = batch.pictures._replace(
                whole=_disturb(batch.pictures.whole, noise), regions=_disturb(batch.pictures.regions, noise)
            )
            odds, scores = network(shown, _disturb(batch.texts, noise), batch.owners)
            loss = functional.binary_cross_entropy_with_logits(odds, batch.truths)
            loss = loss + settings.region_weight * _astray(scores, batch.about)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval().requires_grad_(requires_grad=False)
    return Probe(network, dict(about))


def save_probe(probe: Probe, file: Path) -> None:
    """Write the weights in half precision, with what they learned from, as safetensors."""
    state = {name: tensor.half().contiguous() for name, tensor in probe.network.state_dict().items()}
    save_file(state, file, metadata={"about": json.dumps(dict(probe.about), sort_keys=True)})


def load_probe(file: Path) -> Probe:
    """A stored probe, float32.

    Raises:
        ExhibitError: the file is missing, damaged, or holds something else.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            about = json.loads((stored.metadata() or {})["about"])
            state = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118 - not a mapping
        width, dims = state["whole_value.weight"].shape
        network = _Network(dims, width, 0.0)
        network.load_state_dict(state)
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise ExhibitError(f"{file}: cannot be read as a probe ({str(error).splitlines()[0]})") from error
    return Probe(network.eval().requires_grad_(requires_grad=False), about)


def _astray(scores: Tensor, about: Tensor) -> Tensor:
    """How little attention lies on the regions that a claim is about, as a cross-entropy; 0 if no claim has any."""
    known = about.any(-1)
    if not bool(known.any()):
        return scores.new_zeros(())
    chosen = scores[known]
    inside = chosen.masked_fill(~about[known], float("-inf"))
    return (chosen.logsumexp(-1) - inside.logsumexp(-1)).mean()


def _disturb(vectors: Tensor, noise: float) -> Tensor:
    return vectors + noise * torch.randn_like(vectors)


def _collate(samples: Sequence[Sample]) -> _Batch:
    """Several pictures as one batch; regions are filled up to the most of them with ones that are masked."""
    most = max(len(sample.regions) for sample in samples)
    missing = [most - len(sample.regions) for sample in samples]
    pairs = list(zip(samples, missing, strict=True))
    pictures = _Pictures(
        torch.from_numpy(np.stack([sample.whole for sample in samples])),
        torch.stack([functional.pad(torch.from_numpy(sample.regions), (0, 0, 0, more)) for sample, more in pairs]),
        torch.stack([functional.pad(torch.from_numpy(sample.places), (0, 0, 0, more)) for sample, more in pairs]),
        torch.stack([torch.arange(most) < len(sample.regions) for sample in samples]),
    )
    return _Batch(
        pictures,
        torch.cat([torch.from_numpy(sample.texts) for sample in samples]),
        torch.repeat_interleave(torch.tensor([len(sample.texts) for sample in samples])),
        torch.cat([torch.from_numpy(sample.truths.astype(np.float32)) for sample in samples]),
        torch.cat([functional.pad(torch.from_numpy(sample.about), (0, more)) for sample, more in pairs]),
    )
