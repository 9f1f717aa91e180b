"""A repository with its own code and the interface of Moondream 2, small enough to run in a test."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.tiny_vlms_more import byte_level_bpe

HF_CODE = """
from transformers import PretrainedConfig, PreTrainedModel
from torch import nn

from .standin import Config, MoondreamModel


class HfConfig(PretrainedConfig):
    model_type = "moondream1"

    def __init__(self, tokenizer_file=None, **kwargs):
        super().__init__(**kwargs)
        self.tokenizer_file = tokenizer_file


class HfMoondream(PreTrainedModel):
    config_class = HfConfig

    def __init__(self, config):
        # As in the real one, the library's last step is left out.
        super().__init__(config)
        self.model = MoondreamModel(Config(), config.tokenizer_file)

    def get_input_embeddings(self):
        if not hasattr(self, "_input_embeddings"):
            self._input_embeddings = nn.Embedding.from_pretrained(self.model.text.wte, freeze=True)
        return self._input_embeddings
"""

CODE = """
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Vision:
    enc_dim: int = 16
    enc_patch_size: int = 14
    crop_size: int = 56
    overlap_margin: int = 1


@dataclass(frozen=True)
class Text:
    dim: int = 32
    n_heads: int = 2
    vocab_size: int = 360
    max_context: int = 256


@dataclass(frozen=True)
class Words:
    bos_id: int = 0
    eos_id: int = 0
    templates: dict = field(default_factory=lambda: {"query": {"prefix": [1, 80, 2], "suffix": [3]}})


@dataclass(frozen=True)
class Config:
    vision: Vision = Vision()
    text: Text = Text()
    tokenizer: Words = Words()


def prepare_crops(image, config, device):
    side, patch = config.crop_size, config.enc_patch_size
    rim = config.overlap_margin * patch
    step = side - 2 * rim
    rows, cols = (min(max(math.ceil((pixels - 2 * rim) / step), 1), 3) for pixels in (image.height, image.width))
    large = np.array(image.resize((cols * step + 2 * rim, rows * step + 2 * rim), Image.Resampling.LANCZOS))
    crops = [np.array(image.resize((side, side), Image.Resampling.LANCZOS))]
    crops += [large[y * step :][:side, x * step :][:, :side] for y in range(rows) for x in range(cols)]
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).to(device, torch.float16)
    return pixels.div_(255).sub_(0.5).div_(0.5), (rows, cols)


def reconstruct_from_crops(crops, tiling, overlap_margin, patch_size=14):
    rim = overlap_margin * patch_size
    rows = []
    for y in range(tiling[0]):
        row = []
        for x in range(tiling[1]):
            crop = crops[y * tiling[1] + x]
            down, across = crop.shape[:2]
            bottom = down if y == tiling[0] - 1 else down - rim
            right = across if x == tiling[1] - 1 else across - rim
            row.append(crop[0 if y == 0 else rim : bottom, 0 if x == 0 else rim : right])
        rows.append(torch.cat(row, dim=1))
    return torch.cat(rows, dim=0)


def precompute_freqs_cis(dim, end):
    turns = torch.arange(end)[:, None] / 10000 ** (torch.arange(0, dim, 2) / dim)
    return torch.stack([turns.cos(), turns.sin()], dim=-1)


def rotated(x, table, places):
    half = table.shape[-2]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    cos, sin = table[places, :, 0], table[places, :, 1]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=-1)


def text_decoder(x, w, attn_mask, position_ids, config):
    for block in w.blocks:
        normed = F.layer_norm(x, block.ln.bias.shape, block.ln.weight, block.ln.bias)
        heads = (*x.shape[:2], config.n_heads, -1)
        q, k, v = (part.view(heads).transpose(1, 2) for part in block.attn.qkv(normed).chunk(3, dim=-1))
        q, k = rotated(q, w.freqs_cis, position_ids), rotated(k, w.freqs_cis, position_ids)
        if block.kv_cache is not None:
            k, v = block.kv_cache.update(position_ids, k, v)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        x = x + block.attn.proj(seen.transpose(1, 2).reshape(x.shape)) + block.mlp.fc2(F.gelu(block.mlp.fc1(normed)))
    return x


class MoondreamModel(nn.Module):
    def __init__(self, config, tokenizer_file):
        super().__init__()
        self.config = config
        self.tokenizer = Tokenizer.from_file(tokenizer_file)
        vision, text = config.vision, config.text
        side = vision.crop_size // vision.enc_patch_size
        self.vision = nn.ModuleDict(
            {
                "patch_emb": nn.Linear(3 * vision.enc_patch_size**2, vision.enc_dim),
                "mix": nn.Linear(vision.enc_dim, vision.enc_dim),
                "proj": nn.Linear(2 * vision.enc_dim, text.dim),
            }
        )
        self.vision.pos_emb = nn.Parameter(torch.zeros(1, side**2, vision.enc_dim))

        def block():
            return nn.ModuleDict(
                {
                    "ln": nn.LayerNorm(text.dim),
                    "attn": nn.ModuleDict(
                        {"qkv": nn.Linear(text.dim, 3 * text.dim), "proj": nn.Linear(text.dim, text.dim)}
                    ),
                    "mlp": nn.ModuleDict({"fc1": nn.Linear(text.dim, 64), "fc2": nn.Linear(64, text.dim)}),
                }
            )

        self.text = nn.ModuleDict(
            {
                "blocks": nn.ModuleList([block() for _ in range(3)]),
                "post_ln": nn.LayerNorm(text.dim),
                "lm_head": nn.Linear(text.dim, text.vocab_size),
            }
        )
        self.text.wte = nn.Parameter(torch.empty(text.vocab_size, text.dim))
        table = precompute_freqs_cis(text.dim // (2 * text.n_heads), text.max_context)
        self.text.register_buffer("freqs_cis", table, persistent=False)

    def _vis_enc(self, x):
        patch = self.config.vision.enc_patch_size
        n, channels, height, width = x.shape
        x = x.reshape(n, channels, height // patch, patch, width // patch, patch).permute(0, 2, 4, 1, 3, 5)
        x = self.vision.patch_emb(x.reshape(n, height // patch * (width // patch), -1)) + self.vision.pos_emb
        return x + torch.tanh(self.vision.mix(x))

    def _vis_proj(self, g, r):
        side = self.config.vision.crop_size // self.config.vision.enc_patch_size
        r = F.adaptive_avg_pool2d(r.permute(2, 0, 1), (side, side)).permute(1, 2, 0).flatten(0, 1)
        return self.vision.proj(torch.cat([g, r], dim=-1))

    def _prefill(self, x, attn_mask, pos_ids):
        return text_decoder(x, self.text, attn_mask, pos_ids, self.config.text)
"""


def build_standin(folder: Path, seed: int = 0) -> Path:
    """Saves the code, a config that points to it, a tokenizer and random weights."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hf_moondream.py").write_text(HF_CODE)
    (folder / "standin.py").write_text(CODE)
    vocab, merges = byte_level_bpe(("<|endoftext|>", "<|a|>", "<|b|>", "<|c|>"))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "words.json"))
    config = {
        "model_type": "moondream1",
        "architectures": ["HfMoondream"],
        "auto_map": {"AutoConfig": "hf_moondream.HfConfig", "AutoModelForCausalLM": "hf_moondream.HfMoondream"},
        "tokenizer_file": str(folder / "words.json"),
    }
    (folder / "config.json").write_text(json.dumps(config))
    spec = importlib.util.spec_from_file_location("moondream_standin_code", folder / "standin.py")
    code = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = code.MoondreamModel(code.Config(), config["tokenizer_file"])
        for weight in network.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.2)
    save_file(
        {f"model.{name}": value for name, value in network.state_dict().items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    return folder
