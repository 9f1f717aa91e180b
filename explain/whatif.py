"""What would the models say if a part of the picture were not there?

A heatmap says where a model looked; taking a region away and asking again says whether that mattered. The smallest
evidence turns the question round: how little of the hottest must go for the verdict to change, and how little of it
keeps the verdict alone (Fong and Vedaldi 2017, arXiv:1704.03296; here along one map, found by bisection).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from explain import render
from explain.faithfulness_baselines import make_baseline
from explain.faithfulness_metrics import ranks_of
from explain.schema import Heatmap
from models.errors import ExhibitError
from models.schema import Box, Prediction

__all__ = [
    "FILLS",
    "Change",
    "Evidence",
    "Fill",
    "Remover",
    "box_mask",
    "draw_outline",
    "hottest_mask",
    "smallest_evidence",
]

Fill = Literal["blur", "mean", "inpaint"]
FILLS: tuple[Fill, ...] = get_args(Fill)
Mask = NDArray[np.bool_]
Ask = Callable[[Image.Image], str]
"""A picture to the label that is given to it."""

_FIELD_PX = 64
"""Regions are found on a grid whose longer side is this: maps are coarser still."""


@dataclass(frozen=True)
class Change:
    """What one model said before and after a region was taken away.

    Attributes:
        before: of the whole picture.
        after: of the picture without the region.
    """

    before: Prediction
    after: Prediction

    @property
    def flipped(self) -> bool:
        """Whether the model changed its mind."""
        return self.before.label != self.after.label

    @property
    def difference(self) -> float:
        """By how much the probability of the label given before has changed, in [-1, 1]."""
        return self.after.probabilities[self.before.label] - self.before.probabilities[self.before.label]


@dataclass(frozen=True)
class Evidence:
    """The smallest hottest regions that decide.

    Attributes:
        label: what is said of the whole picture.
        flips: bool (h, w) at the picture's size, without which something else is said; ``None`` when even a picture
            with nothing left in it is given the label.
        flipped_to: what is said then.
        keeps: bool (h, w), which alone, everything else taken away, is given the label; empty when even a picture with
            nothing left in it is.
    """

    label: str
    flips: Mask | None
    flipped_to: str | None
    keeps: Mask

    @property
    def flips_share(self) -> float | None:
        """Part of the picture's area that must go, in (0, 1]."""
        return None if self.flips is None else float(self.flips.mean())

    @property
    def keeps_share(self) -> float:
        """Part of the picture's area that is enough, in [0, 1]."""
        return float(self.keeps.mean())


class Remover:
    """Takes regions of one picture away; what is not taken away stays as it is, to the byte.

    What fills the place is smooth, so it is made on the picture at screen size and enlarged.

    Args:
        image: RGB.
        fill: ``blur``, ``mean`` (the picture's mean colour) or ``inpaint`` (from what is left).

    Raises:
        ExhibitError: there is no such filling.
    """

    def __init__(self, image: Image.Image, fill: Fill) -> None:
        if fill not in FILLS:
            raise ExhibitError(f"nothing fills a region by {fill!r}; choose one of {', '.join(FILLS)}.")
        self._image = image
        small = render.fit(image)
        self._small_wh = small.size
        picture = torch.from_numpy(np.array(small, np.float32)).permute(2, 0, 1) / 255
        self._remove = make_baseline(fill, picture)

    def __call__(self, mask: Mask) -> Image.Image:
        """The picture without a region.

        Args:
            mask: bool (h, w) at the picture's size, true where it is taken away.

        Returns:
            A new RGB picture of the same size.

        Raises:
            ValueError: the sizes differ.
        """
        if mask.shape != self._image.size[::-1]:
            raise ValueError(f"the mask is {mask.shape[1]}x{mask.shape[0]}, the picture {self._image.size}")
        # Where a region only touches a pixel of the small picture, none of it may shine through the filling.
        share = cv2.resize(mask.astype(np.float32), self._small_wh, interpolation=cv2.INTER_AREA)
        filled = self._remove(torch.from_numpy(share > 0)[None])[0]
        pixels = (filled.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        filling = Image.fromarray(pixels).resize(self._image.size, Image.Resampling.BILINEAR)
        return Image.composite(filling, self._image, Image.fromarray(mask))


def box_mask(size_wh: tuple[int, int], box_xyxy: Box) -> Mask:
    """A box as a mask.

    Args:
        size_wh: of the picture.
        box_xyxy: two opposite corners in pixels, in any order; what lies outside the picture is cut off.

    Raises:
        ExhibitError: nothing of it lies in the picture.
    """
    width, height = size_wh
    (left, right), (top, bottom) = sorted(box_xyxy[::2]), sorted(box_xyxy[1::2])
    mask = np.zeros((height, width), bool)
    mask[max(0, round(top)) : max(0, round(bottom)), max(0, round(left)) : max(0, round(right))] = True
    if not mask.any():
        raise ExhibitError(
            f"the box {', '.join(f'{edge:g}' for edge in box_xyxy)} holds no pixel of a picture of {width} x {height}; "
            "give two opposite corners as x1, y1, x2, y2 in pixels."
        )
    return mask


def hottest_mask(heatmap: Heatmap, share: float) -> Mask:
    """The hottest part of a heatmap.

    Args:
        heatmap: of the picture.
        share: of the picture's area, in (0, 1].

    Returns:
        bool (h, w) at the picture's size.

    Raises:
        ExhibitError: the share is none.
    """
    if not 0 < share <= 1:
        raise ExhibitError(f"the hottest {share:.0%} is no region; choose more than 0 % and at most 100 %.")
    field = _Field(heatmap)
    return field.hottest(max(1, round(share * field.cells)))


def smallest_evidence(image: Image.Image, heatmap: Heatmap, ask: Ask, fill: Fill = "blur") -> Evidence:
    """How little of the hottest must go for another label, and how little of it is enough for this one.

    Along a map the label may change more than once; bisection then finds a smallest region of its kind, where one
    cell less no longer does, though a smaller one may exist.

    Args:
        image: RGB.
        heatmap: of it.
        ask: gives a picture its label; is asked about thirty times.
        fill: what stands where the picture was taken away.
    """
    field, remove = _Field(heatmap), Remover(image, fill)
    label = ask(image)
    given: dict[int, str] = {}

    def flips(count: int) -> bool:
        given[count] = ask(remove(field.hottest(count)))
        return given[count] != label

    def keeps(count: int) -> bool:
        return ask(remove(~field.hottest(count))) == label

    gone = _smallest(field.cells, flips) if flips(field.cells) else None
    enough = 0 if keeps(0) else _smallest(field.cells, keeps)
    return Evidence(
        label=label,
        flips=None if gone is None else field.hottest(gone),
        flipped_to=None if gone is None else given[gone],
        keeps=field.hottest(enough),
    )


def draw_outline(photo: Image.Image, mask: Mask) -> Image.Image:
    """A region's outline on a photo, light over dark so that it is seen on any ground.

    Args:
        photo: RGB, at any scale.
        mask: bool (h, w), of the whole picture.

    Returns:
        A new RGB picture of the photo's size.
    """
    drawn = np.array(photo.convert("RGB"))
    shown = cv2.resize(mask.astype(np.uint8), photo.size, interpolation=cv2.INTER_NEAREST)
    # A frame of nothing around it, so that a region at the border is closed there too.
    lines, _ = cv2.findContours(np.pad(shown, 1), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE, offset=(-1, -1))
    thick = max(2, round(max(photo.size) / 300))
    cv2.drawContours(drawn, lines, -1, (0, 0, 0), 2 * thick)
    cv2.drawContours(drawn, lines, -1, (255, 255, 255), thick)
    return Image.fromarray(drawn)


class _Field:
    """The cells of a heatmap in the order of their heat, on a coarse grid."""

    def __init__(self, heatmap: Heatmap) -> None:
        width, height = self._size_wh = heatmap.size_wh
        shrink = min(1.0, _FIELD_PX / max(width, height))
        values = heatmap.at((max(1, round(width * shrink)), max(1, round(height * shrink))))
        self._ranks: NDArray[np.int64] = ranks_of(values[None])[0]
        self.cells = int(self._ranks.size)

    def hottest(self, count: int) -> Mask:
        """The hottest cells as a mask at the picture's size."""
        chosen = (self._ranks < count).astype(np.uint8)
        return cv2.resize(chosen, self._size_wh, interpolation=cv2.INTER_NEAREST).astype(bool)


def _smallest(cells: int, holds: Callable[[int], bool]) -> int:
    """A number of cells for which something holds that does not hold for one less.

    Args:
        cells: for which it holds; for none it does not.
        holds: asked of a number of cells in between.
    """
    low, high = 0, cells
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def changes_of(before: Sequence[Prediction], after: Sequence[Prediction]) -> tuple[Change, ...]:
    """Each model's change, in the order of the first; models that did not answer twice are left out."""
    later = {prediction.model_id: prediction for prediction in after}
    return tuple(Change(one, later[one.model_id]) for one in before if one.model_id in later)
