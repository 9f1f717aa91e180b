"""Open the model to be measured: an id of the zoo, or the folder of a classifier, a vision-language model, an adapter.

A measurement under another model's name would be a lie, so nothing ever stands in for the model asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from models.classifier import load_classifier
from models.detector import Detector
from models.errors import ModelUnavailableError
from models.families import get_family, list_families
from models.loading import BASE_SUFFIX, ModelLoader
from models.registry import Zoo, load_zoo, weights_folder
from models.schema import LiveModel, LoadState, ModelSpec, ModelStatus, Precision
from models.vlm import VisionLanguageModel
from models.weights import ADAPTER_CONFIG, CONFIG, is_adapter
from training.errors import RunError
from training.language_recipe import LanguageRecipe, read_language_recipe
from training.recipe import read_yaml

UNASKED = {"yes": "yes", "no": "no"}
"""Answers of a model that is only to write: its view needs two, and none is looked at."""


@dataclass(frozen=True)
class Wanted:
    """Which model to open, and how to ask it.

    Attributes:
        model: id in the zoo, or a folder; followed by ``@base`` for the model without its adapter.
        question: what to ask instead of the model's own question.
        style: prompt style, a name in ``models.prompts.STYLES``.
        answers: text to be written, to label; instead of the model's own.
        family: file in ``models/families``, for a folder that does not tell it.
        zoo: zoo file with further models.
        precision: how a vision-language model's weights are kept.
        trusted: ids whose repositories may run their own code.
    """

    model: str
    question: str | None = None
    style: str | None = None
    answers: Mapping[str, str] | None = None
    family: str | None = None
    zoo: Path | None = None
    precision: Precision | None = None
    trusted: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The id, or the folder's own name."""
        path, base, _ = self.model.partition(BASE_SUFFIX)
        return f"{Path(path).resolve().name}{base}" if Path(path).is_dir() else self.model


@dataclass(frozen=True)
class Opened:
    """A live model and what is known of it.

    Attributes:
        live: the model, asked as it was wanted.
        base: whether it is the base of an adapter, or one that nobody taught the task.
        put: how questions of a set are put to it, with ``{question}`` in it; as in its training, where that is known.
        history: entries of its training's log.
    """

    live: LiveModel
    base: bool
    put: str = "{question}"
    history: tuple[dict[str, Any], ...] = field(default=(), repr=False)


def open_wanted(wanted: Wanted) -> Opened:
    """The model, ready to be asked.

    Raises:
        ExhibitError: if there is no such model, or it cannot be loaded here or asked like that.
    """
    path, base, _ = wanted.model.partition(BASE_SUFFIX)
    folder = Path(path) if Path(path).is_dir() else None
    live = _open_folder(wanted, folder) if folder else _open_entry(wanted)
    if folder and base:
        if not isinstance(live, VisionLanguageModel):
            raise RunError(f"{folder}: holds a classifier, which has no base to ask.")
        live = live.without_adapter()
    if isinstance(live, VisionLanguageModel):
        live = live.asking(question=wanted.question, style=wanted.style, answers=wanted.answers)
    elif wanted.question or wanted.style or wanted.answers:
        raise RunError(f"{wanted.model}: is a classifier and cannot be asked a question; leave it out.")
    is_base = bool(base) or live.status.state is LoadState.BASE
    # Of a base too: it is asked as its adapter was taught.
    place = folder or weights_folder(load_zoo(wanted.zoo).get(path).source)
    recipe = _read_recipe(place) if place else None
    sources = recipe.questions if recipe else ()
    put = next((one.question for one in sources if one.kind == "questions" and one.question), None)
    history = () if is_base or place is None else _read_history(place)
    return Opened(live, is_base, put or "{question}", history)


def open_model(model: str) -> LiveModel:
    """A model by its id in the zoo or its folder, asked its own question; see ``open_wanted``."""
    return open_wanted(Wanted(model)).live


def find_base(wanted: Wanted) -> Wanted:
    """The same asked of the model before its fine-tuning: without its adapter, or of a whole model as it is.

    Raises:
        ExhibitError: if there is no such model, or it is a classifier.
    """
    if wanted.model.endswith(BASE_SUFFIX):
        return wanted
    folder = Path(wanted.model)
    if folder.is_dir():
        has_base = is_adapter(folder)
    else:
        spec = load_zoo(wanted.zoo).get(wanted.model)
        if spec.kind != "vlm":
            raise RunError(
                f"{spec.id}: is a {spec.kind}; only a vision-language model can be asked what it was not taught."
            )
        has_base = bool(spec.base) and spec.base != spec.source
    return replace(wanted, model=f"{wanted.model}{BASE_SUFFIX}") if has_base else wanted


def _open_entry(wanted: Wanted) -> LiveModel:
    loader = ModelLoader(load_zoo(wanted.zoo), trusted=wanted.trusted)
    return _check(loader.load(wanted.model, precision=wanted.precision), wanted.model)


def _open_folder(wanted: Wanted, folder: Path) -> LiveModel:
    if is_adapter(folder) or (folder / CONFIG).is_file():
        spec = _describe_language(wanted, folder)
        if spec:
            return _check(ModelLoader(Zoo({spec.id: spec})).load(spec.id, precision=wanted.precision), str(folder))
        return _open_classifier(folder)
    raise RunError(
        f"{folder}: holds neither {CONFIG} nor an adapter; give the folder of a finished run, an adapter or a model id."
    )


def _open_classifier(folder: Path) -> LiveModel:
    spec = ModelSpec(
        id="evaluated",
        name=folder.name,
        task="evaluation",
        kind="classifier",
        source=str(folder),
        licence="not stated",
        size_mb=1,
        memory_mb=1,
    )
    status = ModelStatus(LoadState.FINE_TUNED, loaded_from=folder.name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return load_classifier(spec, folder, status, renames={}, device=device)


def _describe_language(wanted: Wanted, folder: Path) -> ModelSpec | None:
    """An entry for the vision-language model in a folder; ``None`` where it holds something else."""
    own: dict[str, Any] = {}
    recipe = _read_recipe(folder)
    if recipe:
        own = {
            "family": recipe.family,
            "base": recipe.model.start if recipe.adapter else None,
            "question": recipe.task.question,
            "answers": recipe.task.answers,
        }
    elif is_adapter(folder):
        own = {"base": _read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")}
    base = own.get("base")
    place = weights_folder(base) or Path(base) if base else folder
    family = wanted.family or own.get("family") or _find_family(place)
    if family is None and not is_adapter(folder):
        return None
    if family is None:
        raise RunError(f"{folder}: is an adapter on {base or 'an unnamed base'}; name its family with --family.")
    return ModelSpec(
        id="evaluated",
        name=folder.name,
        task="evaluation",
        kind="vlm",
        source=str(folder.resolve()),
        base=str(place.resolve()) if base and place.is_dir() else base,
        base_revision="main" if base and not place.is_dir() else None,
        family=family,
        question=wanted.question or own.get("question"),
        answers=dict(wanted.answers or own.get("answers") or UNASKED),
        licence="not stated",
        size_mb=1,
        memory_mb=1,
    )


def _read_recipe(folder: Path) -> LanguageRecipe | None:
    """The recipe beside a vision-language model; ``None`` where there is none."""
    file = folder / "recipe.yaml"
    is_language = file.is_file() and read_yaml(file).get("kind") == "vlm"
    return read_language_recipe(file) if is_language else None


def _find_family(folder: Path) -> str | None:
    """The family that serves the type of model in a folder's ``config.json``."""
    if not (folder / CONFIG).is_file():
        return None
    kind = _read_json(folder / CONFIG).get("model_type")
    return next((name for name in list_families() if kind in get_family(name).model_types), None)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file}: cannot be read ({' '.join(str(error).split())}); save the model again.") from error
    return content if isinstance(content, dict) else {}


def _check(live: LiveModel | Detector, model: str) -> LiveModel:
    if isinstance(live, Detector):
        raise RunError(f"{model}: finds objects and gives no label to measure.")
    if live.status.reason:
        raise ModelUnavailableError(f"{model}: {live.status.loaded_from} would stand in for it: {live.status.reason}")
    return live


def _read_history(folder: Path) -> tuple[dict[str, Any], ...]:
    """Losses in a run's ``metrics.json``, or in that of a bundled model."""
    file = folder / "metrics.json"
    content = _read_json(file) if file.is_file() else {}
    return tuple(content.get("history") or content.get("training", {}).get("history") or ())
