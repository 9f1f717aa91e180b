"""Errors of this room that a person can act on."""

from models.errors import ExhibitError


class DataError(ExhibitError):
    """A labelled set cannot be read or used; the message names the file."""


class RecipeError(ExhibitError):
    """A recipe has an entry that cannot be used; the message names the entry."""


class RunError(ExhibitError):
    """A training run cannot be started, continued or bundled."""
