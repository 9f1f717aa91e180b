"""Where the page's own files lie: in Gradio's cache, which is served, cleared by age, and gone when ``app.py`` ends."""

from __future__ import annotations

import secrets
from pathlib import Path

from gradio.utils import get_upload_folder


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
