"""What Captum measures of a map: infidelity and max-sensitivity (Yeh et al. 2019, arXiv:1901.09392)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from explain.faithfulness_probe import Probe

__all__ = ["infidelity", "max_sensitivity"]

_NOISE = 0.1
"""Deviation of the noise that infidelity adds, as a part of the picture's own."""

_RADIUS = 0.02
"""How far a value of the picture moves for max-sensitivity, at most, in units of the prepared picture."""


def infidelity(probe: Probe, values: NDArray[np.float32], *, samples: int = 32, seed: int = 0) -> float:
    """How far a map is from foretelling what noise in the picture does to the score; lower is better.

    The map is scaled by the one factor that serves it best, since class activation maps have no unit.

    Args:
        probe: picture, model and target.
        values: the map in the probe's frame, float32 (h, w).
        samples: number of noises, shared by all maps of the same seed.
        seed: of the noise.

    Returns:
        At least 0, in units of the score squared.
    """
    from captum.metrics import infidelity as measured

    picture = probe.picture[None].float()
    generator = torch.Generator().manual_seed(seed)
    noise_size = _NOISE * picture.std()

    def perturb(given: Tensor) -> tuple[Tensor, Tensor]:
        noise = torch.randn(given.shape, generator=generator).to(given) * noise_size
        return noise, given - noise

    attribution = torch.from_numpy(values).to(picture).expand_as(picture)
    found = measured(
        lambda variants: probe.score(variants.to(probe.picture.dtype)).to(picture),
        perturb,
        picture,
        attribution,
        n_perturb_samples=samples,
        max_examples_per_batch=probe.batch,
        normalize=True,
    )
    return float(found)


def max_sensitivity(
    explain: Callable[[Tensor], Tensor], picture: Tensor, *, samples: int = 10, radius: float = _RADIUS, seed: int = 0
) -> float:
    """The largest change of a map, relative to its size, when each value of the picture moves by up to ``radius``.

    Args:
        explain: float (n, channels, h, w) pictures to (n, ...) maps.
        picture: float (channels, h, w).
        samples: number of pictures nearby.
        radius: in units of the prepared picture.
        seed: of the moves.

    Returns:
        At least 0; lower is better.
    """
    from captum.metrics import sensitivity_max

    generator = torch.Generator().manual_seed(seed)

    def nearby(given: Tensor | tuple[Tensor, ...], by: float) -> tuple[Tensor, ...]:
        plane = given if isinstance(given, Tensor) else given[0]
        return (plane + (2 * torch.rand(plane.shape, generator=generator).to(plane) - 1) * by,)

    found = sensitivity_max(
        lambda given: (explain(given if isinstance(given, Tensor) else given[0]),),
        picture[None],
        nearby,
        perturb_radius=radius,
        n_perturb_samples=samples,
    )
    return float(found)
