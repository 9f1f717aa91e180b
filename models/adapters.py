"""LoRA adapters on one shared network: attached from safetensors, checked tensor by tensor, switched, merged in a copy.

The library attaches an adapter whose names it does not understand with a warning and answers like the base. Here every
tensor of the file must be found again in the network, and nothing of the base may change.
"""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.errors import ModelUnavailableError
from models.positions import is_square, make_room
from models.quiet import first_line, quiet
from models.weights import ADAPTER_CONFIG, adapter_weights

if TYPE_CHECKING:
    from peft import LoraConfig

__all__ = ["Adapters", "stated_base"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_POSITIONS = "position_embedding.weight"
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq")


class Adapters:
    """The adapters of one network, at most one of them active. Hold the network's lock around every call.

    Args:
        module: a network of the transformers library.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module: Any = module  # what it offers for adapters is a mixin of the library
        self._names: dict[str, str] = {}
        self._patches: dict[str, int] = {}
        self._switches: list[Any] = []
        self._active: str | None = None

    def __contains__(self, key: str) -> bool:
        """Whether an adapter is attached under that key."""
        return key in self._names

    def __len__(self) -> int:
        """How many are attached."""
        return len(self._names)

    def attach(self, folder: Path, key: str) -> None:
        """Adds the adapter in ``folder`` under ``key``, not active yet; does nothing if it is there already.

        Raises:
            UnsafeWeightsError: the folder offers its weights as a pickle only.
            ModelUnavailableError: it does not fit this network, or a tensor of it was not applied; the network is as
                it was before.
        """
        if key in self._names:
            return
        (file,) = adapter_weights(folder)
        config = _config(folder)
        if not hasattr(self._module, "load_adapter"):
            raise ModelUnavailableError(
                f"{type(self._module).__name__} takes no adapters", "give the fine-tuned weights as a whole model"
            )
        config.modules_to_save = _own_parts(config, self._module, folder)
        name = f"exhibit_{len(self._names)}"
        try:
            self._load(folder, file, config, name)
        except ModelUnavailableError:
            self._patches.pop(name, None)  # the next one to come has the same name
            if name in getattr(self._module, "peft_config", {}):
                self._module.delete_adapter(name)
            raise
        finally:
            self._switches = list(_switches(self._module))
            self._switch(self._active)
        self._names[key] = name

    def activate(self, key: str | None) -> None:
        """Lets the adapter of that key take part in the passes that follow, or none.

        Raises:
            KeyError: nothing is attached under that key.
        """
        name = None if key is None else self._names[key]
        if name != self._active:
            self._switch(name)

    def patches(self, key: str) -> int | None:
        """Patches of the pictures that the adapter's own tower takes, where they are not as many as the base's.

        Raises:
            KeyError: nothing is attached under that key.
        """
        return self._patches.get(self._names[key])

    def merged(self, key: str) -> nn.Module:
        """A copy of the network with the adapter's weights added to its own; the network itself stays as it is.

        Raises:
            KeyError: nothing is attached under that key.
            ModelUnavailableError: the weights are quantised, so that adding to them would round both.
        """
        from peft.tuners.tuners_utils import BaseTunerLayer

        name = self._names[key]
        if getattr(self._module, "is_quantized", False):
            raise ModelUnavailableError(
                "an adapter cannot be merged into quantised weights without loss", "load the model in fp32 or bf16"
            )
        whole: Any = copy.deepcopy(self._module)
        for path, part in list(whole.named_modules()):
            parent, _, child = path.rpartition(".")
            if isinstance(part, BaseTunerLayer):
                part.merge(safe_merge=True, adapter_names=[name])
                setattr(whole.get_submodule(parent), child, part.get_base_layer())
            elif name in getattr(part, "modules_to_save", {}):
                setattr(whole.get_submodule(parent), child, part.modules_to_save[name])
        whole._hf_peft_config_loaded = False
        del whole.peft_config
        network: nn.Module = whole
        return network

    def _load(self, folder: Path, file: Path, config: LoraConfig, name: str) -> None:
        base = config.base_model_name_or_path or "an unnamed base"
        try:
            with quiet():
                report = self._module.load_adapter(
                    str(folder),
                    adapter_name=name,
                    peft_config=config,
                    use_safetensors=True,
                    ignore_mismatched_sizes=True,
                )
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            raise ModelUnavailableError(
                f"the adapter in {folder} does not fit {type(self._module).__name__} ({first_line(error)})",
                f"load it on the base it was made for, {base}",
            ) from error
        stored = load_file(file)
        remedy = f"it was made for {base}; load it on that base"
        resized = self._resize(stored, name)
        mismatched = sorted(one for one in report.mismatched_keys if one[0] not in resized)
        if mismatched:
            key, given, needed = mismatched[0]
            raise ModelUnavailableError(
                f"{file}: {key} has shape {tuple(given)}, but this base needs {tuple(needed)}", remedy
            )
        lost = sorted(_unapplied(stored, self._module, name))
        if lost:
            raise ModelUnavailableError(
                f"{file}: {len(lost)} of {len(stored)} tensors were not applied, the first is {lost[0]}", remedy
            )
        # The report counts the adapters attached before as missing from this file too.
        missing = sorted(key for key in report.missing_keys if name in key.split("."))
        if missing:
            raise ModelUnavailableError(
                f"{file} lacks {len(missing)} tensors, the first is {missing[0]}", "save the adapter again"
            )

    def _resize(self, stored: Mapping[str, Tensor], name: str) -> tuple[str, ...]:
        """Gives the adapter's own tower, if it is for pictures of another size, its positions; paths of what was set.

        The library has left them as they were, since they are more or fewer than the base's.
        """
        positions = [tensor for key, tensor in stored.items() if key.endswith(f".{_POSITIONS}")]
        for path, part in self._module.named_modules():
            own = getattr(part, "modules_to_save", None)
            if not positions or own is None or name not in own or not hasattr(own[name], "position_ids"):
                continue
            current: Tensor = own[name].get_parameter(_POSITIONS)
            patches = len(positions[0])
            if patches in (len(current), 0) or positions[0].shape[1:] != current.shape[1:] or not is_square(patches):
                continue
            make_room(own[name], patches)
            own[name].get_parameter(_POSITIONS).data.copy_(positions[0])
            self._patches[name] = patches
            return (f"{path}.modules_to_save.{name}.{_POSITIONS}",)
        return ()

    def _switch(self, name: str | None) -> None:
        for part in self._switches:
            own = part._adapters if hasattr(part, "_adapters") else None
            wanted = [] if name is None or (own is not None and name not in own) else [name]
            part.set_adapter(wanted, inference_mode=True)
        self._active = name


def stated_base(folder: Path) -> str | None:
    """The hub id of the base an adapter says it was made for; ``None`` where it names none or a folder.

    Raises:
        ModelUnavailableError: the adapter's settings cannot be read.
    """
    base = _config(folder).base_model_name_or_path
    return str(base) if base and _HUB_ID.fullmatch(str(base)) else None


def _config(folder: Path) -> LoraConfig:
    from peft import LoraConfig, PeftConfig

    try:
        config = PeftConfig.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelUnavailableError(
            f"{folder / ADAPTER_CONFIG} cannot be read ({first_line(error)})", "copy or download the folder again"
        ) from error
    if not isinstance(config, LoraConfig):
        raise ModelUnavailableError(f"{folder} holds an adapter of type {config.peft_type}", "only LoRA can be loaded")
    first = str(config.init_lora_weights).lower()
    if config.bias != "none" or first.startswith(_CHANGES_BASE):
        kind = f"bias={config.bias}" if config.bias != "none" else f"init_lora_weights={config.init_lora_weights}"
        raise ModelUnavailableError(
            f"the adapter in {folder} changes weights of its base ({kind}), which other models share",
            "merge it into its base, or convert it to a plain LoRA, with peft",
        )
    return config


def _own_parts(config: LoraConfig, module: nn.Module, folder: Path) -> list[str] | None:
    """What an adapter brings whole (``modules_to_save``), named so that it fits a network beside others.

    The library cannot wrap a part inside another that is wrapped. Embeddings with positions come as one or in parts,
    which is the same as long as no part is left out; then they are named as one.

    Raises:
        ModelUnavailableError: an adapter that is attached already brings a part of it, or what it is part of.
    """
    from peft.utils import AuxiliaryTrainingWrapper

    if not (wanted := list(config.modules_to_save or ())):
        return None
    parts = dict(_plain_names(module))
    for path, part in parts.items():
        inside = [f"{path}.{name}" for name, child in part.named_children() if any(True for _ in child.parameters())]
        named = [one for one in wanted if any(child.endswith(one) for child in inside)]
        is_whole = all(any(child.endswith(one) for one in named) for child in inside)
        if (
            named
            and is_whole
            and hasattr(part, "position_ids")
            and not any(True for _ in part.parameters(recurse=False))
        ):
            wanted = [one for one in wanted if one not in named] + [path]
    wrapped = [path for path, part in _plain_names(module) if isinstance(part, AuxiliaryTrainingWrapper)]
    for path in parts:
        if any(path.endswith(one) for one in wanted):
            nested = [one for one in wrapped if f"{path}.".startswith(f"{one}.") != f"{one}.".startswith(f"{path}.")]
            if nested:
                raise ModelUnavailableError(
                    f"the adapter in {folder} brings its own {path}, another one on this base its own {nested[0]}",
                    "save both with the same modules_to_save, or merge one of them into the base",
                )
    return wanted


def _plain_names(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The network's parts by the names that they had before adapters wrapped them; the wrapped last."""
    for path, part in module.named_modules():
        parts = path.split(".")
        if "modules_to_save" not in parts:
            yield ".".join(one for one in parts if one != "original_module"), part


def _switches(module: nn.Module) -> Iterator[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper

    return (part for part in module.modules() if isinstance(part, BaseTunerLayer | AuxiliaryTrainingWrapper))


def _unapplied(stored: Mapping[str, Tensor], module: nn.Module, name: str) -> Iterator[str]:
    """Keys of tensors that the network does not hold, bit for bit in its own precision, at the place they name.

    Checkpoints of earlier library versions name a place by another path, so a place is known by the end of its path;
    where several fit equally well, one of them must hold the tensor.
    """
    places: dict[str, list[tuple[list[str], Tensor]]] = defaultdict(list)
    for path, own in module.named_parameters():
        parts = path.split(".")
        if name in parts:
            words = _place(part for part in parts if part != name)
            places[words[-1]].append((words, own))
    for key, tensor in stored.items():
        words = _place(key.split("."))
        near = places.get(words[-1], [])
        best = max((_common_end(words, other) for other, _ in near), default=0)
        fits = (own for other, own in near if _common_end(words, other) == best)
        if best < min(len(words), 2) or not any(_same(own, tensor) for own in fits):
            yield key


def _place(parts: Iterable[str]) -> list[str]:
    words = [part for part in parts if part != "modules_to_save"]
    return words[:-1] if words[-1] == "weight" else words


def _common_end(one: list[str], other: list[str]) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _same(own: Tensor, stored: Tensor) -> bool:
    return own.shape == stored.shape and torch.equal(own.detach().cpu(), stored.to(own.dtype))
