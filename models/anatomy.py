"""Which layers of an image classifier can be explained, found by running it once.

Names of layers move between releases and differ between families, so none is written down here. The network is traced
instead, and a layer counts only if a gradient really reaches its cells: behind the last attention of a network that
reads out its class token alone, the gradient of every patch is exactly zero and any heatmap would be empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.errors import IncompatibleMethodError
from models.schema import LayerPreset

__all__ = ["Anatomy", "trace"]

_MOST_PREFIX_TOKENS = 32
_MOST_HALVINGS = 6


@dataclass(frozen=True)
class Anatomy:
    """What one traced pass shows of a network.

    Attributes:
        layers: layers whose gradients are alive, the default first.
        cell_px: side of one token in input pixels; ``None`` where the layers give channels-first maps.
        prefix: tokens before the first patch (class token, registers).
        floors: whether input pixels that do not fill a whole token are dropped (else they are padded).
    """

    layers: tuple[LayerPreset, ...]
    cell_px: int | None = None
    prefix: int = 0
    floors: bool = True

    def tokens(self, height_px: int, width_px: int) -> NDArray[np.intp]:
        """Token index of every cell, int (rows, cols), for an input of that many pixels."""
        if self.cell_px is None:
            raise ValueError("channels-first maps have no tokens")
        rows, cols = _grid(height_px, width_px, self.cell_px, floors=self.floors)
        return self.prefix + np.arange(rows * cols, dtype=np.intp).reshape(rows, cols)


@dataclass(frozen=True)
class _Seen:
    """One module's output in the order of completion."""

    name: str
    norm: bool
    output: Tensor

    @property
    def leaf(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def depth(self) -> int:
        return self.name.count(".")


def trace(module: nn.Module, forward: Callable[[Tensor], Any], pixels: Tensor, patch_px: int | None) -> Anatomy:
    """Run one picture through ``module`` and find the layers worth explaining.

    Args:
        module: the network, in evaluation mode.
        forward: pixels (1, 3, height, width) to an object with ``logits`` (1, labels).
        pixels: one prepared picture, no plain colour.
        patch_px: side of a patch by the network's own configuration, if it has patches.

    Raises:
        IncompatibleMethodError: no layer keeps its place in the picture and receives a gradient.
    """
    seen, gradients = _run(module, forward, pixels)
    height, width = int(pixels.shape[-2]), int(pixels.shape[-1])
    alive = [(step, gradient) for step, gradient in zip(seen, gradients, strict=True) if gradient is not None]
    maps = [step for step, gradient in alive if _is_map(step.output, height, width) and bool(gradient.any())]
    tokens = []
    for step, gradient in alive:
        if step.norm and step.output.ndim == 3:
            cells = _cells(step.output.shape[1], height, width, patch_px)
            if cells is not None and bool(gradient[:, cells[1] :].any()):
                tokens.append((step, cells))
    after_map = seen.index(maps[-1]) + 1 if maps else 0
    if maps and not any(step.output.ndim == 3 for step in seen[after_map:]):
        return Anatomy(_map_presets(maps))
    # Past its last map the network goes on in tokens, so only a layer among those can stand for what it decided.
    if not tokens or seen.index(tokens[-1][0]) < after_map:
        raise IncompatibleMethodError(
            f"no late layer of {type(module).__name__} keeps its place in the picture and receives a gradient; "
            "choose another model for heatmaps"
        )
    cell_px, prefix, floors = tokens[-1][1]
    length = tokens[-1][0].output.shape[1]
    same_grid = [step for step, _ in tokens if step.output.shape[1] == length]
    return Anatomy(_token_presets(same_grid), cell_px, prefix, floors)


def _run(
    module: nn.Module, forward: Callable[[Tensor], Any], pixels: Tensor
) -> tuple[list[_Seen], tuple[Tensor | None, ...]]:
    """Every spatial output of one pass, and the gradient of the first two labels' margin with respect to each."""
    seen: list[_Seen] = []
    hooks = []

    def watch(name: str, norm: bool) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:  # noqa: ANN401
            first = output[0] if isinstance(output, tuple) and output else output
            if isinstance(first, Tensor) and first.ndim in (3, 4) and len(first) == 1 and first.requires_grad:
                seen.append(_Seen(name, norm, first))

        return hook

    try:
        for name, part in module.named_modules():
            # Attention weights pass through softmax and dropout; (heads, queries, keys) only looks like a map.
            if name and not isinstance(part, nn.Dropout | nn.Softmax):
                hooks.append(part.register_forward_hook(watch(name, "norm" in type(part).__name__.lower())))
        with torch.inference_mode(False), torch.enable_grad():
            logits = forward(pixels.clone().requires_grad_()).logits.float()
            margin = logits[0, 0] - logits[0, -1]
            gradients = torch.autograd.grad(margin, [step.output for step in seen], allow_unused=True) if seen else ()
    finally:
        for handle in hooks:
            handle.remove()
    return seen, gradients


def _is_map(output: Tensor, height: int, width: int) -> bool:
    """Whether ``output`` is (1, channels, rows, cols): its cells must be as wide as high, in input pixels."""
    if output.ndim != 4 or output.shape[2] * output.shape[3] < 2:
        return False
    ratio = (height / output.shape[2]) / (width / output.shape[3])
    return output.shape[2] <= height and output.shape[3] <= width and 0.5 < ratio < 2


def _cells(length: int, height: int, width: int, patch_px: int | None) -> tuple[int, int, bool] | None:
    """Cell side in pixels, prefix tokens and rounding for a sequence of ``length`` tokens; ``None`` if it is no grid.

    Hierarchical networks halve the grid from stage to stage, so the patch is doubled until its grid fits.
    """
    for halvings in range(_MOST_HALVINGS + 1):
        cell = (patch_px or 1) * 2**halvings
        floors = halvings == 0
        rows, cols = _grid(height, width, cell, floors=floors)
        prefix = length - rows * cols
        if rows * cols > 1 and prefix >= 0:
            # Only a grid of the stated patches is sure enough to call many tokens a prefix.
            most = _MOST_PREFIX_TOKENS if patch_px is not None and halvings == 0 else 1
            return (cell, prefix, floors) if prefix <= most else None
    return None


def _grid(height: int, width: int, cell: int, *, floors: bool) -> tuple[int, int]:
    return (height // cell, width // cell) if floors else (ceil(height / cell), ceil(width / cell))


def _map_presets(maps: list[_Seen]) -> tuple[LayerPreset, ...]:
    """The last map, and the last one of each of the two finer grids before it."""
    default = maps[-1]
    by_grid: dict[tuple[int, ...], _Seen] = {}
    for step in maps:
        # Deeper parts of a stage belong to its inside: their maps are half-finished.
        if step.depth <= default.depth + 1:
            by_grid[tuple(step.output.shape[2:])] = step
    coarse_grid = tuple(default.output.shape[2:])
    finer = [step for grid, step in by_grid.items() if grid != coarse_grid][::-1][:2]
    return tuple(
        LayerPreset(step.name, f"{step.output.shape[2]} x {step.output.shape[3]} cells, {words}")
        for step, words in zip([default, *finer], ("what decided", "finer parts", "edges and textures"), strict=False)
    )


def _token_presets(norms: list[_Seen]) -> tuple[LayerPreset, ...]:
    """The last norm whose tokens are alive, the one of the block before, and one half-way down."""
    default = norms[-1]
    others = [step for step in norms[:-1] if step.leaf == default.leaf] or norms[:-1]
    picked = {step.name: step for step in (default, *others[-1:], *others[len(others) // 2 : len(others) // 2 + 1])}
    words = ("what decided", "one block earlier", "half-way through the network")
    return tuple(LayerPreset(name, note) for name, note in zip(picked, words, strict=False))
