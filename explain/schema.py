"""Values that explainers return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.schema import Box

TargetFunction = Callable[[Any], Tensor]
"""Model outputs of a batch of n images to n scalars, a Tensor of shape (n,)."""


@dataclass(frozen=True)
class MapPart:
    """A CAM at layer resolution and the area of the original image that it covers.

    Attributes:
        cam: float32 (rows, cols), raw values.
        box_xyxy: original pixels.
    """

    cam: NDArray[np.float32]
    box_xyxy: Box


@dataclass(frozen=True)
class Heatmap:
    """A picture-sized map in [0, 1] of what a model used for a target.

    Only the small raw CAM is kept; ``values`` and ``at`` bring it to pixels (bilinear, like the field's tools), so
    that a visitor with a 50-megapixel photo does not hold gigabytes.

    Attributes:
        parts: raw CAMs and where they lie.
        size_wh: width and height of the original image.
        raw_min: lowest raw value, shown as 0.
        raw_max: highest raw value, shown as 1; what a shared scale needs.
        method: catalog name.
        target: what was explained, in words a manifest can hold (``logit:fake``).
        layer: dotted name of the target layer.
        model_id: zoo id.
        image_sha256: hex SHA-256 of the picture's original bytes; empty when only pixels were given.
        delta: by what the map's values fail to add up to the change of the score that they share out, as a part of that
            change; ``None`` for methods that share nothing out.
    """

    parts: tuple[MapPart, ...]
    size_wh: tuple[int, int]
    raw_min: float
    raw_max: float
    method: str
    target: str
    layer: str
    model_id: str
    image_sha256: str = ""
    delta: float | None = None

    @property
    def signed(self) -> bool:
        """Whether values below 0.5 speak against the target."""
        return self.raw_min < 0

    @property
    def grid_rc(self) -> tuple[int, int]:
        """Rows and columns of the first part's CAM: the true resolution of the evidence."""
        rows, cols = self.parts[0].cam.shape
        return int(rows), int(cols)

    @property
    def values(self) -> NDArray[np.float32]:
        """float32 (H, W) in [0, 1] at the size of the original image."""
        return self.at(self.size_wh)

    def at(self, size_wh: tuple[int, int], scale: tuple[float, float] | None = None) -> NDArray[np.float32]:
        """The map at another picture size.

        Args:
            size_wh: width and height wanted, in pixels.
            scale: raw values shown as 0 and 1; the map's own range when not given. Give the widest range of several
                maps to compare their strength.

        Returns:
            float32 (height, width) in [0, 1].
        """
        from explain.geometry import project

        if self.signed:  # beyond what the model saw lies neither for nor against
            return (self.signed_at(size_wh, scale) + np.float32(1)) / np.float32(2)
        return project(self.parts, self.size_wh, size_wh, scale or (self.raw_min, self.raw_max))

    def signed_at(self, size_wh: tuple[int, int], scale: tuple[float, float] | None = None) -> NDArray[np.float32]:
        """A signed map at another picture size, float32 (height, width) in [-1, 1], 0 where no pixel was seen."""
        from explain.geometry import project

        low, high = scale or (self.raw_min, self.raw_max)
        shares = [project(_times(self.parts, sign), self.size_wh, size_wh, (0.0, max(high, -low))) for sign in (1, -1)]
        return shares[0] - shares[1]

    def positive_at(self, size_wh: tuple[int, int]) -> NDArray[np.float32]:
        """What speaks for the target, float32 (height, width) in [0, 1]: all of a map that is not signed."""
        return np.maximum(self.signed_at(size_wh), 0) if self.signed else self.at(size_wh)


def _times(parts: tuple[MapPart, ...], sign: int) -> tuple[MapPart, ...]:
    """The parts' values on one side of 0, as positive ones."""
    return tuple(MapPart(np.maximum(sign * part.cam, 0), part.box_xyxy) for part in parts)


@dataclass(frozen=True)
class WordAttribution:
    """What each word of a question did for a target: gradient times embedding, summed over the word's tokens.

    Above 0 the word speaks for the target, below 0 against it. Scores of one attribution compare with each other, not
    with those of another model.

    Attributes:
        question: the text, as it stood in the prompt.
        spans: start and end (exclusive) of each word in ``question``, in characters, in reading order.
        scores: float32 (words,), raw and signed.
        target: what was explained, as in ``Heatmap``.
        model_id: zoo id.
    """

    question: str
    spans: tuple[tuple[int, int], ...]
    scores: NDArray[np.float32]
    target: str
    model_id: str

    @property
    def words(self) -> tuple[str, ...]:
        """The words themselves."""
        return tuple(self.question[start:end] for start, end in self.spans)

    @property
    def shares(self) -> NDArray[np.float32]:
        """float32 (words,) in [-1, 1]: the scores over the strongest one, for colours; zeros where none counts."""
        strongest = float(np.abs(self.scores).max(initial=0))
        return self.scores / np.float32(strongest) if strongest else self.scores
