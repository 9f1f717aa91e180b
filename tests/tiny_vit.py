"""What tests of a transformer's patches share: a recipe for one of 16 patches, and pictures as PNG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from training.recipe import Recipe

SIDE, PATCH = 16, 4


def encode_png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def tiny_vit_recipe(**changes: object) -> Recipe:
    """A ViT of two layers that tells ``dark`` from ``bright``; ``changes`` replace whole entries of its recipe."""
    content: dict[str, object] = {
        "name": "patches",
        "labels": ["dark", "bright"],
        "model": {
            "architecture": "vit",
            "config": {
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 32,
                "image_size": SIDE,
                "patch_size": PATCH,
            },
        },
        "image": {"size": SIDE, "crop": SIDE},
        "augment": {"flip": 0.0, "shift": 2},
        "train": {"epochs": 60, "batch_size": 16, "learning_rate": 0.003, "checkpoint_steps": 1000},
    }
    return Recipe.model_validate(content | changes)
