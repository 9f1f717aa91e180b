"""How many pictures each split gets, and which: whole groups of duplicates, each label spread alike."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError

SPLIT_NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitSizes:
    """Sizes of train, validation and test, in this order; a missing or empty one is not written.

    Attributes:
        shares: of all pictures, summing to 1; or
        counts: numbers of pictures, what is left over going to no split.

    Raises:
        DataError: if they are neither, or both.
    """

    shares: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the sizes."""
        sizes: tuple[float, ...] = self.shares or self.counts
        if bool(self.shares) == bool(self.counts) or len(sizes) > len(SPLIT_NAMES) or min(sizes) < 0:
            raise DataError("--split: give one to three sizes, as shares or as counts, none below 0.")
        if self.shares and abs(sum(self.shares) - 1) > 1e-6:
            raise DataError(f"--split {','.join(map(str, self.shares))}: the shares must sum to 1.")
        if self.counts and not sum(self.counts):
            raise DataError("--split: at least one count must be above 0.")

    @classmethod
    def parse(cls, text: str) -> SplitSizes:
        """Read sizes: shares of 1 (``0.7,0.15,0.15``), per cent (``72.25/12.75/15``) or counts (``1200,150,150``).

        Raises:
            DataError: if the text is none of them.
        """
        numbers = [part.strip().removesuffix("%") for part in re.split(r"[,/]", text)]
        if not all(re.fullmatch(r"\d+(\.\d+)?", number) for number in numbers):
            raise DataError(f"--split {text}: give shares (70/15/15 or 0.7,0.15,0.15) or counts (1200,150,150).")
        values = [float(number) for number in numbers]
        if "/" in text or "%" in text:
            return cls(shares=tuple(value / 100 for value in values))
        if abs(sum(values) - 1) < 1e-6:
            return cls(shares=tuple(values))
        if not all(value.is_integer() for value in values):
            raise DataError(f"--split {text}: the shares must sum to 1, or to 100 if written as 70/15/15.")
        if sum(values) == 100:
            raise DataError(f"--split {text}: could be shares or counts; write {text.replace(',', '/')} for shares.")
        return cls(counts=tuple(int(value) for value in values))

    def share_out(self, totals: NDArray[np.int64]) -> NDArray[np.float64]:
        """How many pictures of each label each split wants.

        Args:
            totals: (labels,) pictures there are.

        Returns:
            (splits, labels); with counts the numbers are whole, and a fourth row holds what is left over.

        Raises:
            DataError: if there are fewer pictures than counted on.
        """
        if self.shares:
            return np.outer(np.asarray(self.shares, dtype=float), totals)
        there, wanted = int(totals.sum()), sum(self.counts)
        if wanted > there:
            raise DataError(f"--split {','.join(map(str, self.counts))}: there are only {there} pictures to split.")
        unused = [0] * (len(SPLIT_NAMES) - len(self.counts))
        rows = np.array([*self.counts, *unused, there - wanted])
        return _round_table(np.outer(rows / there, totals), rows, totals)


def _round_table(
    ideal: NDArray[np.float64], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Whole numbers near ``ideal`` whose rows and columns have exactly these sums."""
    rounded: NDArray[np.float64] = np.floor(ideal + 1e-9)
    while (lacking := rows - rounded.sum(1)).any():
        short = columns - rounded.sum(0)
        gap = np.where((lacking > 0)[:, None] & (short > 0)[None, :], ideal - rounded, -np.inf)
        rounded[np.unravel_index(int(gap.argmax()), gap.shape)] += 1
    return rounded


def deal_groups(
    groups: NDArray[np.int32], labels: Sequence[int], wanted: NDArray[np.float64], seed: int
) -> NDArray[np.int64]:
    """Split index (n,) of each picture: whole groups, each label spread as wanted.

    Groups are shuffled by ``seed``, the largest dealt first (they are hardest to place), each to the split that lacks
    most pictures of the group's most frequent label.

    Args:
        groups: (n,) group of each picture.
        labels: (n,) label of each.
        wanted: (splits, labels) pictures to deal; see ``SplitSizes.share_out``.
        seed: the same arguments and seed give the same split.
    """
    label_array = np.asarray(labels)
    members: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(groups.tolist()):
        members[group].append(index)
    order = list(members)
    np.random.default_rng(seed).shuffle(order)
    order.sort(key=lambda group: -len(members[group]))
    lacking = wanted.copy()
    open_splits = wanted.sum(1) > 0
    split = np.zeros(len(label_array), dtype=np.int64)
    for group in order:
        counts = np.bincount(label_array[members[group]], minlength=wanted.shape[1])
        chosen = int(np.where(open_splits, lacking[:, counts.argmax()], -np.inf).argmax())
        lacking[chosen] -= counts
        split[members[group]] = chosen
    return split


def hash_split(digests: Sequence[str], split: NDArray[np.int64]) -> str:
    """Hex SHA-256 over ``digest split`` lines in sorted order: the same pictures dealt alike give the same hash."""
    lines = sorted(
        f"{digest} {SPLIT_NAMES[index]}"
        for digest, index in zip(digests, split.tolist(), strict=True)
        if index < len(SPLIT_NAMES)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
