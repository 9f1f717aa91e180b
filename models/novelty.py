"""Whether a model has seen pictures like this one: how far its features lie from those of its training pictures.

What a network computes on the way to its answer is compared, not the answer. Its last features will not do: trained to
tell two labels apart, they fall onto one line, and a chair lies on it as well as a face. So the layers that heatmaps
explain are taken, on a coarse grid, since training pictures also have their parts in certain places.

Training pictures vary along some directions and hardly along all others. The distance is the length of what those
directions leave over, which no picture like them has much of (Wang et al. 2022, arXiv:2203.10807, do the same with the
last features).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from models.schema import Inputs, LiveModel, TokenGrid

__all__ = ["Familiar", "describe_pictures", "fit_familiar", "read_features"]

Features = NDArray[np.float32]

GRID = 4
"""Rows and columns onto which a layer's cells are averaged."""
DIRECTIONS = 128


@dataclass(frozen=True)
class Familiar:
    """What the features of a model's training pictures are like.

    Attributes:
        mean: float32 (d,).
        directions: float32 (k, d), orthonormal: along them the training pictures vary most.
    """

    mean: Features
    directions: Features

    @cached_property
    def _directions(self) -> NDArray[np.float64]:
        """The directions in double precision, turned once: every batch of pictures needs them."""
        return self.directions.astype(np.float64)

    def distances(self, features: Features) -> NDArray[np.float64]:
        """Float64 (n,) lengths of what of features (n, d) lies outside the directions."""
        moved = (features - self.mean).astype(np.float64)
        along = moved @ self._directions.T
        outside = np.square(moved).sum(axis=1) - np.square(along).sum(axis=1)
        return np.asarray(np.sqrt(np.maximum(outside, 0)), np.float64)


def fit_familiar(features: Features, directions: int = DIRECTIONS) -> Familiar:
    """The statistics of training pictures' features (n, d).

    Raises:
        ValueError: there are too few pictures for that many directions.
    """
    if len(features) < 2 * directions:
        raise ValueError(f"{directions} directions need at least {2 * directions} pictures, got {len(features)}")
    mean = features.mean(axis=0, dtype=np.float64)
    moved = features - mean
    # The directions lie in the pictures' own span, so a matrix of pictures by pictures has them, however long the
    # features are.
    values, vectors = np.linalg.eigh(moved @ moved.T)
    main = vectors[:, ::-1][:, :directions] / np.sqrt(values[::-1][:directions])
    return Familiar(mean.astype(np.float32), (moved.T @ main).T.astype(np.float32))


def describe_pictures(live: LiveModel, images: Sequence[Image.Image]) -> Features:
    """Features of RGB pictures, float32 (n, d), each layer's of length 1.

    Raises:
        IncompatibleMethodError: the network has no layer that could be explained.
    """
    found = [
        read_features(live, live.prepare(part), [image.size for image in part])[0] for part in live.batches(images)
    ]
    return np.concatenate(found)


def read_features(
    live: LiveModel, inputs: Inputs, sizes_wh: Sequence[tuple[int, int]], *, answering: bool = False
) -> tuple[Features, Any]:
    """The same of prepared pictures, and the outputs of the one pass that it takes.

    Args:
        live: the model.
        inputs: as its ``prepare`` gave them.
        sizes_wh: width and height of each picture.
        answering: whether a vision-language model reads the question as well. Without it, it looks at the pictures
            only, which takes less time, and its outputs are ``None``; others always answer.
    """
    names = _layers(live)
    kept: dict[str, Tensor] = {}
    with _turn(live), torch.no_grad():
        handles = [live.module.get_submodule(name).register_forward_hook(_keep(kept, name)) for name in names]
        try:
            outputs = _run(live, inputs, answering=answering)
        finally:
            for handle in handles:
                handle.remove()
    rows = []
    for name in names:
        layouts = live.layout(inputs, sizes_wh, name)
        own = live.split(kept[name], inputs, name)
        cells = [_on_grid(one.float(), layout.grids) for one, layout in zip(own, layouts, strict=True)]
        rows.append(torch.nn.functional.normalize(torch.stack(cells), dim=1))
    return torch.cat(rows, dim=1).cpu().numpy(), outputs


def _on_grid(activation: Tensor, grids: Sequence[TokenGrid]) -> Tensor:
    """A layer's cells of one picture, all its grids averaged, on ``GRID`` rows and columns, flat."""
    planes = []
    for grid in grids:
        plane = activation
        if grid.tokens is not None:
            plane = activation[torch.as_tensor(grid.tokens, device=activation.device)].permute(2, 0, 1)
        planes.append(torch.nn.functional.adaptive_avg_pool2d(plane, GRID).flatten())
    return torch.stack(planes).mean(dim=0)


def _keep(kept: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any, Any], None]:
    def hook(_module: nn.Module, _inputs: Any, result: Any) -> None:  # noqa: ANN401 - a layer may return anything
        kept.setdefault(name, (result[0] if isinstance(result, tuple) else result).detach())

    return hook


def _layers(live: LiveModel) -> list[str]:
    """The layers whose cells depend on the picture alone."""
    core = getattr(live, "core", None)
    if core is None:
        return [layer.name for layer in live.layers]
    return [layer.name for layer in live.layers if core.family.stage(live.module, layer.name) != "language"]


def _turn(live: LiveModel) -> Any:  # noqa: ANN401 - a context manager
    core = getattr(live, "core", None)
    return live.lock if core is None else core.using(getattr(live, "adapter", None))


def _run(live: LiveModel, inputs: Inputs, *, answering: bool) -> Any:  # noqa: ANN401 - each has its own output class
    core = getattr(live, "core", None)
    if core is None or answering:
        return live.forward(inputs)
    core.family.image_features(live.module, inputs)
    return None
