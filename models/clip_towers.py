"""The two libraries that image-text checkpoints come from, brought to one form.

Both give vectors that are not yet normalised; what they mean is the business of ``models.clip``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn
from transformers.image_processing_utils import BaseImageProcessor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from models.errors import IncompatibleMethodError
from models.framing import seen_box
from models.lean import lean_module
from models.schema import Box

__all__ = ["HubTowers", "OpenClipTowers", "Towers"]


class Towers(Protocol):
    """An image tower and a text tower that meet in one space.

    Attributes:
        network: both towers, in evaluation mode.
        context: most tokens that a text may have, special ones included.
        patch_px: side of a patch by the network's own configuration; ``None`` where it has no patches.
        logit_scale: what a cosine is multiplied by before softmax.
        logit_bias: what is then added; 0 where the network has none.
    """

    network: nn.Module
    context: int
    patch_px: int | None
    logit_scale: float
    logit_bias: float

    def prepare(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB pictures to float32 (n, 3, height, width), on the CPU."""

    def seen_box(self, size_wh: tuple[int, int]) -> Box:
        """The part of a picture of that size which ``prepare`` passes on, ``xyxy`` in its own pixels."""

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Pixels (n, 3, height, width) to vectors (n, d), in the graph."""

    def read_images(self, pixels: Tensor) -> Tensor:
        """The same vectors up to rounding, without a graph, in the fastest way there is."""

    def count_tokens(self, text: str) -> int:
        """Tokens of a text with the special ones, nothing cut off."""

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts that each fit ``context`` to vectors (n, d)."""


class OpenClipTowers:
    """A network of OpenCLIP: ``CLIP`` or ``CustomTextCLIP``.

    Args:
        network: the network with its weights.
        preprocess: ``preprocess_cfg`` of its configuration.
        tokenizer: the one its text tower was trained with.
    """

    def __init__(
        self,
        network: Any,  # noqa: ANN401 - CLIP or CustomTextCLIP
        preprocess: Mapping[str, Any],
        tokenizer: SimpleTokenizer | HFTokenizer,
    ) -> None:
        self.network: nn.Module = network
        self.context = int(tokenizer.context_length)
        self.patch_px = getattr(network.visual, "patch_size", (None,))[0]
        self.logit_scale, self.logit_bias = _scale_of(network)
        self._settings = PreprocessCfg(**{"size": network.visual.image_size} | dict(preprocess))
        self._transform = image_transform_v2(self._settings, is_train=False)
        self.tokenizer = tokenizer
        self._reader: Any = None  # of pictures, made when the first is read

    def prepare(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB pictures to float32 (n, 3, height, width), on the CPU."""
        return torch.stack([self._transform(image) for image in images])

    def seen_box(self, size_wh: tuple[int, int]) -> Box:
        """The part of a picture of that size which ``prepare`` passes on, ``xyxy`` in its own pixels.

        Raises:
            IncompatibleMethodError: the configuration pads or crops to a shape that is not square.
        """
        width, height = size_wh
        if self._settings.resize_mode == "squash":
            return (0.0, 0.0, float(width), float(height))
        sides = self._settings.size
        rows, cols = (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])
        if self._settings.resize_mode != "shortest" or rows != cols:
            raise IncompatibleMethodError(
                f"pictures are prepared in the way {self._settings.resize_mode!r} to {rows} x {cols}, for which a "
                "heatmap cannot be placed; choose another model for heatmaps"
            )
        # As torchvision resizes the shorter side and crops the middle, whole pixels at each step.
        short = min(width, height)
        shown_w, shown_h = (rows * side // short for side in (width, height))
        left, top = round((shown_w - cols) / 2), round((shown_h - rows) / 2)
        across, down = width / shown_w, height / shown_h
        return (left * across, top * down, (left + cols) * across, (top + rows) * down)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Pixels (n, 3, height, width) to vectors (n, d), in the graph."""
        network: Any = self.network
        return network.encode_image(pixels)

    def read_images(self, pixels: Tensor) -> Tensor:
        """The same vectors up to rounding, without a graph, in the fastest way there is."""
        network: Any = self.network
        if self._reader is None:
            noise = torch.rand(1, *pixels.shape[1:], generator=torch.Generator().manual_seed(0)).to(pixels.device)
            self._reader = lean_module(network.visual, lambda tower: tower(noise)) or network.visual
        with torch.no_grad():
            return self._reader(pixels)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text with the special ones, nothing cut off."""
        cleaned = self.tokenizer.clean_fn(text)
        if isinstance(self.tokenizer, HFTokenizer):
            return len(self.tokenizer.tokenizer(cleaned, verbose=False).input_ids)
        return len(self.tokenizer.encode(cleaned)) + 2  # start and end of text

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts that each fit ``context`` to vectors (n, d)."""
        network: Any = self.network
        length = self.context
        if isinstance(self.tokenizer, HFTokenizer) and self.tokenizer.tokenizer_mode != "clips":
            length = max(map(self.count_tokens, texts))  # its tower needs no padding beyond the longest text
        ids = self.tokenizer(list(texts), context_length=length)
        return network.encode_text(ids.to(next(network.parameters()).device))


class HubTowers:
    """A network of the transformers library with ``get_image_features`` and ``get_text_features`` (CLIP, SigLIP ...).

    Args:
        network: the network with its weights.
        processor: its image processor.
        tokenizer: its tokenizer.
    """

    def __init__(self, network: Any, processor: BaseImageProcessor, tokenizer: PreTrainedTokenizerBase) -> None:  # noqa: ANN401
        self.network: nn.Module = network
        self.context = int(network.config.text_config.max_position_embeddings)
        self.patch_px = network.config.vision_config.patch_size
        self.logit_scale, self.logit_bias = _scale_of(network)
        self._processor = processor
        self._tokenizer = tokenizer
        # SigLIP learnt from texts filled up to full length, without a mask, and reads the last token whatever it is.
        self._filled = "siglip" in network.config.model_type

    def prepare(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB pictures to float32 (n, 3, height, width), on the CPU."""
        pixels: Tensor = self._processor(images=list(images), return_tensors="pt")["pixel_values"]
        return pixels.float()

    def seen_box(self, size_wh: tuple[int, int]) -> Box:
        """The part of a picture of that size which ``prepare`` passes on, ``xyxy`` in its own pixels."""
        return seen_box(self._processor, size_wh)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Pixels (n, 3, height, width) to vectors (n, d), in the graph."""
        network: Any = self.network
        return network.get_image_features(pixel_values=pixels).pooler_output

    def read_images(self, pixels: Tensor) -> Tensor:
        """The same vectors, without a graph."""
        with torch.no_grad():
            return self.encode_images(pixels)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text with the special ones, nothing cut off."""
        return len(self._tokenizer(text, verbose=False)["input_ids"])

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts that each fit ``context`` to vectors (n, d)."""
        network: Any = self.network
        padding = "max_length" if self._filled else "longest"
        tokens = self._tokenizer(list(texts), padding=padding, max_length=self.context, return_tensors="pt")
        names = ("input_ids",) if self._filled else ("input_ids", "attention_mask")
        wanted = {name: tokens[name].to(network.device) for name in names}
        return network.get_text_features(**wanted).pooler_output


def _scale_of(network: Any) -> tuple[float, float]:  # noqa: ANN401
    bias = getattr(network, "logit_bias", None)
    return float(network.logit_scale.detach().exp()), float(bias.detach()) if bias is not None else 0.0
