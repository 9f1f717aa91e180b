"""SmolVLM and Idefics3: the picture in square tiles and once more as a whole, each encoded by itself.

A picture is stretched to whole tiles, cut into rows x columns of them, and stretched to one more tile at the end, the
global view. In a batch, pictures with fewer tiles are filled up with black ones, which the network drops before its
tower: the tower's batch axis counts the real tiles of all pictures. A pixel shuffle then makes one token of a square of
patches, row by row again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from models.errors import ExhibitError, IncompatibleMethodError
from models.families.base import (
    Anatomy,
    Family,
    anatomy_of,
    answer_separator,
    chat_prompt,
    checked_question,
    closing_norm,
    config_of,
    continuation_ids,
    embed_images,
    image_tokens,
    layer_presets,
    load_parts,
    pixels_for,
    shown_box,
    without_prefix,
)
from models.schema import Inputs, LayerPreset, TokenGrid, TokenLayout

__all__ = ["FAMILY", "SmolVLM"]


class SmolVLM(Family):
    """SmolVLM, SmolVLM2 and Idefics3, which share their architecture under two names."""

    name = "smolvlm"
    model_types = ("idefics3", "smolvlm")

    def load(self, folder: Path | str, **options: Any) -> tuple[Any, Any, dict[str, Any]]:  # noqa: ANN401
        """Network, processor and loading report of the Idefics3 or SmolVLM in ``folder``."""
        from transformers import AutoModelForImageTextToText, AutoProcessor

        return load_parts(AutoModelForImageTextToText, AutoProcessor, folder, **options)

    def prompt(self, processor: Any, question: str) -> str:  # noqa: ANN401
        """Image and question in the chat template."""
        return chat_prompt(processor, checked_question(question, processor.image_token))

    def encode(self, processor: Any, images: Sequence[Image.Image], prompts: Sequence[str]) -> Inputs:  # noqa: ANN401
        """Pixels and text.

        ``input_ids`` and ``attention_mask`` (n, sequence), ``pixel_values`` (n, most tiles, 3, side, side),
        ``pixel_attention_mask`` (n, most tiles, side, side).
        """
        # Idefics3's template writes the first token and its tokenizer would write it once more.
        begun = all(prompt.startswith(processor.tokenizer.bos_token or "\0") for prompt in prompts)
        encoded = processor(
            images=[[image] for image in images],
            text=list(prompts),
            add_special_tokens=not begun,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        return dict(encoded)

    def continuation(self, processor: Any, prompt: str, answer: str) -> tuple[int, ...]:  # noqa: ANN401
        """Ids of the answer behind what the chat template writes before it (one space).

        Raises:
            ExhibitError: the answer is empty.
        """
        if not answer:  # the space alone would pass for an answer
            raise ExhibitError("An empty answer has no tokens: write at least one character.")
        return continuation_ids(processor.tokenizer, prompt, answer_separator(processor) + answer)

    def anatomy(self, module: nn.Module) -> Anatomy:
        """SigLIP tower for any shape, pixel-shuffling connector, Llama decoder."""
        from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector
        from transformers.models.smolvlm.modeling_smolvlm import SmolVLMConnector

        return anatomy_of(module, SmolVLMConnector if config_of(module).model_type == "smolvlm" else Idefics3Connector)

    def layers(self, module: nn.Module) -> tuple[LayerPreset, ...]:
        """The tower's closing normalisation, which the connector reads, the connector, a middle decoder layer."""
        return layer_presets(module, self, closing_norm(module, self.anatomy(module).tower))

    def image_features(self, module: nn.Module, inputs: Inputs) -> list[Tensor]:
        """One (tokens of all its tiles, channels) per image."""
        network: Any = module
        pixels = pixels_for(module, self.anatomy(module).tower, inputs)
        return list(network.get_image_features(pixels, inputs["pixel_attention_mask"]).pooler_output)

    def embed(self, module: nn.Module, inputs: Inputs, features: Sequence[Tensor]) -> Inputs:
        """``inputs_embeds`` and ``attention_mask``."""
        merged = embed_images(module, inputs, torch.cat(list(features)), config_of(module).image_token_id)
        return {"inputs_embeds": merged, "attention_mask": inputs["attention_mask"]}

    def split(self, module: nn.Module, activation: Tensor, inputs: Inputs, layer: str) -> list[Tensor]:
        """One (cells of all its tiles, channels) per image: the tiles row by row, the global view last.

        Raises:
            IncompatibleMethodError: the layer does not have one entry per tile.
        """
        stage = self.stage(module, layer)
        if stage == "language":
            return image_tokens(activation, inputs, config_of(module).image_token_id)
        counts = _tile_counts(module, inputs)
        if len(activation) != sum(counts):
            raise IncompatibleMethodError(
                f"Layer {layer} gives {len(activation)} entries where the pictures have {sum(counts)} tiles; "
                f"choose {self.layers(module)[0].name}."
            )
        rows, cols = _grid(module, inputs, merged=stage == "projector")
        return [tiles.flatten(0, 1) for tiles in without_prefix(activation, rows * cols).split(counts)]

    def layout(
        self,
        module: nn.Module,
        processor: Any,  # noqa: ANN401
        inputs: Inputs,
        sizes_wh: Sequence[tuple[int, int]],
        layer: str,
    ) -> list[TokenLayout]:
        """The tiles stitched to one grid over the picture, and the global view as a second one over it.

        Where patches do not fill a tile (384 px by 14 px leave 6 px), the tower never sees its right and bottom rest;
        the stitched grid shares it out, so a cell lies up to 6 of 384 px off, less than half of its patch.

        Raises:
            IncompatibleMethodError: the prompt names other tiles than the picture has.
        """
        rows, cols = _grid(module, inputs, merged=self.stage(module, layer) != "tower")
        patch = config_of(module).vision_config.patch_size
        cells = np.arange(rows * cols, dtype=np.intp).reshape(rows, cols)
        layouts = []
        tilings = _tilings(processor, inputs["input_ids"])
        for size, count, (down, across) in zip(sizes_wh, _tile_counts(module, inputs), tilings, strict=True):
            if count != down * across + 1:
                raise IncompatibleMethodError(
                    f"The prompt has {count} tiles where rows and columns make {down * across + 1}; "
                    "leave tile marks out of the question."
                )
            whole = TokenGrid(shown_box(size, inputs["pixel_values"], patch), cells + down * across * rows * cols)
            box = (0.0, 0.0, float(size[0]), float(size[1]))
            stitched = (TokenGrid(box, _stitched(cells, down, across)),) if down * across else ()
            layouts.append(TokenLayout(size, (*stitched, whole)))
        return layouts


def _grid(module: nn.Module, inputs: Inputs, *, merged: bool) -> tuple[int, int]:
    """Rows and columns of cells in one tile: patches, or what the pixel shuffle makes of them."""
    height, width = inputs["pixel_values"].shape[-2:]
    step = config_of(module).vision_config.patch_size
    rows, cols = height // step, width // step
    scale = config_of(module).scale_factor if merged else 1
    return rows // scale, cols // scale


def _tile_counts(module: nn.Module, inputs: Inputs) -> list[int]:
    """Real tiles of each image, global view included, by its image tokens: the filling has none."""
    rows, cols = _grid(module, inputs, merged=True)
    tokens = (inputs["input_ids"] == config_of(module).image_token_id).sum(dim=-1)
    return [int(count) // (rows * cols) for count in tokens]


def _tilings(processor: Any, input_ids: Tensor) -> list[tuple[int, int]]:  # noqa: ANN401
    """Rows and columns of each image's tiles by the marks before them; (0, 0) where there is only the global view."""
    mark = re.compile(rf"<row_(\d+)_col_(\d+)>\s*{re.escape(processor.image_token)}")
    tilings = []
    for text in processor.tokenizer.batch_decode(input_ids):
        marks = [(int(row), int(col)) for row, col in mark.findall(text)]
        tilings.append(marks[-1] if marks else (0, 0))
    return tilings


def _stitched(cells: NDArray[np.intp], down: int, across: int) -> NDArray[np.intp]:
    """One grid of ``down`` x ``across`` tiles, each with its own ``cells``, which count on from tile to tile."""
    rows, cols = cells.shape
    tiles = np.arange(down * across, dtype=np.intp).reshape(down, across)
    places = tiles[:, :, None, None] * rows * cols + cells
    return places.transpose(0, 2, 1, 3).reshape(down * rows, across * cols)


FAMILY = SmolVLM()
