"""How the weights of a vision-language model are kept, and which of its parts are never quantised.

The vision tower and the projector stay as they are: heatmaps are taken there, and they are the small part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from models.errors import ModelUnavailableError
from models.families.base import Family
from models.schema import Precision

__all__ = ["Fixed", "keep_gradients", "load_options", "quantisable", "resolve", "skeleton", "unquantised"]

Fixed = Literal["fp32", "bf16", "int8", "nf4"]
"""A precision that no longer depends on the device."""

_NO_SKELETON = (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError)


def resolve(precision: Precision, device: torch.device) -> Fixed:
    """What ``auto`` means on a device: bfloat16 where it is computed natively, float32 elsewhere."""
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def skeleton(folder: Path) -> nn.Module | None:
    """The network of a folder without its weights, or ``None`` where the library has no class for it; costs no memory.

    Nothing but ``config.json`` is read, and no code of the folder is run.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            network: nn.Module = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    except _NO_SKELETON:
        return None
    return network


def unquantised(network: nn.Module, family: Family) -> tuple[str, ...]:
    """Dotted names of the parts that stay as they are: tower, projector, and the layer that writes the words."""
    parts = family.anatomy(network)
    library: Any = network
    head = library.get_output_embeddings()
    return (parts.tower, parts.projector, *(name for name, part in network.named_modules() if part is head))


def quantisable(network: nn.Module, family: Family) -> int:
    """How many weights a quantised precision makes smaller."""
    kept = unquantised(network, family)
    return sum(
        part.weight.numel()
        for name, part in network.named_modules()
        if isinstance(part, nn.Linear) and not any(name == root or name.startswith(f"{root}.") for root in kept)
    )


def load_options(precision: Fixed, network: nn.Module | None, family: Family, device: torch.device) -> dict[str, Any]:
    """Options for ``Family.load``.

    Args:
        precision: how to keep the weights.
        network: the ``skeleton``; needed to quantise.
        family: knows where its parts are.
        device: where they will run.

    Raises:
        ModelUnavailableError: this network cannot be quantised here.
    """
    half = torch.bfloat16 if device.type == "cuda" else torch.float32
    if precision in ("fp32", "bf16"):
        return {"dtype": torch.float32 if precision == "fp32" else torch.bfloat16}
    if network is None:
        raise ModelUnavailableError(
            f"the family {family.name} cannot be quantised", "choose the precision fp32 or bf16"
        )
    try:
        import bitsandbytes  # noqa: F401 - the library asks for it later, with a traceback
    except ImportError as error:
        raise ModelUnavailableError(
            f"the precision {precision} needs the package bitsandbytes", "run `pip install bitsandbytes`"
        ) from error
    from transformers import BitsAndBytesConfig

    kinds: dict[str, Any] = {"load_in_8bit": True}
    if precision == "nf4":
        kinds = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": half}
    config = BitsAndBytesConfig(**kinds, llm_int8_skip_modules=list(unquantised(network, family)))
    return {"quantization_config": config, "dtype": half, "device_map": {"": str(device)}}


def keep_gradients(network: nn.Module) -> None:
    """Stops 4-bit layers on a CPU from turning, at their first pass without gradients, into ones that hand back none.

    Where the CPU computes bfloat16, bitsandbytes repacks their weights for a faster product that autograd does not
    know: after one prediction every heatmap would silently lack what flows through them.
    """
    for part in network.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
