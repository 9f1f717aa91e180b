"""Qwen2-VL and Qwen2.5-VL: pictures at their own shape, 2x2 patches merged into one token, positions on three axes.

The tower has no batch axis: the patches of all pictures stand in one row, [patches, channels]. Within a picture they
come block by block (the 2x2 patches that will be merged stand together), in Qwen2.5-VL also window by window. Read row
by row, as of any other tower, they give a scrambled map that still looks plausible.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from models.errors import BadImageError, IncompatibleMethodError
from models.families.base import (
    Anatomy,
    Family,
    Stage,
    anatomy_of,
    answer_separator,
    chat_prompt,
    checked_question,
    config_of,
    continuation_ids,
    embed_images,
    image_tokens,
    layer_presets,
    load_parts,
    pixels_for,
)
from models.schema import Inputs, LayerPreset, TokenGrid, TokenLayout

__all__ = ["FAMILY", "Qwen2VL"]


class Qwen2VL(Family):
    """Qwen2-VL, and Qwen2.5-VL, whose tower sorts its patches into windows on top."""

    name = "qwen2_vl"
    model_types = ("qwen2_vl", "qwen2_5_vl")

    def load(self, folder: Path | str, **options: Any) -> tuple[Any, Any, dict[str, Any]]:  # noqa: ANN401
        """Network, processor and loading report of the Qwen2-VL or Qwen2.5-VL in ``folder``.

        Checkpoints allow pictures of 16,384 tokens, which no ordinary machine can hold: the cap is lowered to the
        library's own default for this image processor (1,280 tokens), never raised.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        module, processor, report = load_parts(AutoModelForImageTextToText, AutoProcessor, folder, **options)
        reader = processor.image_processor
        size, default = dict(reader.size), dict(type(reader).size)
        reader.size = {
            "shortest_edge": size["shortest_edge"],
            "longest_edge": min(size["longest_edge"], default["longest_edge"]),
        }
        return module, processor, report

    def prompt(self, processor: Any, question: str) -> str:  # noqa: ANN401
        """Image and question in the chat template."""
        return chat_prompt(processor, checked_question(question, processor.image_token))

    def encode(self, processor: Any, images: Sequence[Image.Image], prompts: Sequence[str]) -> Inputs:  # noqa: ANN401
        """Pixels and text.

        ``input_ids``, ``attention_mask`` and ``mm_token_type_ids`` (n, sequence), ``pixel_values`` (patches of all
        images, values of a patch), ``image_grid_thw`` (n, 3): frames, rows and columns of patches.

        Raises:
            BadImageError: a picture is more than 200 times as long as wide, or the other way round.
        """
        try:
            encoded = processor(
                images=list(images), text=list(prompts), padding=True, padding_side="left", return_tensors="pt"
            )
        except ValueError as error:  # so thin that no whole number of patches keeps its shape
            raise BadImageError(f"The model cannot read this picture ({error}): crop it or pad it.") from error
        return dict(encoded)

    def continuation(self, processor: Any, prompt: str, answer: str) -> tuple[int, ...]:  # noqa: ANN401
        """Ids of the answer behind what the chat template writes before it."""
        return continuation_ids(processor.tokenizer, prompt, answer_separator(processor) + answer)

    def anatomy(self, module: nn.Module) -> Anatomy:
        """Vision transformer, the merger at its end, Qwen2 decoder."""
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLPatchMerger
        from transformers.models.qwen2_vl.modeling_qwen2_vl import PatchMerger

        newer = config_of(module).model_type == "qwen2_5_vl"
        return anatomy_of(module, Qwen2_5_VLPatchMerger if newer else PatchMerger)

    def stage(self, module: nn.Module, layer: str) -> Stage:
        """Where a layer lies: the merger is the projector, except for the normalisation it begins with."""
        projector = self.anatomy(module).projector
        if f"{layer}.".startswith(f"{projector}.") and layer != _closing_norm(module, projector):
            return "projector"
        return super().stage(module, layer)

    def layers(self, module: nn.Module) -> tuple[LayerPreset, ...]:
        """The normalisation behind the tower's blocks, the merger, the language model's middle layer."""
        return layer_presets(module, self, _closing_norm(module, self.anatomy(module).projector))

    def image_features(self, module: nn.Module, inputs: Inputs) -> list[Tensor]:
        """One (merged cells, channels) per image."""
        network: Any = module
        pixels = pixels_for(module, self.anatomy(module).tower, inputs)
        return list(network.get_image_features(pixels, inputs["image_grid_thw"]).pooler_output)

    def embed(self, module: nn.Module, inputs: Inputs, features: Sequence[Tensor]) -> Inputs:
        """``inputs_embeds``, ``attention_mask`` and ``position_ids`` (3, n, sequence) for time, height and width."""
        merged = embed_images(module, inputs, torch.cat(list(features)), config_of(module).image_token_id)
        # Without positions said outright the network would take those that its previous call left behind.
        owner: Any = next(part for part in module.modules() if hasattr(part, "get_rope_index"))
        names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
        positions, _ = owner.get_rope_index(**{name: inputs[name] for name in names})
        return {"inputs_embeds": merged, "attention_mask": inputs["attention_mask"], "position_ids": positions}

    def split(self, module: nn.Module, activation: Tensor, inputs: Inputs, layer: str) -> list[Tensor]:
        """One (patches, channels) per image in the tower, one (merged cells, channels) behind it.

        Raises:
            IncompatibleMethodError: the layer gives another number of tokens.
        """
        stage = self.stage(module, layer)
        if stage == "language":
            return image_tokens(activation, inputs, config_of(module).image_token_id)
        counts = inputs["image_grid_thw"].prod(dim=-1)
        if stage == "projector":
            counts = counts // config_of(module).vision_config.spatial_merge_size ** 2
        if len(activation) != int(counts.sum()):
            raise IncompatibleMethodError(
                f"Layer {layer} gives {len(activation)} tokens where the pictures have {int(counts.sum())}; "
                f"choose {self.layers(module)[0].name}."
            )
        return list(activation.flatten(1).split(counts.tolist()))

    def layout(
        self,
        module: nn.Module,
        processor: Any,  # noqa: ANN401, ARG002
        inputs: Inputs,
        sizes_wh: Sequence[tuple[int, int]],
        layer: str,
    ) -> list[TokenLayout]:
        """One grid over the whole picture, which is stretched a little to whole blocks of patches."""
        stage, vision = self.stage(module, layer), config_of(module).vision_config
        merge = vision.spatial_merge_size
        # Windows are made behind the patch embedding and undone behind the merger.
        windows = stage != "language" and not layer.startswith(f"{self.anatomy(module).tower}.patch_embed")
        layouts = []
        for size, (_, rows, cols) in zip(sizes_wh, inputs["image_grid_thw"].tolist(), strict=True):
            blocks = _block_places(vision, rows // merge, cols // merge, windows=windows)
            tokens = _patch_places(blocks, merge) if stage == "tower" else blocks
            layouts.append(TokenLayout(size, (TokenGrid((0.0, 0.0, float(size[0]), float(size[1])), tokens),)))
        return layouts


def _closing_norm(module: nn.Module, projector: str) -> str:
    """Dotted name of what the merger does first: it normalises single patches, as other towers do at their end."""
    first, _ = next(module.get_submodule(projector).named_children())
    return f"{projector}.{first}"


def _block_places(vision: Any, rows: int, cols: int, *, windows: bool) -> NDArray[np.intp]:  # noqa: ANN401
    """(rows, cols) of merged cells: which one in its picture's row of tokens each is."""
    window_px = getattr(vision, "window_size", None)
    if not windows or window_px is None:
        return np.arange(rows * cols, dtype=np.intp).reshape(rows, cols)
    from transformers.vision_utils import get_vision_window_index

    merge = vision.spatial_merge_size
    grid = torch.tensor([[1, rows * merge, cols * merge]])
    order, _ = get_vision_window_index(grid, merge, window_px, vision.patch_size)
    return np.argsort(order.numpy()).reshape(rows, cols)


def _patch_places(blocks: NDArray[np.intp], merge: int) -> NDArray[np.intp]:
    """(rows * merge, cols * merge) of patches: the patches of a block follow each other, row by row."""
    rows, cols = blocks.shape
    inside = np.arange(merge * merge, dtype=np.intp).reshape(merge, merge)
    places = blocks[:, :, None, None] * merge * merge + inside
    return places.transpose(0, 2, 1, 3).reshape(rows * merge, cols * merge)


FAMILY = Qwen2VL()
