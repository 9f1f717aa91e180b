"""Moondream 2, whose network exists only as Python code in its repository: loaded when that code is trusted, not else.

The repository's functions make the crops, the features and the attention; this file puts them behind the one interface
that scoring and heatmaps need (``forward`` with a cache of the library, gradients, layers that can be watched). What it
relies on is the interface of ``vikhyatk/moondream2`` at 2025-06-21: ``prepare_crops``, ``reconstruct_from_crops`` and
``text_decoder`` in the module of ``MoondreamModel``, its methods ``_vis_enc``, ``_vis_proj`` and ``_prefill``, and a
``kv_cache`` on every block. It is tested against a stand-in with that interface, not against the real weights.

Geometry: crop 0 is the whole picture stretched to a square; the others overlap and are put together without their
overlap. Both become one square grid of tokens. The blocks are plain functions, which cannot be watched: the layers to
explain are the tower's output and the projected picture.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from models.errors import IncompatibleMethodError, ModelUnavailableError
from models.families.base import Anatomy, Family, continuation_ids, embed_images, image_tokens
from models.schema import Inputs, LayerPreset, TokenGrid, TokenLayout

__all__ = ["FAMILY", "Moondream", "MoondreamNetwork", "MoondreamReader"]

_IMAGE = -1
"""Stands in ``input_ids`` for a token of the picture; the vocabulary has none."""

_BROKEN = (OSError, ImportError, AttributeError, KeyError, TypeError, ValueError, RuntimeError)


@dataclass(frozen=True)
class MoondreamReader:
    """What other families call a processor.

    Attributes:
        tokenizer: the repository's tokenizer behind the library's interface.
        config: the repository's own ``MoondreamConfig``.
        code: the repository's module that holds ``prepare_crops`` and ``reconstruct_from_crops``.
    """

    tokenizer: Any
    config: Any
    code: Any


class MoondreamNetwork(nn.Module):
    """The repository's network behind the interface of the library's language models.

    Attributes:
        remote: the network as its code builds it.
        tower: hands on the tower's output (crops, patches, channels), so that it can be watched.
        projector: hands on the projected picture (n, tokens, channels).
        language: holds ``embed_tokens``.
    """

    def __init__(self, remote: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.remote = remote
        self.tower = nn.Identity()
        self.projector = nn.Identity()
        count, channels = remote.model.text.wte.shape
        words = nn.Embedding(count, channels, device="meta")
        words.weight = remote.model.text.wte
        self.language = nn.ModuleDict({"embed_tokens": words})
        self.code = sys.modules[type(remote.model).__module__]

    @property
    def config(self) -> Any:  # noqa: ANN401
        """The library's config, with ``model_type``."""
        return self.remote.config

    @property
    def side(self) -> int:
        """Patches along one side of a crop; the projected picture has as many rows and columns."""
        vision = self.remote.model.config.vision
        return int(vision.crop_size // vision.enc_patch_size)

    def get_input_embeddings(self) -> nn.Module:
        """What turns ids into vectors."""
        return self.language["embed_tokens"]

    def look(self, crops: Tensor, tilings: Sequence[tuple[int, int]]) -> Tensor:
        """The projected pictures (n, tokens, channels) of the crops of n pictures, one after the other."""
        model, side = self.remote.model, self.side
        seen = self.tower(model._vis_enc(crops.to(model.vision.pos_emb)))
        pictures = []
        for own, tiling in zip(seen.split([rows * cols + 1 for rows, cols in tilings]), tilings, strict=True):
            tiles = own[1:].reshape(-1, side, side, own.shape[-1])
            margin = model.config.vision.overlap_margin
            whole = self.code.reconstruct_from_crops(tiles, tiling, overlap_margin=margin, patch_size=1)
            pictures.append(model._vis_proj(own[0], whole))
        projected: Tensor = self.projector(torch.stack(pictures))
        return projected

    def forward(
        self,
        inputs_embeds: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,  # noqa: ANN401
        logits_to_keep: int = 0,
        **_options: Any,  # noqa: ANN401 - use_cache and the like, which change nothing here
    ) -> Any:  # noqa: ANN401
        """Logits (n, tokens, words) after ``inputs_embeds`` or ``input_ids``, which all rows place alike.

        Args:
            inputs_embeds: (n, tokens, channels).
            input_ids: (n, tokens), in their place.
            attention_mask: (n, past + tokens), 0 at the padding on the left, or an additive (n, 1, tokens, past +
                tokens).
            position_ids: (n, tokens), the same in every row.
            past_key_values: a ``DynamicCache`` to go on from and to fill.
            logits_to_keep: how many of the last positions to give; 0 for all.
        """
        from transformers.modeling_outputs import CausalLMOutputWithPast

        given: Tensor = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        count, tokens = given.shape[:2]
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        if attention_mask is None:
            attention_mask = given.new_ones(count, past + tokens)
        if attention_mask.ndim == 2:
            attention_mask = self._mask(attention_mask.bool())[:, None, past:]
        places = torch.arange(past, past + tokens, device=given.device) if position_ids is None else position_ids[0]
        model = self.remote.model
        extra = {"lora": None} if "lora" in inspect.signature(model._prefill).parameters else {}
        for index, block in enumerate(model.text.blocks):
            block.kv_cache = None if past_key_values is None else _Keys(past_key_values, index)
        try:
            hidden = model._prefill(given, attention_mask, places, **extra)
        finally:
            for block in model.text.blocks:
                block.kv_cache = None
        logits = model.text["lm_head"](model.text["post_ln"](hidden[:, -logits_to_keep:]))
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)

    def _mask(self, seen: Tensor) -> Tensor:
        """(n, tokens, tokens): which token sees which; first token and picture see each other in both directions."""
        count, tokens = seen.shape
        in_front = seen & (seen.long().cumsum(-1) <= 1 + self.side**2)
        causal = torch.ones(tokens, tokens, dtype=torch.bool, device=seen.device).tril()
        mask = (causal | (in_front[:, :, None] & in_front[:, None])) & seen[:, None]
        # A token of the padding sees itself: a row that sees nothing has no softmax.
        return mask | torch.eye(tokens, dtype=torch.bool, device=seen.device).expand(count, -1, -1)


class _Keys:
    """The library's cache as the repository's blocks ask for theirs."""

    def __init__(self, cache: Any, layer: int) -> None:  # noqa: ANN401
        self._cache, self._layer = cache, layer

    def update(self, _places: Tensor, keys: Tensor, values: Tensor) -> Any:  # noqa: ANN401
        """All keys and values so far."""
        return self._cache.update(keys, values, self._layer)


class Moondream(Family):
    """Moondream 2 by the code in its repository."""

    name = "moondream"
    model_types = ("moondream1",)
    remote_code = True

    def load(self, folder: Path | str, **options: Any) -> tuple[Any, Any, dict[str, Any]]:  # noqa: ANN401
        """Network, reader and loading report; runs the code in ``folder``.

        Args:
            folder: config, code and safetensors.
            options: as for other families, and ``trust_remote_code``, without which nothing is loaded.

        Raises:
            ModelUnavailableError: the code is not trusted, or it does not run with the installed libraries.
        """
        if not options.pop("trust_remote_code", False):
            raise ModelUnavailableError(
                f"{folder} holds a network that exists only as code in its repository",
                "read that code, then allow it with --trust and the model's id",
            )
        try:
            remote, report = _load_remote(folder, options)
            network = MoondreamNetwork(remote)
            _renew_rotations(network)
            reader = _reader(network)
        except _BROKEN as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ModelUnavailableError(
                f"the code in {folder} does not run here ({reason})",
                "install what the message names, and use the code of vikhyatk/moondream2 at 2025-06-21",
            ) from error
        return network.eval(), reader, report

    def prompt(self, processor: Any, question: str) -> str:  # noqa: ANN401, ARG002
        """The question; ``encode`` puts the picture and the query template around it, which have no text."""
        return question.strip()

    def encode(self, processor: Any, images: Sequence[Image.Image], prompts: Sequence[str]) -> Inputs:  # noqa: ANN401
        """Pixels and text.

        ``input_ids`` and ``attention_mask`` (n, sequence), ``pixel_values`` (crops of all images, 3, side, side),
        ``tilings`` (n, 2): rows and columns of each image's crops, the global one not counted.
        """
        vision, own = processor.config.vision, processor.config.tokenizer
        crops, tilings = zip(*(processor.code.prepare_crops(image, vision, "cpu") for image in images), strict=True)
        picture = [own.bos_id] + [_IMAGE] * (vision.crop_size // vision.enc_patch_size) ** 2
        query = own.templates["query"]
        rows = [[*picture, *query["prefix"], *_ids(processor, prompt), *query["suffix"]] for prompt in prompts]
        longest = max(len(row) for row in rows)
        return {
            "input_ids": torch.tensor([[own.eos_id] * (longest - len(row)) + row for row in rows]),
            "attention_mask": torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
            "pixel_values": torch.cat(crops).float(),
            "tilings": torch.tensor(tilings),
        }

    def continuation(self, processor: Any, prompt: str, answer: str) -> tuple[int, ...]:  # noqa: ANN401, ARG002
        """Ids of the answer alone, as the repository's own fine-tuning writes it."""
        return continuation_ids(processor.tokenizer, "", answer)

    def anatomy(self, module: nn.Module) -> Anatomy:  # noqa: ARG002
        """The parts that ``MoondreamNetwork`` gives names to."""
        return Anatomy("tower", "projector", "language", "language.embed_tokens")

    def layers(self, module: nn.Module) -> tuple[LayerPreset, ...]:
        """The tower's output and the projected picture."""
        parts = self.anatomy(module)
        return (
            LayerPreset(parts.tower, "the vision tower's output"),
            LayerPreset(parts.projector, "the picture as handed to the language model"),
        )

    def image_features(self, module: nn.Module, inputs: Inputs) -> Tensor:
        """(n, tokens, channels)."""
        network: Any = module
        projected: Tensor = network.look(inputs["pixel_values"], _tilings(inputs))
        return projected

    def embed(self, module: nn.Module, inputs: Inputs, features: Sequence[Tensor] | Tensor) -> Inputs:
        """``inputs_embeds``, ``attention_mask`` and ``position_ids``, which count the padding as well."""
        merged = embed_images(module, inputs, torch.cat(list(features)), _IMAGE)
        # The code takes one row of positions for all; only their differences matter to it.
        places = torch.arange(merged.shape[1], device=merged.device).expand(len(merged), -1)
        return {"inputs_embeds": merged, "attention_mask": inputs["attention_mask"], "position_ids": places}

    def split(self, module: nn.Module, activation: Tensor, inputs: Inputs, layer: str) -> list[Tensor]:
        """One (patches of all its crops, channels) per image in the tower, one (tokens, channels) behind it.

        Raises:
            IncompatibleMethodError: the layer does not have one entry per crop.
        """
        stage = self.stage(module, layer)
        if stage == "language":
            return image_tokens(activation, inputs, _IMAGE)
        counts = [rows * cols + 1 if stage == "tower" else 1 for rows, cols in _tilings(inputs)]
        if len(activation) != sum(counts):
            raise IncompatibleMethodError(
                f"Layer {layer} gives {len(activation)} entries where the pictures have {sum(counts)}; choose tower."
            )
        return [part.flatten(0, 1) for part in activation.split(counts)]

    def layout(
        self,
        module: nn.Module,
        processor: Any,  # noqa: ANN401
        inputs: Inputs,
        sizes_wh: Sequence[tuple[int, int]],
        layer: str,
    ) -> list[TokenLayout]:
        """In the tower the crops put together and the global crop, behind it one square grid; all over the picture."""
        network: Any = module
        side = network.side
        square = np.arange(side * side, dtype=np.intp).reshape(side, side)
        layouts = []
        for size, (rows, cols) in zip(sizes_wh, _tilings(inputs), strict=True):
            grids = [square]
            if self.stage(module, layer) == "tower":
                # The code that puts features together says best which of them it keeps.
                places = torch.arange(side * side, side * side * (rows * cols + 1)).reshape(-1, side, side, 1)
                kept = processor.code.reconstruct_from_crops(
                    places, (rows, cols), overlap_margin=processor.config.vision.overlap_margin, patch_size=1
                )
                grids.insert(0, kept[..., 0].numpy().astype(np.intp))
            box = (0.0, 0.0, float(size[0]), float(size[1]))
            layouts.append(TokenLayout(size, tuple(TokenGrid(box, grid) for grid in grids)))
        return layouts


def _load_remote(folder: Path | str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The repository's network, finished as the library wants it, and the loading report."""
    from transformers import AutoConfig
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    kept: dict[str, Any] = {"local_files_only": True}
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True, **kept)
    written: Any = get_class_from_dynamic_module(config.auto_map["AutoModelForCausalLM"], str(folder), **kept)

    class Finished(written):
        """The repository's class, which skips the last step that the library has asked of networks since version 5."""

        def __init__(self, config: Any) -> None:  # noqa: ANN401
            super().__init__(config)
            if not hasattr(self, "all_tied_weights_keys"):
                self.post_init()

    module, report = Finished.from_pretrained(
        folder, config=config, **options, **kept, use_safetensors=True, output_loading_info=True
    )
    # Word vectors under a second name, which the code makes on demand; the file has them under the first.
    missing = {key for key in report["missing_keys"] if not key.startswith("_input_embeddings.")}
    return module, {**report, "missing_keys": missing}


def _renew_rotations(network: MoondreamNetwork) -> None:
    """Computes the rotary table again: the library leaves what is not in the weight file as it found the memory."""
    model = network.remote.model
    text = model.config.text
    made: Any = sys.modules[network.code.text_decoder.__module__]
    model.text.freqs_cis = made.precompute_freqs_cis(text.dim // (2 * text.n_heads), text.max_context)


def _reader(network: MoondreamNetwork) -> MoondreamReader:
    from transformers import PreTrainedTokenizerFast

    model = network.remote.model
    end = model.tokenizer.id_to_token(model.config.tokenizer.eos_id)
    return MoondreamReader(
        PreTrainedTokenizerFast(tokenizer_object=model.tokenizer, eos_token=end, pad_token=end),
        model.config,
        network.code,
    )


def _ids(processor: Any, text: str) -> list[int]:  # noqa: ANN401
    return list(processor.tokenizer(text, add_special_tokens=False)["input_ids"])


def _tilings(inputs: Inputs) -> list[tuple[int, int]]:
    return [(rows, cols) for rows, cols in inputs["tilings"].tolist()]


FAMILY = Moondream()
