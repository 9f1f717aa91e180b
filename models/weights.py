"""Weight files on this machine: which of them may be opened, whether they are whole, and their hash.

Only safetensors are opened here. A pickle can run any code the moment it is read, so it is refused by its name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from models.errors import ModelUnavailableError, UnsafeWeightsError

if TYPE_CHECKING:
    from hashlib import _Hash as Digest

__all__ = [
    "ADAPTER",
    "ADAPTER_CONFIG",
    "CONFIG",
    "INDEX",
    "OPEN_CLIP_CONFIG",
    "PROCESSOR",
    "SINGLE",
    "adapter_weights",
    "check_names",
    "check_whole",
    "choose_names",
    "classifier_weights",
    "clip_weights",
    "digest_files",
    "hash_files",
    "is_adapter",
    "unsafe",
    "vlm_weights",
]

CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
OPEN_CLIP_CONFIG = "open_clip_config.json"
_OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", SINGLE)
"""The names under which OpenCLIP's own files lie; they say all, so that no processor is needed beside them."""
_BESIDE = (".json", ".txt", ".model", ".jinja")
"""How the files end that hold a vision-language model's settings, processor and tokenizer."""
_NEEDED: Mapping[str, tuple[tuple[str, ...], ...]] = MappingProxyType(
    {
        "classifier": ((CONFIG,), (PROCESSOR,)),
        "vlm": (
            (CONFIG,),
            (PROCESSOR, "processor_config.json"),
            ("tokenizer.json", "tokenizer.model", "vocab.json"),
        ),
        "clip": ((CONFIG,), (PROCESSOR, "processor_config.json"), ("tokenizer.json", "vocab.json", "spiece.model")),
        "remote": ((CONFIG,),),
        "weights": (),
    }
)
"""For each kind of model, the files beside its weights; of each group one must be there."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")
_CHUNK = 1 << 20
_COPY_AGAIN = "copy or download the folder again"


def check_names(names: Iterable[str], where: str, kind: str = "classifier") -> None:
    """Whether files of these names, all at the top of one folder, make up a model that may be opened.

    Args:
        names: file names.
        where: the folder or repository, for messages.
        kind: ``classifier``; ``vlm`` for a vision-language model or an adapter of one; ``clip`` for an image-text
            model of either library; ``remote`` where the repository's own code reads the images; ``weights`` where
            another repository's code does.

    Raises:
        UnsafeWeightsError: the weights are there as pickles only.
        ModelUnavailableError: a file is missing.
    """
    present = set(names)
    if kind == "clip" and _open_clip_file(present):
        return
    adapter = kind != "classifier" and ADAPTER_CONFIG in present
    if not present & ({ADAPTER} if adapter else {SINGLE, INDEX}):
        pickles = sorted(name for name in present if name.lower().endswith(_PICKLES))
        if pickles:
            raise unsafe(where, pickles)
        missing = ADAPTER if adapter else SINGLE
        raise ModelUnavailableError(f"{where} has no {missing}", "choose a folder that was saved with its weights")
    for choice in () if adapter else _NEEDED[kind]:
        if not present & set(choice):
            what = "processor" if kind == "vlm" else "image processor"
            raise ModelUnavailableError(
                f"{where} has no {' or '.join(choice)}", f"save the model together with its {what}"
            )


def choose_names(names: Iterable[str], where: str, kind: str = "classifier") -> list[str]:
    """The files to take from a repository, weights last: what lies beside complete weights is complete too.

    Args:
        names: files at the top of the repository.
        where: the repository, for messages.
        kind: as for ``check_names``.

    Raises:
        UnsafeWeightsError: the weights are there as pickles only.
        ModelUnavailableError: a file is missing.
    """
    present = set(names)
    check_names(present, where, kind)
    if kind != "classifier" and ADAPTER_CONFIG in present:
        return [ADAPTER_CONFIG, ADAPTER]
    beside = [CONFIG, PROCESSOR] if kind == "classifier" else []
    if kind == "clip" and (file := _open_clip_file(present)):
        tokenizer = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "spiece.model", "vocab.txt"}
        return [OPEN_CLIP_CONFIG, *sorted(present & tokenizer), file]
    if kind in ("vlm", "clip", "remote"):
        endings = (*_BESIDE, ".py") if kind == "remote" else _BESIDE
        beside = sorted(name for name in present if name.endswith(endings) and not name.endswith(".index.json"))
    shards = sorted(name for name in present if name.startswith("model-") and name.endswith(".safetensors"))
    return [*beside, *([SINGLE] if SINGLE in present else [INDEX, *shards])]


def unsafe(where: str, pickles: Sequence[str]) -> UnsafeWeightsError:
    """The refusal of weights that exist as pickles only."""
    return UnsafeWeightsError(
        f"{where} offers its weights only as a pickle ({', '.join(pickles[:3])}), which can run any code when opened, "
        "so it is not opened",
        "ask its author for safetensors, or have them made by huggingface.co/spaces/safetensors/convert and give the "
        "resulting commit as `revision` in a zoo file of your own",
    )


def classifier_weights(folder: Path) -> list[Path]:
    """The safetensors files of a classifier's folder, sorted by name.

    Raises:
        UnsafeWeightsError: there are only pickles.
        ModelUnavailableError: the folder or a file of it is missing.
    """
    check_names(_names(folder), str(folder))
    return _whole_model(folder)


def clip_weights(folder: Path) -> list[Path]:
    """The safetensors files of an image-text model's folder; OpenCLIP's own file where there is one.

    Raises:
        UnsafeWeightsError: there are only pickles.
        ModelUnavailableError: the folder or a file of it is missing.
    """
    names = _names(folder)
    check_names(names, str(folder), "clip")
    file = _open_clip_file(names)
    return [folder / file] if file else _whole_model(folder)


def vlm_weights(folder: Path, kind: str = "vlm") -> list[Path]:
    """The safetensors files of a vision-language model's folder, or of an adapter's.

    Args:
        folder: where they lie.
        kind: as for ``check_names``.

    Raises:
        UnsafeWeightsError: there are only pickles.
        ModelUnavailableError: the folder or a file of it is missing.
    """
    if is_adapter(folder):
        return adapter_weights(folder)
    check_names(_names(folder), str(folder), kind)
    return _whole_model(folder)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter rather than a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def adapter_weights(folder: Path) -> list[Path]:
    """The one safetensors file of an adapter's folder.

    Raises:
        UnsafeWeightsError: it is there as a pickle only.
        ModelUnavailableError: the folder or the file is missing.
    """
    check_names({*_names(folder), ADAPTER_CONFIG}, str(folder), "vlm")
    if not is_adapter(folder):
        raise ModelUnavailableError(f"{folder} has no {ADAPTER_CONFIG}", _COPY_AGAIN)
    return [folder / ADAPTER]


def _open_clip_file(names: Iterable[str]) -> str | None:
    """The weight file of OpenCLIP among a folder's names, ``None`` if it is no folder of OpenCLIP."""
    present = set(names)
    if OPEN_CLIP_CONFIG not in present:
        return None
    return next((name for name in _OPEN_CLIP_WEIGHTS if name in present), None)


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise ModelUnavailableError(f"the folder {folder} does not exist", "copy the folder there, or correct `source`")
    return [entry.name for entry in folder.iterdir()]


def _whole_model(folder: Path) -> list[Path]:
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    try:
        shards = sorted({str(name) for name in json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values()})
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelUnavailableError(f"{folder / INDEX} cannot be read", _COPY_AGAIN) from error
    for name in shards:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise UnsafeWeightsError(f"{folder / INDEX} names {name!r}, which is no safetensors file of this folder")
        if not (folder / name).is_file():
            raise ModelUnavailableError(f"{folder} lacks the weight file {name}", _COPY_AGAIN)
    return [folder / name for name in shards]


def check_whole(files: Iterable[Path]) -> None:
    """Whether each safetensors file is as long as its own header says.

    Raises:
        ModelUnavailableError: a file is cut off or is no safetensors file.
    """
    for file in files:
        try:
            with safe_open(file, framework="pt") as content:
                content.keys()
        except (SafetensorError, OSError) as error:
            raise ModelUnavailableError(
                f"{file} is damaged or cut off ({file.stat().st_size:,} bytes on disk)", _COPY_AGAIN
            ) from error


def hash_files(files: Iterable[Path]) -> str:
    """Hex SHA-256 over the files' bytes one after the other; of one file it is what ``sha256sum`` prints."""
    return digest_files(files).hexdigest()


def digest_files(files: Iterable[Path], start: Digest | None = None) -> Digest:
    """The running SHA-256 behind ``hash_files``; ``start``, of the files before these, is left as it is."""
    digest = start.copy() if start else hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest
