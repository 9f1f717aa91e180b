"""What stands where a picture was taken away: blur, mean, inpainting, or noisy linear imputation.

What fills a hole decides what a curve measures: a grey hole is itself a thing that a model may have an opinion on. So
the baseline belongs to the figure, and is written beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from models.errors import ExhibitError

__all__ = ["BaselineName", "Remove", "impute", "make_baseline"]

BaselineName = Literal["blur", "mean", "zero", "inpaint", "road"]

Floats = NDArray[np.float64]
Remove = Callable[[Tensor], Tensor]
"""Bool (n, h, w), true where the picture is taken away, to the variants (n, channels, h, w)."""

_BLUR = 16
"""The blur's sigma is the shorter side over this: nothing the size of an eye or a digit is left of a picture."""

_INPAINT_PX = 96
"""Inpainting is smooth, so it is done on a picture whose longer side is this, and what it fills in is enlarged."""

_NOISE = 0.01
"""Standard deviation of the noise of Rong et al., in units of the prepared picture."""


def make_baseline(name: BaselineName, picture: Tensor, seed: int = 0) -> Remove:
    """A function that takes parts of one picture away.

    Args:
        name: ``blur`` (Gaussian), ``mean`` (the picture's mean colour), ``zero`` (of the prepared picture), ``inpaint``
            (Telea 2004, from what is left) or ``road`` (noisy linear imputation, Rong et al. 2022).
        picture: float (3, h, w).
        seed: of the noise of ``road``.

    Raises:
        ExhibitError: there is no such baseline.
    """
    if name == "blur":
        return _constant(picture, _blurred(picture))
    if name == "mean":
        return _constant(picture, picture.mean(dim=(1, 2), keepdim=True).expand_as(picture))
    if name == "zero":
        return _constant(picture, torch.zeros_like(picture))
    if name == "inpaint":
        return lambda removed: torch.stack([_inpainted(picture, one) for one in removed])
    if name == "road":
        return lambda removed: impute(picture, removed, seed=seed)
    raise ExhibitError(f"there is no baseline {name!r}; choose one of {', '.join(get_args(BaselineName))}.")


def impute(picture: Tensor, removed: Tensor, *, noise: float = _NOISE, seed: int = 0) -> Tensor:
    """Noisy linear imputation: every missing pixel is the weighted mean of its eight neighbours, missing ones included.

    The linear system is symmetric and positive, so it is factorised without pivoting, for all channels at once. A pixel
    at the border shares its weight among the neighbours it has.

    Args:
        picture: float (channels, h, w).
        removed: bool (n, h, w); where all is removed, the picture's mean stands.
        noise: standard deviation of what is added to imputed pixels, so that a model cannot see that they are smooth.
        seed: of the noise, the same for every variant.

    Returns:
        (n, channels, h, w), equal to the picture where nothing was removed.
    """
    height, width = picture.shape[-2:]
    values = picture.detach().double().cpu().flatten(1).numpy()
    coupling = _coupling(height, width)
    generator = torch.Generator().manual_seed(seed)
    grain = noise * torch.randn(picture.shape, generator=generator, dtype=torch.float64)
    variants = []
    for hole in removed.cpu().flatten(1).numpy():
        filled = values.copy()
        filled[:, hole] = _solved(values, hole, coupling)
        variants.append(
            torch.from_numpy(filled).view(picture.shape) + grain * torch.from_numpy(hole).view(height, width)
        )
    return torch.where(removed[:, None], torch.stack(variants).to(picture), picture)


def _constant(picture: Tensor, stand_in: Tensor) -> Remove:
    return lambda removed: torch.where(removed[:, None], stand_in, picture)


def _blurred(picture: Tensor) -> Tensor:
    sigma = min(picture.shape[-2:]) / _BLUR
    # Reflection at the border needs a kernel that is smaller than the picture.
    reach = min(int(3 * sigma + 0.5), min(picture.shape[-2:]) - 1)
    return gaussian_blur(picture.float(), [2 * reach + 1] * 2, [sigma] * 2).to(picture.dtype)


def _inpainted(picture: Tensor, removed: Tensor) -> Tensor:
    if not bool(removed.any()):
        return picture
    if bool(removed.all()):
        return picture.mean(dim=(1, 2), keepdim=True).expand_as(picture)
    height, width = picture.shape[-2:]
    shrink = min(1.0, _INPAINT_PX / max(height, width))
    size = max(round(width * shrink), 1), max(round(height * shrink), 1)
    low, high = picture.min(), picture.max()
    scale = 255 / (high - low).clamp(min=1e-6)
    bytes_rgb = ((picture - low) * scale).round().byte().permute(1, 2, 0).cpu().numpy()
    hole = removed.byte().cpu().numpy()
    # A shrunken pixel of which any part is missing is missing, or the hole's own colour would leak into the filling.
    small_hole = cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    if small_hole.all():
        small_hole = cv2.resize(hole, size, interpolation=cv2.INTER_NEAREST) > 0
    small = cv2.resize(np.ascontiguousarray(bytes_rgb), size, interpolation=cv2.INTER_AREA)
    filled = cv2.resize(cv2.inpaint(small, small_hole.astype(np.uint8), 3, cv2.INPAINT_TELEA), (width, height))
    stand_in = torch.from_numpy(filled).to(picture.device).permute(2, 0, 1) / scale + low
    return torch.where(removed, stand_in.to(picture.dtype), picture)


def _coupling(height: int, width: int) -> sparse.csr_array:
    """What each pixel takes of each neighbour, (pixels, pixels)."""
    down, across = (sparse.eye_array(size, k=1) + sparse.eye_array(size, k=-1) for size in (height, width))
    straight = sparse.kron(down, sparse.eye_array(width)) + sparse.kron(sparse.eye_array(height), across)
    return (straight / 6 + sparse.kron(down, across) / 12).tocsr()


def _solved(values: Floats, hole: NDArray[np.bool_], coupling: sparse.csr_array) -> Floats:
    """(channels, missing) values of the missing pixels, from (channels, pixels)."""
    if hole.all():
        return np.repeat(values.mean(axis=1, keepdims=True), hole.size, axis=1)
    missing, present = np.flatnonzero(hole), np.flatnonzero(~hole)
    if not missing.size:
        return values[:, missing]
    rows = coupling[missing]
    system = sparse.diags_array(rows.sum(axis=1)) - rows[:, missing]
    # SuperLU's ordering and mode for symmetric systems, several times faster here than its default.
    factors = splu(system.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return factors.solve(rows[:, present] @ values[:, present].T).T
