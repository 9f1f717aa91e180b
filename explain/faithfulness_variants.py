"""The changed pictures that a measurement needs, each once, scored in full batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from explain.faithfulness_baselines import Remove, make_baseline
from explain.faithfulness_metrics import ranks_of
from explain.faithfulness_probe import Probe

__all__ = ["Variants"]


@dataclass(frozen=True, order=True)
class _Variant:
    """A picture without the pixels of ranks [start, stop) of one map; ``map`` is -1 where the map does not matter."""

    baseline: str
    map: int
    start: int
    stop: int


class Variants:
    """The changed pictures that are wanted, each once."""

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._order: dict[_Variant, int] = {}

    def ask(self, baseline: str, index: int, start: int, stop: int) -> int:
        """The place at which the score of a variant will stand."""
        if start >= stop:
            wanted = _Variant("", -1, 0, 0)
        elif stop - start >= self._pixels:
            wanted = _Variant(baseline, -1, 0, self._pixels)
        else:
            wanted = _Variant(baseline, index, start, stop)
        return self._order.setdefault(wanted, len(self._order))

    def scores(
        self, probe: Probe, maps: NDArray[np.float32], seed: int, told: Callable[[float], None] | None = None
    ) -> NDArray[np.float64]:
        """Scores of all variants, in the order asked; ``told`` hears the share done before each batch."""
        picture = probe.picture
        ranks = torch.from_numpy(ranks_of(maps)).to(picture.device)
        names = {variant.baseline for variant in self._order} - {""}
        baselines = {name: make_baseline(name, picture, seed) for name in names}  # type: ignore[arg-type]
        order = sorted(self._order)  # variants of one baseline stand together
        found = np.empty(len(order))
        for first in range(0, len(order), probe.batch):
            if told is not None:
                told(first / len(order))
            chunk = order[first : first + probe.batch]
            scored = probe.score(torch.cat(list(_pictures(chunk, picture, ranks, baselines)))).numpy()
            found[[self._order[variant] for variant in chunk]] = scored
        return found


def _pictures(
    chunk: Sequence[_Variant], picture: Tensor, ranks: Tensor, baselines: Mapping[str, Remove]
) -> Iterable[Tensor]:
    """The variants of a batch, baseline by baseline."""
    for name in dict.fromkeys(variant.baseline for variant in chunk):
        alike = [variant for variant in chunk if variant.baseline == name]
        if not name:
            yield picture[None].expand(len(alike), -1, -1, -1)
            continue
        start, stop = (
            torch.tensor(ends, device=ranks.device).view(-1, 1, 1)
            for ends in zip(*((variant.start, variant.stop) for variant in alike), strict=True)
        )
        own = ranks[[max(variant.map, 0) for variant in alike]]
        yield baselines[name]((own >= start) & (own < stop))
