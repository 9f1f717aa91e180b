"""Two checks that a map must not pass unchanged: another network, and another label.

A map that stays the same when the network's weights are replaced by random ones shows the picture's edges, not what
the network learned (Adebayo et al. 2018, arXiv:1810.03292). One that stays the same for another label is no evidence
for a label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import nn

from explain.catalog import get_method
from explain.faithfulness_probe import fixed_target
from explain.maps import explain_picture
from explain.schema import Heatmap
from explain.targets import ClassLogit, Target
from models.errors import IncompatibleMethodError
from models.schema import LiveModel

__all__ = [
    "ClassCheck",
    "RandomisationCheck",
    "check_classes",
    "check_randomisation",
    "describe_check",
    "random_weights",
]

RANK_THRESHOLD = 0.5
"""Mean rank correlation with the original map above which a map has survived random weights."""
SSIM_THRESHOLD = 0.7
"""The same for structural similarity, which is higher between any two smooth maps."""

_SIDE = 64
_UNCHANGED = 1e-6


@dataclass(frozen=True)
class RandomisationCheck:
    """What became of a map while the network's weights were replaced from the output down to the input.

    Attributes:
        method: catalog name.
        shares: part of the network's layers that was random at each stage, rising to 1.
        rank_correlations: Spearman's, with the original map, mean over the draws; 0 where no map was left.
        ssim: structural similarity to the original map, likewise.
        model_id: zoo id.
    """

    method: str
    shares: tuple[float, ...]
    rank_correlations: tuple[float, ...]
    ssim: tuple[float, ...]
    model_id: str = ""

    @property
    def survived(self) -> bool:
        """Whether the map is still there when nothing of the network is left; such a map explains nothing."""
        return self.rank_correlations[-1] > RANK_THRESHOLD or self.ssim[-1] > SSIM_THRESHOLD

    @property
    def text(self) -> str:
        """One line."""
        found = f"rank correlation {self.rank_correlations[-1]:.2f}, similarity {self.ssim[-1]:.2f}"
        if self.survived:
            return f"hardly changes when the model's weights are random ({found}): it does not show what was learned"
        return f"changes with the model's weights ({found})"


def describe_check(found: RandomisationCheck) -> dict[str, Any]:
    """The result as JSON."""
    return asdict(found) | {"survived": found.survived, "text": found.text}


@dataclass(frozen=True)
class ClassCheck:
    """Whether a map changes when another label is explained.

    Attributes:
        method: catalog name.
        labels: the two labels that were explained.
        rank_correlation: Spearman's, between their maps; ``None`` where one of the labels has no map.
        unchanged: whether every value is the same.
    """

    method: str
    labels: tuple[str, str]
    rank_correlation: float | None
    unchanged: bool


def check_randomisation(
    live: LiveModel,
    image: Image.Image,
    methods: Sequence[str],
    target: Target,
    *,
    stages: int = 4,
    draws: int = 3,
    seed: int = 0,
) -> list[RandomisationCheck]:
    """Cascading randomisation of the model's weights (Adebayo et al. 2018).

    The model's lock is held throughout, and its weights are as before, bit by bit, when this returns or raises.

    Args:
        live: the model, its weights in floating point.
        image: RGB.
        methods: catalog names.
        target: what is explained; the label it means for the true network is kept.
        stages: how many times more layers are made random, at least 1.
        draws: independent random networks at each stage, over which similarities are averaged.
        seed: of the random weights.

    Returns:
        One check per method that has a map, in order.

    Raises:
        IncompatibleMethodError: the weights are quantised, or a method does not fit the model.
    """
    with live.lock:
        answer = explain_picture(live, image, methods=methods, target=target)
        told = next((heatmap.target for heatmap in answer.heatmaps if get_method(heatmap.method).class_aware), None)
        same = target if told is None else fixed_target(told, live.labels)
        found: dict[str, list[list[tuple[float, float]]]] = {heatmap.method: [] for heatmap in answer.heatmaps}
        shares = tuple((stage + 1) / stages for stage in range(stages))
        for share in shares:
            for draw in range(draws):
                with random_weights(live.module, share, seed + draw):
                    after = explain_picture(live, image, methods=list(found), target=same)
                left = {heatmap.method: heatmap for heatmap in after.heatmaps}
                for before in answer.heatmaps:
                    if draw == 0:
                        found[before.method].append([])
                    found[before.method][-1].append(_likeness(before, left.get(before.method)))
    means = {method: np.asarray(rows).mean(axis=1) for method, rows in found.items()}
    return [
        RandomisationCheck(method, shares, tuple(mean[:, 0].tolist()), tuple(mean[:, 1].tolist()))
        for method, mean in means.items()
    ]


def check_classes(
    live: LiveModel, image: Image.Image, methods: Sequence[str], label: str, other: str
) -> list[ClassCheck]:
    """Each method's map of one label beside that of another, each from a pass of its own.

    Args:
        live: the model.
        image: RGB.
        methods: catalog names.
        label: explained first.
        other: explained second.

    Raises:
        IncompatibleMethodError: there is no such label or method.
    """
    answers = [
        explain_picture(live, image, methods=methods, target=ClassLogit(asked, live.labels)) for asked in (label, other)
    ]
    first, second = ({heatmap.method: heatmap for heatmap in answer.heatmaps} for answer in answers)
    checks = []
    for method in methods:
        if method not in first or method not in second:
            checks.append(ClassCheck(method, (label, other), None, unchanged=False))
            continue
        one, two = (heatmap.at((_SIDE, _SIDE)) for heatmap in (first[method], second[method]))
        unchanged = bool(np.abs(one - two).max() <= _UNCHANGED)
        checks.append(ClassCheck(method, (label, other), float(spearmanr(one, two, axis=None).statistic), unchanged))
    return checks


@contextmanager
def random_weights(module: nn.Module, share: float, seed: int = 0) -> Iterator[None]:
    """A network whose last layers are random, for the time of a ``with`` block; hold the model's lock around it.

    Each weight tensor is drawn anew from the normal distribution with its own mean and deviation, so that activations
    keep their size. Afterwards every weight is as before, bit by bit, also after an error.

    Args:
        module: the network; layers count in the order in which it registers them.
        share: part of its layers, in (0, 1], taken from the output's end.
        seed: of the weights.

    Raises:
        IncompatibleMethodError: weights are quantised, so that no other ones can be drawn.
    """
    layers = [list(part.parameters(recurse=False)) for part in module.modules()]
    layers = [weights for weights in layers if weights]
    chosen = [weight for weights in layers[len(layers) - round(share * len(layers)) :] for weight in weights]
    if any(not weight.is_floating_point() for weight in chosen):
        raise IncompatibleMethodError(
            "The weights are quantised, and no random ones can stand in for them; load the model in fp32 or bf16."
        )
    kept = [weight.detach().clone() for weight in chosen]
    generator = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for weight in chosen:
                spread = weight.float().std(unbiased=False)
                drawn = torch.randn(weight.shape, generator=generator).to(weight.device)
                weight.copy_(drawn * spread + weight.float().mean())
        yield
    finally:
        with torch.no_grad():
            for weight, before in zip(chosen, kept, strict=True):
                weight.copy_(before)


def _likeness(before: Heatmap, after: Heatmap | None) -> tuple[float, float]:
    """Rank correlation and structural similarity; 0 where nothing is left to compare."""
    if after is None:
        return 0.0, 0.0
    one, two = before.at((_SIDE, _SIDE)), after.at((_SIDE, _SIDE))
    rank = float(spearmanr(one, two, axis=None).statistic)
    return (rank if np.isfinite(rank) else 0.0), float(structural_similarity(one, two, data_range=1.0))
