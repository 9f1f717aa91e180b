"""Which map is shown first, for each kind of model: the one that ``python -m benchmarks.localisation`` found best.

The figures are those of ``benchmarks/results/localisation.json``; a test holds both together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["DEFAULTS", "UNMEASURED", "DefaultMethod", "default_method"]


@dataclass(frozen=True)
class DefaultMethod:
    """The best method for a kind of model, and why.

    Attributes:
        method: catalog name; it looks at the label, or its map would be no evidence for one.
        pointing: how often its hottest point hit what is known to decide, in [0, 1].
        chance: how often that of random maps of the same smoothness did.
    """

    method: str
    pointing: float
    chance: float


DEFAULTS: Mapping[str, DefaultMethod] = MappingProxyType(
    {
        "classifier": DefaultMethod("eigengradcam", pointing=0.925, chance=0.155),
        "clip": DefaultMethod("gradcam", pointing=0.31, chance=0.146),
        "vlm": DefaultMethod("layercam", pointing=0.487, chance=0.225),
    }
)
"""Kind of model (``ModelSpec.kind``) to its method."""

UNMEASURED = "gradcam"
"""For kinds of which nothing was measured: the oldest of the methods, whose limits are known best."""


def default_method(kind: str) -> str:
    """The method whose map is shown first for a kind of model."""
    return DEFAULTS[kind].method if kind in DEFAULTS else UNMEASURED
