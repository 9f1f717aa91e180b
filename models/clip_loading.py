"""From a folder to an image-text model: OpenCLIP's own form where there is one, else the transformers library's.

Nothing but safetensors and JSON is read, no code of the folder is run, and no network is asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from open_clip import CLIP, CustomTextCLIP
from open_clip.factory import load_checkpoint
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer
from safetensors import SafetensorError
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from models.clip import ImageTextModel
from models.clip_sentence import CONTEXT, ENCODER_NAME, encoder_folder, encoder_weights
from models.clip_towers import HubTowers, OpenClipTowers, Towers
from models.errors import ModelUnavailableError
from models.quiet import first_line, quiet
from models.schema import ModelSpec, ModelStatus
from models.weights import OPEN_CLIP_CONFIG, clip_weights

__all__ = ["TEXT_TOWER", "build_open_clip", "load_clip", "load_towers"]

TEXT_TOWER = "text.transformer."
"""Where the packaged encoder's tensors stand in an OpenCLIP network."""

_BROKEN = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)


def load_clip(
    spec: ModelSpec, folder: Path, status: ModelStatus, *, answers: Mapping[str, str], device: torch.device
) -> ImageTextModel:
    """The image-text model in ``folder``, asked ``answers``.

    Args:
        spec: the entry that was asked for.
        folder: ``open_clip_config.json`` and safetensors, or a folder of the transformers library.
        status: what to say about these weights.
        answers: text to the label it stands for.
        device: where to put the weights, in float32.

    Raises:
        ModelUnavailableError: the folder is incomplete, damaged, or no image-text model.
    """
    try:
        with quiet():
            towers = load_towers(folder)
    except _BROKEN as error:
        raise ModelUnavailableError(
            f"{spec.id}: {folder} cannot be loaded as an image-text model ({first_line(error)}); "
            "copy or download the folder again"
        ) from error
    except ModelUnavailableError as error:
        raise type(error)(f"{spec.id}: {error.reason}", error.remedy) from error
    towers.network.to(device)
    return ImageTextModel(spec, status, towers, answers)


def load_towers(folder: Path) -> Towers:
    """The towers in ``folder``, float32, on the CPU.

    Raises:
        ModelUnavailableError: weights are missing or are pickles, or a tokenizer is not at hand.
    """
    file = clip_weights(folder)[0]
    if (folder / OPEN_CLIP_CONFIG).is_file():
        return _load_open_clip(folder, file)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    network, report = AutoModel.from_pretrained(
        folder, **options, use_safetensors=True, dtype=torch.float32, output_loading_info=True
    )
    if not hasattr(network, "get_image_features") or not hasattr(network, "get_text_features"):
        raise ModelUnavailableError(f"{folder} holds a {type(network).__name__}", "choose a CLIP or SigLIP checkpoint")
    _check_complete(folder, report["missing_keys"])
    processor = AutoImageProcessor.from_pretrained(folder, **options)
    return HubTowers(network, processor, AutoTokenizer.from_pretrained(folder, **options))


def build_open_clip(configuration: Mapping[str, Any], folder: Path) -> OpenClipTowers:
    """An untrained network of OpenCLIP, but for a packaged text tower, which comes with its weights.

    Args:
        configuration: the content of ``open_clip_config.json``.
        folder: where the tokenizer's files lie, if it has any of its own.

    Raises:
        ModelUnavailableError: the text tower or tokenizer would have to be fetched.
    """
    settings = json.loads(json.dumps(configuration["model_cfg"]))
    text, vision = settings["text_cfg"], settings["vision_cfg"]
    source = _text_files(text, folder)
    tokenizer: SimpleTokenizer | HFTokenizer = SimpleTokenizer(
        context_length=text.get("context_length", DEFAULT_CONTEXT_LENGTH)
    )
    if source is not None:
        length = text.get("context_length", CONTEXT if text.get("hf_model_name") else DEFAULT_CONTEXT_LENGTH)
        tokenizer = HFTokenizer(str(source), context_length=length, **text.get("tokenizer_kwargs", {}))
    if text.get("hf_model_name"):
        text |= {"hf_model_name": str(source), "hf_model_pretrained": False}
    if vision.get("timm_model_name"):
        vision["timm_model_pretrained"] = False
    custom = settings.pop("custom_text", False) or bool(text.get("hf_model_name"))
    network: Any = (CustomTextCLIP if custom else CLIP)(**settings)
    if text.get("hf_model_name"):
        network.text.transformer.load_state_dict(encoder_weights(source or folder))
    return OpenClipTowers(network, configuration.get("preprocess_cfg", {}), tokenizer)


def _load_open_clip(folder: Path, file: Path) -> OpenClipTowers:
    configuration = json.loads((folder / OPEN_CLIP_CONFIG).read_text(encoding="utf-8"))
    towers = build_open_clip(configuration, folder)
    network: Any = towers.network
    network.float()
    left = load_checkpoint(network, str(file), strict=False)
    packaged = bool(configuration["model_cfg"]["text_cfg"].get("hf_model_name"))
    missing = [name for name in left.missing_keys if not (packaged and name.startswith(TEXT_TOWER))]
    _check_complete(folder, missing)
    if left.unexpected_keys:
        raise ModelUnavailableError(
            f"{file} holds weights that the network has no place for ({left.unexpected_keys[0]} ...)",
            f"take the {OPEN_CLIP_CONFIG} that belongs to them",
        )
    # The scale is read from the weights, so the towers are put together again now that these are loaded.
    return OpenClipTowers(network, configuration.get("preprocess_cfg", {}), towers.tokenizer)


def _text_files(text: Mapping[str, Any], folder: Path) -> Path | None:
    """The folder of a tokenizer of the transformers library, ``None`` where OpenCLIP's own is meant."""
    if text.get("hf_model_name"):
        if text["hf_model_name"] != ENCODER_NAME:
            raise ModelUnavailableError(
                f"the text tower is {text['hf_model_name']!r}, of which only a hub has the configuration",
                f"choose a model whose text tower is OpenCLIP's own or {ENCODER_NAME}",
            )
        return encoder_folder()
    if not text.get("hf_tokenizer_name"):
        return None
    if not any((folder / name).is_file() for name in ("tokenizer.json", "spiece.model", "vocab.txt")):
        raise ModelUnavailableError(
            f"{folder} lacks the files of its tokenizer {text['hf_tokenizer_name']!r}", "copy tokenizer.json there"
        )
    return folder


def _check_complete(folder: Path, missing: Iterable[str]) -> None:
    lacking = sorted(missing)
    if lacking:
        # Such weights would be random numbers, and the scores noise that looks like scores.
        raise ModelUnavailableError(
            f"{folder} lacks {len(lacking)} of the network's weights ({lacking[0]} ...)",
            "copy or download the folder again",
        )
