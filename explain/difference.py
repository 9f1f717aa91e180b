"""What fine-tuning changed: the map of a fine-tuned model minus that of its base."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from explain.schema import Heatmap
from models.errors import IncompatibleMethodError

__all__ = ["DifferenceMap"]


@dataclass(frozen=True)
class DifferenceMap:
    """Two heatmaps of the same picture and target, one subtracted from the other on one shared scale.

    Both maps are scaled by the widest range of the two, so a value is the part of that range by which they differ: a
    weak map stays weak, and where both agree the difference is 0.

    Attributes:
        tuned: of the fine-tuned model; counts as positive.
        base: of the base model; counts as negative.
    """

    tuned: Heatmap
    base: Heatmap

    def __post_init__(self) -> None:
        """Raises ``IncompatibleMethodError`` when the maps show different things, and names which."""
        for what, first, second in (
            ("images", self.tuned.image_sha256, self.base.image_sha256),
            ("images", self.tuned.size_wh, self.base.size_wh),
            ("targets", self.tuned.target, self.base.target),
            ("methods", self.tuned.method, self.base.method),
            ("layers", self.tuned.layer, self.base.layer),
            ("grids", _grids(self.tuned), _grids(self.base)),
        ):
            if first != second:
                raise IncompatibleMethodError(
                    f"The maps of {self.tuned.model_id} and {self.base.model_id} have different {what} "
                    f"({first} and {second}), so their difference means nothing; explain both alike."
                )

    @property
    def scale(self) -> tuple[float, float]:
        """The raw values that both maps show as 0 and 1."""
        return min(self.tuned.raw_min, self.base.raw_min), max(self.tuned.raw_max, self.base.raw_max)

    @property
    def values(self) -> NDArray[np.float32]:
        """float32 (H, W) in [-1, 1] at the size of the original image."""
        return self.at(self.tuned.size_wh)

    def at(self, size_wh: tuple[int, int]) -> NDArray[np.float32]:
        """The difference at another picture size.

        Args:
            size_wh: width and height wanted, in pixels.

        Returns:
            float32 (height, width) in [-1, 1]; above 0 where the fine-tuned model relies more on the picture.
        """
        return self.tuned.at(size_wh, self.scale) - self.base.at(size_wh, self.scale)


def _grids(heatmap: Heatmap) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    return [(part.cam.shape, part.box_xyxy) for part in heatmap.parts]
