"""A picture that ends the program reading it must not end the run: who died over a chunk, and over which picture.

A decoder that crashes, or a picture that takes all memory, kills the worker without an exception, and the chunk would
be tried for ever. So each attempt leaves a line; after some of them the chunk is scored picture by picture, each one
written down before it is touched, and a picture over which several attempts ended is left out with its reason.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final

HASTY: Final = 2
"""Attempts at full speed before pictures are written down one by one."""
DEADLY: Final = 3
"""Attempts that ended over one picture before it is left out; an operator who kills workers must not condemn any."""
_BEGIN: Final = "begin"


class Attempts:
    """The journal of one chunk, for as long as it is being scored.

    Args:
        folder: of the run.
        chunk: number of the chunk.
    """

    def __init__(self, folder: Path, chunk: int) -> None:
        self._file = folder / "attempts" / f"{chunk:07d}.txt"
        lines = self._file.read_text(encoding="ascii").split() if self._file.exists() else []
        ended = Counter(last for last, after in zip(lines, [*lines[1:], _BEGIN], strict=False) if after == _BEGIN)
        self.careful = lines.count(_BEGIN) >= HASTY
        self.deadly = frozenset(int(last) for last, times in ended.items() if last != _BEGIN and times >= DEADLY)
        self._note(_BEGIN)

    def touch(self, number: int) -> None:
        """Write down that a picture comes next."""
        self._note(str(number))

    def close(self) -> None:
        """The chunk is done."""
        self._file.unlink(missing_ok=True)

    def _note(self, line: str) -> None:
        self._file.parent.mkdir(exist_ok=True)
        with self._file.open("a", encoding="ascii") as journal:
            journal.write(f"{line}\n")
