"""What could change a result without anybody touching it: versions of Python, the machine and the libraries."""

from __future__ import annotations

import platform
from importlib import metadata

__all__ = ["versions"]

PACKAGES = (
    "torch",
    "torchvision",
    "transformers",
    "peft",
    "bitsandbytes",
    "grad-cam",
    "ultralytics",
    "pillow",
    "numpy",
    "safetensors",
)


def versions() -> dict[str, str]:
    """Versions of everything whose change could change a result."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
