"""The heavy part of a vision-language model: one loaded network that many entries and questions share."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache, partial
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from models.adapters import Adapters
from models.errors import ExhibitError, ModelUnavailableError
from models.families.base import Anatomy, Family
from models.generation import end_tokens
from models.precision import Fixed, keep_gradients, load_options
from models.quiet import first_line, quiet
from models.schema import Inputs
from models.weights import CONFIG

__all__ = ["VlmCore", "load_core"]

_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError)


class VlmCore:
    """One network with its processor, lock and adapters.

    Attributes:
        family: how it is asked.
        module: the network, in evaluation mode, its weights frozen.
        processor: makes its inputs.
        precision: how the weights are kept.
        lock: held around every pass; hooks and adapters are shared state.
        adapters: those attached so far.
        end: ids that end an answer.
    """

    def __init__(self, family: Family, module: nn.Module, processor: Any, precision: Fixed = "fp32") -> None:  # noqa: ANN401
        self.family = family
        self.module = module.eval().requires_grad_(requires_grad=False)
        self.processor = processor
        self.precision = precision
        self.lock = RLock()
        self.adapters = Adapters(module)
        self.end = end_tokens(module, self.tokenizer)
        self._base: VlmCore | None = None
        # A folder of pictures is asked one question. What is kept must not hold the network itself, or nothing would
        # free its memory when the last view goes.
        self._continuations = lru_cache(maxsize=256)(partial(_continuations, family, processor, self._closing()))

    def seeing(self, processor: Any) -> VlmCore:  # noqa: ANN401
        """The same network, lock and adapters with another processor, for an adapter with a tower of its own size."""
        other = VlmCore(self.family, self.module, processor, self.precision)
        other.lock, other.adapters, other._base = self.lock, self.adapters, self
        return other

    @property
    def base(self) -> VlmCore:
        """The core by which the network is asked without adapters; another one if this is for another picture size."""
        return self._base or self

    def _closing(self) -> tuple[int, ...]:
        """The one id, if any, with which the model closes what it says; ``end`` may hold rarer ones."""
        own = self.tokenizer.eos_token_id
        return (own,) if own in self.end else tuple(sorted(self.end))[:1]

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401
        """What turns text into ids and back."""
        return getattr(self.processor, "tokenizer", self.processor)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.module.parameters()).device

    @cached_property
    def anatomy(self) -> Anatomy:
        """Where its parts are."""
        return self.family.anatomy(self.module)

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[None]:
        """The lock, with that adapter (or none) active inside."""
        with self.lock:
            self.adapters.activate(adapter)
            yield

    def encode(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Inputs:
        """N images with their n prompts, on the model's device."""
        inputs = self.family.encode(self.processor, images, prompts)
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    def about(self, image: Image.Image) -> Callable[[Sequence[str]], Inputs]:
        """A function from n prompts to what ``encode`` gives for n copies of the image, which is read once for all."""
        processor = self.processor
        if hasattr(processor, "image_processor"):
            processor = copy.copy(processor)
            processor.image_processor = _ReadOnce(processor.image_processor)

        def encode(prompts: Sequence[str]) -> Inputs:
            inputs = self.family.encode(processor, [image] * len(prompts), prompts)
            return {name: tensor.to(self.device) for name, tensor in inputs.items()}

        return encode

    def embed(self, inputs: Inputs, shown: Inputs | None = None) -> Inputs:
        """Inputs for the network, with the image features in place of the pixels.

        Args:
            inputs: as ``encode`` gave them, for n prompts.
            shown: for n prompts on one image, that image's own inputs, so that it is looked at once.
        """
        features = self.family.image_features(self.module, shown or inputs)
        if shown is not None:
            features = [features[0]] * len(inputs["input_ids"])
        return self.family.embed(self.module, inputs, features)

    def continuations(self, prompt: str, answers: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Ids by which each answer continues a prompt.

        Where one answer is the beginning of another, the token that ends an answer belongs to all of them: else the
        shorter one could never be less probable.
        """
        return self._continuations(prompt, tuple(answers))

    def text(self, ids: Sequence[int]) -> str:
        """What ids say, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


def load_core(
    family: Family,
    folder: Path,
    precision: Fixed,
    network: nn.Module | None,
    device: torch.device,
    model_id: str,
    **more: Any,  # noqa: ANN401
) -> VlmCore:
    """The network in ``folder``; nothing but safetensors, JSON and tokenizer files is read.

    Args:
        family: the family it belongs to.
        folder: config, processor, tokenizer and safetensors.
        precision: how to keep the weights.
        network: its ``skeleton``, needed to quantise.
        device: where to put it.
        model_id: named in errors.
        more: further options of ``Family.load``, such as ``trust_remote_code`` once a person gave it.

    Raises:
        ModelUnavailableError: the folder is incomplete or damaged, of another family, or lacks weights.
    """
    _check_kind(family, folder, model_id)
    options = load_options(precision, network, family, device)
    try:
        with quiet():
            module, processor, report = family.load(folder, **options, **more)
    except _BROKEN as error:
        raise ModelUnavailableError(
            f"{model_id}: {folder} cannot be loaded as {family.name} ({first_line(error)})",
            "copy or download the folder again, and check `family` of this entry",
        ) from error
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        # The library fills such weights with random numbers; the answers would be noise that looks like answers.
        raise ModelUnavailableError(
            f"{model_id}: {folder} lacks {len(missing)} of the network's weights ({missing[0]} ...)",
            "choose weights that were saved whole",
        )
    mismatched = sorted(str(key) for key in report.get("mismatched_keys", ()))
    if mismatched:
        raise ModelUnavailableError(f"{model_id}: {folder} has weights of another shape ({mismatched[0]})")
    keep_gradients(module)
    if "device_map" not in options:
        module = module.to(device)
    return VlmCore(family, module, processor, precision)


def _continuations(
    family: Family,
    processor: Any,  # noqa: ANN401
    closing: tuple[int, ...],
    prompt: str,
    answers: tuple[str, ...],
) -> tuple[tuple[int, ...], ...]:
    ids = tuple(family.continuation(processor, prompt, answer) for answer in answers)
    if len(set(ids)) < len(ids):
        raise ExhibitError(f"Two of the answers {', '.join(answers)} are the same to the model; tell them apart.")
    nested = any(one is not other and other[: len(one)] == one for one in ids for other in ids)
    return tuple((*one, *closing) for one in ids) if nested else ids


class _ReadOnce:
    """An image processor that is only ever given copies of one image, reads it once and hands out copies.

    Args:
        reader: the library's image processor, which puts images, or their patches, along the first axis.
    """

    def __init__(self, reader: Any) -> None:  # noqa: ANN401
        self._reader = reader
        self._read: Any = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._reader, name)

    def __call__(self, images: Any, **options: Any) -> Any:  # noqa: ANN401
        nested = isinstance(images[0], list | tuple)
        count = sum(map(len, images)) if nested else len(images)
        self._read = self._read or self._reader(images[:1], **options)
        read = copy.copy(self._read)
        read.data = {
            name: _repeated(value, count) if isinstance(value, Tensor) else value * count
            for name, value in self._read.items()
        }
        return read


def _repeated(tensor: Tensor, count: int) -> Tensor:
    rest = tensor.shape[1:]
    return tensor.expand(count, *rest) if len(tensor) == 1 else tensor.repeat(count, *[1] * len(rest))


def _check_kind(family: Family, folder: Path, model_id: str) -> None:
    """Refuses another network's settings before the library builds its default one, of billions of weights."""
    try:
        kind = json.loads((folder / CONFIG).read_text("utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnavailableError(
            f"{model_id}: {folder / CONFIG} cannot be read or names no model_type", "copy or download the folder again"
        ) from error
    if kind not in family.model_types:
        raise ModelUnavailableError(
            f"{model_id}: {folder} holds a model of type {kind}, not {' or '.join(family.model_types)}",
            "name the right `family` for it in the zoo file",
        )
