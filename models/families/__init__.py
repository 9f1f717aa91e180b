"""One file per family of vision-language models: how it is asked, and where its activations lie in the picture.

A file ``models/families/NAME.py`` ends in ``FAMILY = ...``; zoo entries of kind ``vlm`` name it as ``family: NAME``.
"""

from __future__ import annotations

import importlib
import pkgutil

from models.errors import ZooError
from models.families.base import Family

__all__ = ["get_family", "list_families"]

_NO_FAMILY = "base"


def list_families() -> tuple[str, ...]:
    """Names of the families that have a file here, sorted; nothing is imported."""
    return tuple(sorted(found.name for found in pkgutil.iter_modules(__path__) if found.name != _NO_FAMILY))


def get_family(name: str) -> Family:
    """The family in the file of that name.

    Raises:
        ZooError: there is no such file; the message lists those there are.
    """
    if name not in list_families():
        raise ZooError(f"no model family is called {name!r}; known are: {', '.join(list_families())}")
    family: Family = importlib.import_module(f"{__name__}.{name}").FAMILY
    return family
