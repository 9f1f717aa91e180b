"""Whether a model fits: what its weights will take, told from the headers of their files, against what is free."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from pathlib import Path

import psutil
import torch
from safetensors import SafetensorError, safe_open

from models.errors import ModelUnavailableError
from models.precision import Fixed

__all__ = ["check_room", "count_weights", "free_bytes", "weight_bytes", "working_bytes"]

_WORKING = 1.15
"""Share of the weights' size that a pass needs beside them (activations, keys and values), as a factor."""
_WORKING_BYTES = 150_000_000
"""What it needs at least."""
_BYTES: dict[Fixed, float] = {"fp32": 4, "bf16": 2, "int8": 1, "nf4": 0.5 + 4 / 64}
"""Bytes per weight; nf4 keeps one float32 scale for each block of 64."""


def count_weights(files: Iterable[Path]) -> int:
    """How many numbers safetensors files hold, from their headers alone.

    Raises:
        ModelUnavailableError: a file is no safetensors file.
    """
    total = 0
    for file in files:
        try:
            with safe_open(file, framework="pt") as content:
                total += sum(prod(content.get_slice(name).get_shape()) for name in content.keys())  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelUnavailableError(f"{file} is damaged or cut off", "copy or download the folder again") from error
    return total


def weight_bytes(weights: int, precision: Fixed, device: torch.device, quantisable: int = 0) -> int:
    """Bytes that weights take in memory.

    Args:
        weights: how many there are.
        precision: how they are kept.
        device: where.
        quantisable: how many of them a quantised precision makes smaller; the others stay in the device's own type.
    """
    if precision in ("fp32", "bf16"):
        return int(weights * _BYTES[precision])
    kept = _BYTES["bf16" if device.type == "cuda" else "fp32"]
    return int((weights - quantisable) * kept + quantisable * _BYTES[precision])


def working_bytes(weights: int) -> int:
    """Bytes that a model takes in use, of which ``weights`` are its weights."""
    return int(weights * _WORKING + _WORKING_BYTES)


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        # What torch has set aside and does not use can be given to another model.
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + idle)
    return int(psutil.virtual_memory().available)


def check_room(needed: int, device: torch.device, precision: Fixed, *, spare: Iterable[str] = ()) -> None:
    """Refuses weights that would not fit, before a byte of them is read.

    Args:
        needed: bytes the model takes in use.
        device: where they shall go.
        precision: how they are to be kept, for the remedy.
        spare: ids of models that could be unloaded, for the remedy.

    Raises:
        ModelUnavailableError: too little is free; the remedy names a smaller precision or another way out.
    """
    free = free_bytes(device)
    if needed <= free:
        return
    ways = []
    smaller = [name for name in _BYTES if _BYTES[name] < _BYTES[precision]]
    if smaller:
        ways.append(f"choose the precision {smaller[-1]}")
    loaded = ", ".join(spare)
    if loaded:
        ways.append(f"unload {loaded}")
    place = "the GPU" if device.type == "cuda" else "this machine"
    raise ModelUnavailableError(
        f"it needs about {needed / 1e9:.1f} GB in {precision} and {free / 1e9:.1f} GB are free on {place}",
        ", or ".join([*ways, "choose a smaller model"]),
    )
