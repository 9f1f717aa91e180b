"""PaliGemma: a SigLIP tower, one linear projector and a Gemma decoder that reads the whole prompt in both directions.

The picture is stretched to a square, so columns and rows stand for different numbers of original pixels. SigLIP has no
class token, and every patch becomes one token of the language model, so its last output is alive at all of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from models.errors import ExhibitError
from models.families.base import (
    Anatomy,
    Family,
    anatomy_of,
    checked_question,
    closing_norm,
    config_of,
    embed_images,
    image_tokens,
    layer_presets,
    load_parts,
    pixels_for,
    shown_box,
    without_prefix,
)
from models.schema import Inputs, LayerPreset, TokenGrid, TokenLayout

__all__ = ["FAMILY", "PaliGemma"]


class PaliGemma(Family):
    """PaliGemma 1 and 2: image tokens, ``<bos>``, the question and a line break stand before the answer."""

    name = "paligemma"
    model_types = ("paligemma",)

    def load(self, folder: Path | str, **options: Any) -> tuple[Any, Any, dict[str, Any]]:  # noqa: ANN401
        """Network, processor and loading report of the PaliGemma in ``folder``."""
        from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

        return load_parts(PaliGemmaForConditionalGeneration, PaliGemmaProcessor, folder, **options)

    def prompt(self, processor: Any, question: str) -> str:  # noqa: ANN401
        """The question after the image token, on a line of its own; the processor adds ``<bos>`` between them."""
        return f"{processor.image_token}{checked_question(question, processor.image_token)}\n"

    def encode(self, processor: Any, images: Sequence[Image.Image], prompts: Sequence[str]) -> Inputs:  # noqa: ANN401
        """Ids, ``attention_mask``, ``token_type_ids`` (n, sequence) and ``pixel_values`` (n, 3, side, side)."""
        encoded = processor(
            images=[[image] for image in images],
            # The processor repeats <image>, writes <bos> after it and ends the line by itself.
            text=[prompt.removesuffix("\n") for prompt in prompts],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        # It also makes training labels, for which the network would compute a loss.
        names = ("input_ids", "attention_mask", "token_type_ids", "pixel_values")
        return {name: encoded[name] for name in names}

    def continuation(self, processor: Any, prompt: str, answer: str) -> tuple[int, ...]:  # noqa: ANN401, ARG002
        """Ids of the answer, which begins a line; nothing is written before it."""
        # An answer is a second text to the tokenizer, as in training (``suffix``), so the prompt cannot melt into it.
        ids = tuple(processor.tokenizer(answer, add_special_tokens=False)["input_ids"])
        if not ids:
            raise ExhibitError(f"The answer {answer!r} has no tokens: write at least one character.")
        return ids

    def processor_for(self, processor: Any, patches: int) -> Any:  # noqa: ANN401
        """A copy that resizes pictures to more or fewer patches, and writes as many image tokens."""
        other = copy.deepcopy(processor)
        side = other.image_processor.size["height"] * math.isqrt(patches) // math.isqrt(processor.image_seq_length)
        other.image_processor.size = {"height": side, "width": side}
        other.image_processor.image_seq_length = other.image_seq_length = patches
        return other

    def anatomy(self, module: nn.Module) -> Anatomy:
        """SigLIP tower, linear projector, Gemma decoder."""
        from transformers.models.paligemma.modeling_paligemma import PaliGemmaMultiModalProjector

        return anatomy_of(module, PaliGemmaMultiModalProjector)

    def layers(self, module: nn.Module) -> tuple[LayerPreset, ...]:
        """The tower's closing normalisation, which the projector reads, the projector, a middle decoder layer."""
        return layer_presets(module, self, closing_norm(module, self.anatomy(module).tower))

    def image_features(self, module: nn.Module, inputs: Inputs) -> Tensor:
        """(n, patches, channels)."""
        network: Any = module
        pixels = pixels_for(module, self.anatomy(module).tower, inputs)
        features: Tensor = network.get_image_features(pixel_values=pixels).pooler_output
        return features

    def embed(self, module: nn.Module, inputs: Inputs, features: Sequence[Tensor] | Tensor) -> Inputs:
        """``inputs_embeds``, ``attention_mask`` and ``token_type_ids``."""
        merged = embed_images(module, inputs, torch.cat(list(features)), config_of(module).image_token_id)
        # token_type_ids are what lets the prompt be read in both directions; without them answers change silently.
        kept = {name: inputs[name] for name in ("attention_mask", "token_type_ids")}
        return {"inputs_embeds": merged, **kept}

    def split(self, module: nn.Module, activation: Tensor, inputs: Inputs, layer: str) -> list[Tensor]:
        """One (patches, channels) per image at every stage."""
        if self.stage(module, layer) == "language":
            return image_tokens(activation, inputs, config_of(module).image_token_id)
        rows, cols = _grid(module, inputs)
        return list(without_prefix(activation, rows * cols))

    def layout(
        self,
        module: nn.Module,
        processor: Any,  # noqa: ANN401, ARG002
        inputs: Inputs,
        sizes_wh: Sequence[tuple[int, int]],
        layer: str,  # noqa: ARG002
    ) -> list[TokenLayout]:
        """One grid over the whole picture, whatever its shape."""
        rows, cols = _grid(module, inputs)
        tokens = np.arange(rows * cols, dtype=np.intp).reshape(rows, cols)
        patch = config_of(module).vision_config.patch_size
        return [
            TokenLayout(size, (TokenGrid(shown_box(size, inputs["pixel_values"], patch), tokens),)) for size in sizes_wh
        ]


def _grid(module: nn.Module, inputs: Inputs) -> tuple[int, int]:
    """Rows and columns of patches in what the processor returned."""
    height, width = inputs["pixel_values"].shape[-2:]
    patch = config_of(module).vision_config.patch_size
    return height // patch, width // patch


FAMILY = PaliGemma()
