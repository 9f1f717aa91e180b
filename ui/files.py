"""Where the page's own files lie: in Gradio's cache, which is served, cleared by age, and gone when ``app.py`` ends."""

from __future__ import annotations

import secrets
from pathlib import Path

from gradio.utils import get_upload_folder

from models.errors import ExhibitError


def fresh_path(name: str) -> Path:
    """A path for a new file in a folder of its own that nobody can guess, so that visitors see only their own files.

    Args:
        name: the file's name as a download shows it; chosen by Exhibit, never by a visitor.
    """
    folder = Path(get_upload_folder()) / "exhibit" / secrets.token_hex(16)
    folder.mkdir(parents=True)
    return folder / name


def is_upload(path: Path) -> bool:
    """Whether a path that a browser sent is a file that was uploaded; no other file of this machine may be read."""
    return path.is_file() and path.resolve().is_relative_to(Path(get_upload_folder()).resolve())


def check_upload(path: Path) -> Path:
    """A path that a browser sent, if it is a file that was uploaded.

    Gradio itself checks the files of a listener without preprocessing only if they say that they are files; a request
    written by hand need not say so.

    Raises:
        ExhibitError: it names another file of this machine.
    """
    if not is_upload(path):
        raise ExhibitError("This file was not uploaded, or is kept no longer; bring it again.")
    return path
