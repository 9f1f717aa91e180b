"""What the endpoints for programs have in common: parameters that list the names they take, and files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import gradio as gr

from models.errors import ExhibitError
from ui.services import Services

__all__ = ["list_ids", "name_choice", "name_file"]


def name_choice(label: str, known: Iterable[str], value: str | list[str] | None = None) -> gr.Dropdown:
    """A parameter whose description lists the names it takes; others come through to be refused in our words."""
    several = isinstance(value, list)
    return gr.Dropdown(list(known), value=value, multiselect=several, allow_custom_value=True, label=label)


def list_ids(services: Services, tasks: Iterable[str]) -> list[str]:
    """Ids of the models that answer these tasks."""
    return [spec.id for spec in services.zoo.specs.values() if spec.task in tasks]


def name_file(image: str | None) -> tuple[Path, str]:
    """Where a file that was sent lies, and what it is called.

    Raises:
        ExhibitError: none was sent.
    """
    if not image:
        raise ExhibitError("no image was given; send a picture file as `image`.")
    return Path(image), Path(image).name
