"""LLaVA-1.6 (LLaVA-NeXT): a CLIP tower that sees a picture whole and in tiles, a two-layer projector and a decoder.

The picture is scaled into the best of several resolutions, padded and cut into tiles; before them stands the base view,
the whole picture stretched to one tile. The language model gets the base view's tokens, then those of the stitched
tiles row by row, without the padding and with a newline token after each row. Token counts come from the library's own
``unpad_image``, boxes from the sizes that its processor computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from models.errors import IncompatibleMethodError
from models.families.base import (
    Anatomy,
    Family,
    anatomy_of,
    answer_separator,
    block_names,
    chat_prompt,
    checked_question,
    config_of,
    continuation_ids,
    embed_images,
    image_tokens,
    layer_presets,
    load_parts,
    pixels_for,
    without_prefix,
)
from models.schema import Box, Inputs, LayerPreset, TokenGrid, TokenLayout

__all__ = ["FAMILY", "LlavaNext"]


class LlavaNext(Family):
    """LLaVA-1.6 with any decoder, asked in the chat template of its processor."""

    name = "llava_next"
    model_types = ("llava_next",)

    def load(self, folder: Path | str, **options: Any) -> tuple[Any, Any, dict[str, Any]]:  # noqa: ANN401
        """Network, processor and loading report of the LLaVA-1.6 in ``folder``."""
        from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

        module, processor, report = load_parts(LlavaNextForConditionalGeneration, LlavaNextProcessor, folder, **options)
        config = module.config
        # Processors saved before the library counted image tokens itself lack what it needs for that.
        processor.patch_size = processor.patch_size or config.vision_config.patch_size
        strategy = processor.vision_feature_select_strategy or config.vision_feature_select_strategy
        processor.vision_feature_select_strategy = strategy
        return module, processor, report

    def prompt(self, processor: Any, question: str) -> str:  # noqa: ANN401
        """Image and question in the chat template; with Mistral, ``[INST] <image>``, the question, ``[/INST]``."""
        return chat_prompt(processor, checked_question(question, processor.image_token))

    def encode(self, processor: Any, images: Sequence[Image.Image], prompts: Sequence[str]) -> Inputs:  # noqa: ANN401
        """Ids and mask (n, sequence), ``pixel_values`` (n, 1 + tiles, 3, side, side), ``image_sizes`` (n, 2) as (h, w).

        Images with fewer tiles are followed by tiles of zeros, which the network leaves out.
        """
        bos = processor.tokenizer.bos_token
        encoded = processor(
            images=list(images),
            text=list(prompts),
            padding=True,
            padding_side="left",
            # Some chat templates write it themselves.
            add_special_tokens=not (bos and prompts[0].startswith(bos)),
            return_tensors="pt",
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask", "pixel_values", "image_sizes")}

    def continuation(self, processor: Any, prompt: str, answer: str) -> tuple[int, ...]:  # noqa: ANN401
        """Ids of the answer after what the chat template writes before answers."""
        return continuation_ids(processor.tokenizer, prompt, answer_separator(processor) + answer)

    def anatomy(self, module: nn.Module) -> Anatomy:
        """CLIP tower, projector of two layers, decoder."""
        from transformers.models.llava_next.modeling_llava_next import LlavaNextMultiModalProjector

        return anatomy_of(module, LlavaNextMultiModalProjector)

    def layers(self, module: nn.Module) -> tuple[LayerPreset, ...]:
        """The tower's block whose output is projected (``vision_feature_layer``), the projector, a middle layer.

        Blocks after it run, but the answer does not depend on them.
        """
        config = config_of(module)
        count = config.vision_config.num_hidden_layers
        wanted = config.vision_feature_layer
        # State 0 is what enters the first block, so state k is the output of block k - 1; the last one used counts.
        states = [index % (count + 1) for index in ([wanted] if isinstance(wanted, int) else wanted)]
        blocks = block_names(module, self.anatomy(module).tower, count)
        return layer_presets(module, self, blocks[max(*states, 1) - 1])

    def image_features(self, module: nn.Module, inputs: Inputs) -> list[Tensor]:
        """For each image (tokens, channels): base view, then stitched tiles with a newline token after each row."""
        network: Any = module
        pixels = pixels_for(module, self.anatomy(module).tower, inputs)
        return list(network.get_image_features(pixels, inputs["image_sizes"]).pooler_output)

    def embed(self, module: nn.Module, inputs: Inputs, features: Sequence[Tensor]) -> Inputs:
        """``inputs_embeds`` and ``attention_mask``."""
        merged = embed_images(module, inputs, torch.cat(list(features)), config_of(module).image_token_id)
        return {"inputs_embeds": merged, "attention_mask": inputs["attention_mask"]}

    def split(self, module: nn.Module, activation: Tensor, inputs: Inputs, layer: str) -> list[Tensor]:
        """Per image its base view's patches and those of its tiles, or the language model's image tokens."""
        if self.stage(module, layer) == "language":
            return image_tokens(activation, inputs, config_of(module).image_token_id)
        tilings = _tilings(module, inputs)
        tiles = without_prefix(activation, tilings[0].side ** 2)
        counts = [1 + tiling.rows * tiling.cols for tiling in tilings]
        if sum(counts) != len(tiles):
            raise IncompatibleMethodError(
                f"Layer {layer!r} ran on {len(tiles)} views where these images have {sum(counts)}; "
                "explain with the inputs of the same pass."
            )
        return [part.flatten(0, 1) for part in tiles.split(counts)]

    def layout(
        self,
        module: nn.Module,
        processor: Any,  # noqa: ANN401, ARG002
        inputs: Inputs,
        sizes_wh: Sequence[tuple[int, int]],
        layer: str,
    ) -> list[TokenLayout]:
        """The stitched tiles without padding, and the base view over the whole picture."""
        if self.stage(module, layer) == "language":
            counts = (inputs["input_ids"] == config_of(module).image_token_id).sum(dim=1).tolist()
        else:
            counts = [None] * len(sizes_wh)
        layouts = []
        for size, tiling, count in zip(sizes_wh, _tilings(module, inputs), counts, strict=True):
            base = np.arange(tiling.side**2, dtype=np.intp).reshape(tiling.side, tiling.side)
            whole = TokenGrid((0.0, 0.0, float(size[0]), float(size[1])), base)
            if not tiling.kept().size:  # a picture so thin that all patches of its tiles count as padding
                layouts.append(TokenLayout(size, (whole,)))
                continue
            tokens = tiling.patches() if count is None else tiling.packed(int(count))
            layouts.append(TokenLayout(size, (TokenGrid(tiling.box(size), tokens), whole)))
        return layouts


@dataclass(frozen=True)
class _Tiling:
    """How one picture was cut.

    Attributes:
        size_hw: of the picture as the processor got it.
        rows: of tiles.
        cols: of tiles.
        side: patches along a tile's side.
        tile_px: pixels along a tile's side.
    """

    size_hw: tuple[int, int]
    rows: int
    cols: int
    side: int
    tile_px: int

    def kept(self) -> NDArray[np.intp]:
        """Raster index, in the stitched tiles, of every patch that is not padding, by the library's own rule."""
        from transformers.models.llava_next.modeling_llava_next import unpad_image

        rows, cols = self.rows * self.side, self.cols * self.side
        kept = unpad_image(torch.arange(rows * cols).view(1, rows, cols), self.size_hw)
        return kept[0].numpy().astype(np.intp)

    def patches(self) -> NDArray[np.intp]:
        """Token of each kept patch where views follow each other, the base view first and then the tiles row by row."""
        row, col = np.divmod(self.kept(), self.cols * self.side)
        tile = 1 + row // self.side * self.cols + col // self.side
        return tile * self.side**2 + row % self.side * self.side + col % self.side

    def packed(self, count: int) -> NDArray[np.intp]:
        """Token of each kept patch among the ``count`` image tokens of the language model.

        Raises:
            IncompatibleMethodError: there are more or fewer tokens than that.
        """
        rows, cols = self.kept().shape
        width, rest = divmod(count - self.side**2, rows)
        if rest or width not in (cols, cols + 1):
            raise IncompatibleMethodError(
                f"The prompt has {count} image tokens where {self.side**2} and {rows} rows of {cols} and a newline are "
                "expected; the model's processor does not belong to it: copy that of its base model into the folder."
            )
        return self.side**2 + np.arange(rows * width, dtype=np.intp).reshape(rows, width)[:, :cols]

    def box(self, size_wh: tuple[int, int]) -> Box:
        """What the kept patches cover, in pixels of a picture of ``size_wh``; the edge patches may show padding."""
        from transformers.image_processing_utils import get_patch_output_size
        from transformers.image_utils import ChannelDimension

        kept, (height, width) = self.kept(), self.size_hw
        padded_h, padded_w = self.rows * self.tile_px, self.cols * self.tile_px
        # A tensor without data tells the size the processor chose, at no cost.
        picture = torch.empty(3, height, width, device="meta")
        scaled_h, scaled_w = get_patch_output_size(picture, (padded_h, padded_w), ChannelDimension.FIRST)
        top, left = divmod(int(kept[0, 0]), self.cols * self.side)
        patch = self.tile_px / self.side
        x0, y0 = left * patch - (padded_w - scaled_w) // 2, top * patch - (padded_h - scaled_h) // 2
        per_x, per_y = size_wh[0] / scaled_w, size_wh[1] / scaled_h
        return (x0 * per_x, y0 * per_y, (x0 + kept.shape[1] * patch) * per_x, (y0 + kept.shape[0] * patch) * per_y)


def _tilings(module: nn.Module, inputs: Inputs) -> list[_Tiling]:
    """How each picture was cut, from the sizes and tiles that the processor returned."""
    from transformers.image_processing_utils import select_best_resolution

    config, tile_px = config_of(module), inputs["pixel_values"].shape[-1]
    tilings = []
    for height, width in inputs["image_sizes"].tolist():
        best_h, best_w = select_best_resolution((height, width), config.image_grid_pinpoints)
        side = tile_px // config.vision_config.patch_size
        tilings.append(_Tiling((height, width), best_h // tile_px, best_w // tile_px, side, tile_px))
    return tilings


FAMILY = LlavaNext()
