"""Errors a person can act on.

Every message is one line and says what to do next. Commands print it and exit 2, the page shows it as a sentence;
anything that is not an ``ExhibitError`` is a bug and keeps its traceback.
"""


class ExhibitError(Exception):
    """Base of all errors caused by input, settings or the environment rather than by a bug."""


class BadImageError(ExhibitError):
    """The bytes given are not an image Exhibit can examine."""


class ZooError(ExhibitError):
    """A zoo file has an entry that cannot be used; the message names the entry."""


class ModelUnavailableError(ExhibitError):
    """A model cannot be loaded here; the message gives the reason and the remedy.

    Attributes:
        reason: why.
        remedy: what a person can do about it; may be empty.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.reason = reason
        self.remedy = remedy


class UnsafeWeightsError(ModelUnavailableError):
    """Only pickled weights were found; they are never opened because a pickle can run code."""


class EmptyHeatmapError(ExhibitError):
    """A map is all zero or not finite, so drawing it would invent evidence."""


class IncompatibleMethodError(ExhibitError):
    """The explanation method cannot be used with this model, target or layer."""


class BundleError(ExhibitError):
    """An evidence bundle cannot be written or read."""
