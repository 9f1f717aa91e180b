"""Near duplicates: pictures whose perceptual hashes differ in a few bits, such as one picture saved at two sizes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bulk.results import Place, Run

MAX_BITS = 3
"""Bits of 64 by which hashes of near duplicates differ at most."""
_BANDS = MAX_BITS + 1


def group_hashes(hashes: NDArray[np.uint64]) -> list[list[int]]:
    """Groups of two or more, the largest first.

    Hashes that differ in at most ``MAX_BITS`` bits agree in one of ``MAX_BITS + 1`` bands, so only those that share a
    band are compared (multi-index hashing, Norouzi et al., 2012); groups are what such pairs connect.

    Args:
        hashes: ``uint64 (n,)``.

    Returns:
        Indices into ``hashes``, ascending in each group.
    """
    unique, belongs = np.unique(hashes, return_inverse=True)
    parents = np.arange(len(unique))
    for band in range(_BANDS):
        keys = (unique >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        order = np.argsort(keys, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            for position, one in enumerate(bucket[:-1]):
                later = bucket[position + 1 :]
                for other in later[np.bitwise_count(unique[later] ^ unique[one]) <= MAX_BITS]:
                    _join(parents, int(one), int(other))
    groups: dict[int, list[int]] = defaultdict(list)
    for index, which in enumerate(belongs):
        groups[_root(parents, int(which))].append(index)
    return sorted((group for group in groups.values() if len(group) > 1), key=lambda group: (-len(group), group))


def find_groups(run: Run) -> list[list[Place]]:
    """The near duplicates of a run, the largest group first; failed pictures are in none."""
    places: list[Place] = []
    parts: list[NDArray[np.uint64]] = []
    for chunk, table in run.read(["phash"]):
        texts: Sequence[str | None] = table.column("phash").to_pylist()
        places += [Place(chunk, row) for row, text in enumerate(texts) if text]
        parts.append(np.array([int(text, 16) for text in texts if text], np.uint64))
    hashes = np.concatenate(parts) if parts else np.empty(0, np.uint64)
    return [[places[index] for index in group] for group in group_hashes(hashes)]


def _root(parents: NDArray[np.int_], one: int) -> int:
    while parents[one] != one:
        parents[one] = parents[parents[one]]
        one = int(parents[one])
    return one


def _join(parents: NDArray[np.int_], one: int, other: int) -> None:
    first, second = sorted((_root(parents, one), _root(parents, other)))
    parents[second] = first
