"""What a listener changes on the page, as data: tests read it without a browser, and one place hands it to Gradio."""

from __future__ import annotations

from typing import Any

Updates = dict[str, dict[str, Any]]
"""Name of a control to its new properties (``value``, ``label``, ``choices`` ...); what is not named stays."""


def merge(*parts: Updates) -> Updates:
    """All updates together; of two values for one property the later counts."""
    merged: Updates = {}
    for part in parts:
        for name, properties in part.items():
            merged[name] = merged.get(name, {}) | properties
    return merged
