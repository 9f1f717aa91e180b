"""Many pictures decoded one by one, by a process for each core where that pays, in their order."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from models.errors import ExhibitError

Decoded = TypeVar("Decoded")

AT_ONCE = 32
WORTH_PROCESSES = 2000
"""Starting them takes as long as decoding some hundred pictures."""


def count_cores() -> int:
    """Cores that this process may use; all of them where the system does not say (macOS, Windows)."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class _Places(Dataset[Any]):
    def __init__(self, count: int, decode: Callable[[int], Any]) -> None:
        self._count = count
        self._decode = decode

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> Any:  # noqa: ANN401
        # An error raised in a worker arrives as its whole traceback; returned, it stays the one line it was.
        try:
            return self._decode(place)
        except ExhibitError as error:
            return error


def decode_each(count: int, decode: Callable[[int], Decoded], title: str) -> Iterator[Decoded]:
    """What a function makes of 0, 1 ... count - 1, one after the other.

    Args:
        count: how many.
        decode: reads the thing with that number; it may run in another process, so what it changes is lost. Let it
            return arrays of NumPy: they come back as bytes, where each tensor would keep a file open.
        title: what the progress bar says.

    Raises:
        ExhibitError: what ``decode`` raised, when that number's turn has come.
    """
    # Forked processes share the encoded pictures; others would each need a copy, and only Linux forks safely.
    workers = count_cores() if count >= WORTH_PROCESSES and sys.platform == "linux" else 0
    loader: DataLoader[Any] = DataLoader(
        _Places(count, decode),
        AT_ONCE,
        collate_fn=list,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
    with tqdm(total=count, desc=title, unit="img", mininterval=1.0) as bar:
        for decoded in loader:
            for one in decoded:
                if isinstance(one, ExhibitError):
                    raise one
                yield one
            bar.update(len(decoded))
