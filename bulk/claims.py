"""Claims about the pictures of a run, one a line in a file: about every picture, or about the one that is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.errors import ExhibitError

MOST_CLAIMS = 100
"""About one picture."""
_MOST_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Statement:
    """One line of the file.

    Attributes:
        claim: a sentence that can be checked against a picture.
        picture: end of the path of the picture it is about; empty for all of them.
    """

    claim: str
    picture: str = ""

    def is_about(self, path: str) -> bool:
        """Whether it is about the picture with that path, in whole parts: ``a.jpg`` is not about ``banana.jpg``."""
        plain, wanted = (text.replace("\\", "/").replace("!", "/") for text in (path, self.picture))
        return not wanted or f"/{plain}".endswith(f"/{wanted.removeprefix('./').lstrip('/')}")


def read_statements(file: Path) -> tuple[Statement, ...]:
    """The lines of a file; ``NAME<tab>CLAIM`` is about one picture, any other line about all.

    Empty lines, and those that begin with ``#``, are none.

    Raises:
        ExhibitError: the file cannot be read, or has no claims.
    """
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ExhibitError(f"{file} is larger than {_MOST_BYTES // 2**20} MB; give a text file, one claim a line.")
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise ExhibitError(f"{file}: {why}; give a text file, one claim a line.") from error
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, tab, claim = line.rpartition("\t")
        if not claim.strip() or (tab and not name.strip()):
            raise ExhibitError(f"{file}, line {number}: write CLAIM, or NAME, a tab and CLAIM.")
        found.append(Statement(" ".join(claim.split()), name.strip()))
    if not found:
        raise ExhibitError(f"{file} has no claims; write one a line.")
    return tuple(found)


def claims_about(path: str, statements: Sequence[Statement]) -> list[str]:
    """The claims about the picture with that path, each once, in their order.

    Raises:
        ExhibitError: there are more than are checked about one picture.
    """
    claims = list(dict.fromkeys(one.claim for one in statements if one.is_about(path)))
    if len(claims) > MOST_CLAIMS:
        raise ExhibitError(
            f"{len(claims)} claims about {path} are more than the {MOST_CLAIMS} checked; give fewer, or name the "
            "picture that each is about."
        )
    return claims
