"""Tiny image-text models of the real classes, with random weights, saved as their libraries save them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from open_clip import CLIP, CustomTextCLIP
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

WORDS = (
    *("a", "photo", "of", "the", "red", "blue", "dog", "cat", "square", "circle", "on"),
    *("left", "right", "no", "cut", "tail", "end", "car", "street", "man", "woman"),
)
CONTEXT = 16
_TEXT = {"context_length": CONTEXT, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
_VISION: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "openclip-vit": {"image_size": 64, "patch_size": 16, "layers": 3, "width": 64, "head_width": 16},
        "openclip-resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16},
        "openclip-timm": {
            "image_size": 64,
            "timm_model_name": "mobilenetv2_050",
            "timm_pool": "avg",
            "timm_proj": "linear",
        },
    }
)
KINDS = (*_VISION, "clip", "siglip")


def build_clip(kind: str, folder: Path) -> Path:
    """A tiny model of one of ``KINDS`` in ``folder``, the same every time."""
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    if kind in _VISION:
        return _build_open_clip(_VISION[kind], folder)
    return _BUILDERS[kind](folder)


def _build_open_clip(vision: Mapping[str, Any], folder: Path) -> Path:
    settings: dict[str, Any] = {"embed_dim": 24, "vision_cfg": dict(vision), "text_cfg": dict(_TEXT)}
    custom = "timm_model_name" in vision
    network = (CustomTextCLIP if custom else CLIP)(**settings)
    configuration = {
        "model_cfg": settings | ({"custom_text": True} if custom else {}),
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(configuration), encoding="utf-8")
    _calibrate(network)
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


def _calibrate(network: torch.nn.Module) -> None:
    """Statistics of batch normalisation from noise: with those of a new network its deep maps are all but constant."""
    network.train()
    with torch.no_grad():
        for _ in range(20):
            network.visual(torch.randn(8, 3, 64, 64))
    network.eval()


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Whole words; a word that is not known becomes ``<unk>``."""
    vocabulary = {word: number for number, word in enumerate(("<pad>", "<unk>", "<s>", "</s>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
    )
    fast.save_pretrained(folder)
    return fast


_HUB_TEXT = {
    "vocab_size": 4 + len(WORDS),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
_HUB_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 16,
}


def _build_hub_clip(folder: Path) -> Path:
    _tokenizer(folder)
    config = CLIPConfig(text_config=dict(_HUB_TEXT), vision_config=dict(_HUB_VISION), projection_dim=24)
    _saved(CLIPModel(config), folder)
    CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def _build_hub_siglip(folder: Path) -> Path:
    _tokenizer(folder)
    config = SiglipConfig(text_config=dict(_HUB_TEXT), vision_config=dict(_HUB_VISION))
    _saved(SiglipModel(config), folder)
    SiglipImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def _saved(network: torch.nn.Module, folder: Path) -> None:
    """Random weights ten times as large as a new network's, whose attention would be the same everywhere."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1 and "logit" not in name:
                parameter.normal_(std=0.2)
    network.save_pretrained(folder)


_BUILDERS: Mapping[str, Callable[[Path], Path]] = MappingProxyType(
    {"clip": _build_hub_clip, "siglip": _build_hub_siglip}
)
