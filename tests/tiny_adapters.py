"""Small LoRA adapters for the tiny vision-language models, saved by peft itself, under today's or earlier key names."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

OLD_NAMES = {
    "qwen2_vl": ("model.language_model.layers", "model.layers"),
    "paligemma": ("model.language_model.layers", "language_model.model.layers"),
    "llava_next": ("model.language_model.layers", "language_model.model.layers"),
}
"""Where the decoder's layers lie now, and where they lay in the library before 4.52."""


def build_adapter(family: str, base: Path, folder: Path, *, seed: int = 0, old: bool = False, **settings) -> Path:
    """Saves a rank-2 adapter of the decoder's attention, with weights that change the answers."""
    from peft import LoraConfig, get_peft_model

    from models.families import get_family

    module, _, _ = get_family(family).load(base)
    decoder = rf".*{get_family(family).anatomy(module).language.rpartition('.')[2]}\.layers\..*(q_proj|v_proj)"
    config = LoraConfig(**({"r": 2, "lora_alpha": 8, "target_modules": decoder} | settings))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wrapped = get_peft_model(module, config)
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weight, std=0.5)
    wrapped.save_pretrained(folder)
    if old:
        now, then = OLD_NAMES[family]
        rewrite(folder, lambda key: key.replace(now, then))
    return folder


def rewrite(folder: Path, rename=lambda key: key, change=lambda tensors: tensors) -> None:
    """Changes keys or tensors of a saved adapter."""
    file = folder / "adapter_model.safetensors"
    tensors = {rename(key): tensor for key, tensor in load_file(file).items()}
    save_file(change(tensors), file, metadata={"format": "pt"})
