"""From folders to a vision-language model: trust, room in memory, one network for all entries on the same base."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import torch

from models.errors import ModelUnavailableError
from models.families import get_family
from models.hub import cache_folder
from models.memory import check_room, count_weights, weight_bytes, working_bytes
from models.precision import Fixed, quantisable, resolve, skeleton
from models.registry import is_folder
from models.schema import LoadState, ModelSpec, ModelStatus, Precision
from models.weights import INDEX, adapter_weights, check_whole, digest_files, hash_files, is_adapter, vlm_weights

if TYPE_CHECKING:
    from models.vlm import VisionLanguageModel
    from models.vlm_core import VlmCore

__all__ = ["Place", "VlmLoader", "check_trust", "vlm_kind"]


@dataclass(frozen=True)
class Place:
    """A folder on this machine and what ``ModelStatus.loaded_from`` says of it."""

    folder: Path
    shown: str


class VlmLoader:
    """Loads vision-language models; entries on the same base and in the same precision share a network.

    A network stays in memory as long as a model that uses it does.

    Args:
        device: where the weights go.
        loaded: ids of the models in memory, for what to do when there is too little of it.
    """

    def __init__(self, device: torch.device, loaded: Callable[[], Iterable[str]]) -> None:
        self._device = device
        self._loaded = loaded
        self._cores: WeakValueDictionary[tuple[Any, ...], VlmCore] = WeakValueDictionary()
        self._hashes: dict[tuple[Any, ...], Any] = {}
        self._quantisable: dict[Path, int] = {}
        self._guard = Lock()

    def load(
        self,
        spec: ModelSpec,
        owner: ModelSpec,
        own: Place,
        base: Place | None,
        state: LoadState,
        precision: Precision | None = None,
    ) -> VisionLanguageModel:
        """The model in ``own``, the adapter in ``own`` on the model in ``base``, or its weights in the base's code.

        Args:
            spec: the entry that was asked for.
            owner: the entry that the folders belong to: the same, or a bundled one that stands in.
            own: a whole model, an adapter, or weights alone.
            base: the model that an adapter or weights belong to; ``None`` for a whole model.
            state: what the status says of it.
            precision: how to keep the weights; the owner's own when not given.

        Raises:
            ModelUnavailableError: a folder is damaged, the parts do not fit, or there is too little memory.
        """
        from models.doubt import read_doubt
        from models.vlm import VisionLanguageModel

        fixed = resolve(precision or owner.precision, self._device)
        if base is not None and not is_adapter(own.folder):
            own, base = _joined(own, base), None
        whole = base or own
        files = vlm_weights(whole.folder, vlm_kind(owner, owner.base or owner.source))
        core, digest = self._core(owner, whole.folder, files, fixed)
        status = ModelStatus(state, whole.shown, weights_sha256=digest.hexdigest())
        # Of quantised weights nothing was measured.
        exact = fixed in ("fp32", "bf16")
        if base is None:
            doubt = read_doubt(whole.folder, status.weights_sha256, core.processor) if exact else None
            return VisionLanguageModel(spec, status, core, question=owner.question, answers=owner.answers, doubt=doubt)
        added = adapter_weights(own.folder)
        check_whole(added)
        key = f"{own.folder.resolve()}#{hash_files(added)}"
        with core.using(None):
            core.adapters.attach(own.folder, key)
        patches = core.adapters.patches(key)
        if patches is not None:
            core = core.seeing(core.family.processor_for(core.processor, patches))
        on_base = replace(status, state=LoadState.BASE if state is LoadState.FINE_TUNED else state)
        status = ModelStatus(
            state,
            f"{own.shown} on {base.shown}",
            reason=_doubt(own, base),
            weights_sha256=digest_files(added, digest).hexdigest(),
        )
        return VisionLanguageModel(
            spec,
            status,
            core,
            adapter=key,
            base_status=on_base,
            question=owner.question,
            answers=owner.answers,
            doubt=read_doubt(own.folder, status.weights_sha256, core.processor) if exact else None,
        )

    def room(self, owner: ModelSpec, folder: Path | None, precision: Precision | None = None) -> None:
        """Whether an entry's network would fit; loads nothing.

        Args:
            owner: the entry; its ``memory_mb``, meant in bf16, counts where there is no folder yet.
            folder: the whole model's folder, where it is on this machine.
            precision: how the weights would be kept; the entry's own when not given.

        Raises:
            ModelUnavailableError: it would not; with the remedy.
        """
        fixed = resolve(precision or owner.precision, self._device)
        if folder is None:
            needed = int(owner.memory_mb * 1e6 * weight_bytes(1000, fixed, self._device, 1000) / 2000)
        else:
            files = vlm_weights(folder, "weights")
            if (*_fingerprint(files), owner.family, fixed) in self._cores:
                return
            needed = working_bytes(self._needed(owner, folder, files, fixed))
        check_room(needed, self._device, fixed, spare=self._loaded())

    def _core(self, owner: ModelSpec, folder: Path, files: list[Path], fixed: Fixed) -> tuple[VlmCore, Any]:
        from models.vlm_core import load_core

        fingerprint = _fingerprint(files)
        key = (*fingerprint, owner.family, fixed)
        with self._guard:
            core = self._cores.get(key)
            if core is None:
                check_whole(files)
                check_room(
                    working_bytes(self._needed(owner, folder, files, fixed)), self._device, fixed, spare=self._loaded()
                )
                family = get_family(str(owner.family))
                network = skeleton(folder) if fixed in ("int8", "nf4") else None
                trusted = {"trust_remote_code": True} if family.remote_code else {}
                core = load_core(family, folder, fixed, network, self._device, owner.id, **trusted)
                self._cores[key] = core
            if fingerprint not in self._hashes:
                self._hashes[fingerprint] = digest_files(files)
            return core, self._hashes[fingerprint]

    def _needed(self, owner: ModelSpec, folder: Path, files: Iterable[Path], fixed: Fixed) -> int:
        smaller = 0
        if fixed in ("int8", "nf4"):
            if folder not in self._quantisable:
                network = skeleton(folder)
                found = quantisable(network, get_family(str(owner.family))) if network is not None else 0
                self._quantisable[folder] = found
            smaller = self._quantisable[folder]
        return weight_bytes(count_weights(files), fixed, self._device, smaller)


def vlm_kind(spec: ModelSpec, source: str) -> str:
    """What to expect in a source of a vision-language entry, in the words of ``models.weights.check_names``.

    Code of a repository is taken from the base where there is one, so that fine-tuned weights need no trust.
    """
    if not spec.remote_code:
        return "vlm"
    return "weights" if spec.base and source == spec.source != spec.base else "remote"


def check_trust(owner: ModelSpec, trusted: Collection[str]) -> None:
    """Whether code of an entry's repository may run.

    Args:
        owner: the entry.
        trusted: ids that a person trusts.

    Raises:
        ModelUnavailableError: it may not.
    """
    remote = owner.remote_code or get_family(str(owner.family)).remote_code
    if remote and owner.id.partition("@")[0] not in trusted:
        where = f"{owner.base or owner.source} at {owner.base_revision or owner.revision}"
        raise ModelUnavailableError(
            f"{owner.id} runs code from its repository, {where}",
            f"read that code, then allow it with --trust {owner.id.partition('@')[0]}",
        )


def _joined(own: Place, base: Place) -> Place:
    """A folder of links to the weights of ``own`` and to all else of ``base``, beside other things of this program."""
    weights = vlm_weights(own.folder, "weights")
    index = [own.folder / INDEX] if (own.folder / INDEX).is_file() else []
    others = (file for file in base.folder.iterdir() if file.is_file() and not file.name.startswith("model"))
    name = hashlib.sha256(f"{own.folder.resolve()} {base.folder.resolve()}".encode()).hexdigest()[:16]
    folder = cache_folder() / "joined" / f"m{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in (*others, *weights, *index):
        (folder / file.name).symlink_to(file.resolve())
    return Place(folder, f"{own.shown} in the code of {base.shown}")


def _doubt(own: Place, base: Place) -> str:
    """What to say where an adapter names another base on the hub than the one it was put on, although it fits."""
    from models.adapters import stated_base

    stated, shown = stated_base(own.folder), base.shown.partition("@")[0]
    if stated is None or is_folder(shown) or shown.startswith("bundled:") or stated.casefold() == shown.casefold():
        return ""
    return f"the adapter says it was made for {stated}, not {shown}"


def _fingerprint(files: Iterable[Path]) -> tuple[tuple[str, int, int], ...]:
    """What tells that files are the same as before, without reading them."""
    return tuple((str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
