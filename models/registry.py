"""zoo.yaml to validated ``ModelSpec`` entries; a user's own zoo file is merged in.

A wrong entry stops the start with one line that names the file, the entry and the key, because a zoo that is half
understood would show answers of a model nobody chose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import ValidationError

from models.errors import ZooError
from models.families import list_families
from models.schema import ModelSpec

__all__ = ["BUNDLED_ROOT", "Zoo", "is_commit", "is_folder", "load_zoo", "weights_folder"]

BUNDLED_ROOT = Path(__file__).resolve().parent.parent / "assets" / "bundled"
_OWN_ZOO = Path(__file__).resolve().with_name("zoo.yaml")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_BUNDLED = re.compile(r"bundled:[a-z0-9][a-z0-9._-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_VLM_KEYS = frozenset(
    {"family", "base_revision", "question", "answers", "synonyms", "hint", "precision", "remote_code"}
)
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]*", re.ASCII)


@dataclass(frozen=True)
class Zoo:
    """All known models.

    Attributes:
        specs: id to entry, Exhibit's own first, in the order of the files.
    """

    specs: Mapping[str, ModelSpec]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that some model answers, in the order of the entries."""
        return tuple(dict.fromkeys(spec.task for spec in self.specs.values()))

    def get(self, model_id: str) -> ModelSpec:
        """The entry called ``model_id``.

        Raises:
            ZooError: there is none; the message names the known ids.
        """
        try:
            return self.specs[model_id]
        except KeyError:
            raise ZooError(f"no model is called {model_id!r}; known are: {', '.join(self.specs)}") from None

    def for_task(self, task: str) -> tuple[ModelSpec, ...]:
        """All entries that answer ``task``.

        Raises:
            ZooError: no entry does; the message names the known tasks.
        """
        found = tuple(spec for spec in self.specs.values() if spec.task == task)
        if not found:
            raise ZooError(f"no model answers the task {task!r}; known tasks are: {', '.join(self.tasks)}")
        return found


def is_commit(revision: str) -> bool:
    """Whether ``revision`` is a full commit hash, which never moves."""
    return _COMMIT.fullmatch(revision) is not None


def is_folder(source: str) -> bool:
    """Whether ``source`` names a local folder (``./x``, ``../x``, ``/x``, ``~/x``) rather than a hub repository."""
    return source.startswith((".", "/", "~"))


def weights_folder(source: str) -> Path | None:
    """The folder on this machine that ``source`` names, or ``None`` for a hub repository."""
    if source.startswith("bundled:"):
        return BUNDLED_ROOT / source.removeprefix("bundled:")
    return Path(source) if is_folder(source) else None


def load_zoo(user_file: Path | None = None) -> Zoo:
    """Exhibit's zoo, with the entries of ``user_file`` added.

    Args:
        user_file: a YAML file of the same form as ``models/zoo.yaml``; folders in it are relative to it.

    Raises:
        ZooError: a file cannot be read, an entry breaks a rule, or an id is given twice.
    """
    specs: dict[str, ModelSpec] = {}
    for file in (_OWN_ZOO, user_file) if user_file else (_OWN_ZOO,):
        for spec in _read(file):
            if spec.id in specs:
                raise ZooError(f"{file}: entry {spec.id!r}: this id is taken already; give the entry another one")
            specs[spec.id] = spec
    for spec in specs.values():
        _check_fallback(spec, specs)
    return Zoo(MappingProxyType(specs))


def _read(file: Path) -> Iterable[ModelSpec]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(f"{file}: the zoo file cannot be read ({_one_line(error)})") from error
    except yaml.YAMLError as error:
        raise ZooError(f"{file}: this is not valid YAML ({_one_line(error)})") from error
    if not isinstance(content, dict) or set(content) != {"models"} or not isinstance(content["models"], list):
        raise ZooError(f"{file}: a zoo file holds one key, `models`, with a list of entries")
    for number, entry in enumerate(content["models"], start=1):
        yield _parse(file, number, entry)


def _parse(file: Path, number: int, entry: object) -> ModelSpec:
    if not isinstance(entry, dict):
        raise ZooError(f"{file}: entry number {number} is not a mapping of keys to values")
    where = f"{file}: entry {entry['id']!r}" if "id" in entry else f"{file}: entry number {number}"
    values: dict[str, Any] = {str(key): value for key, value in entry.items()}
    for key in ("source", "base"):
        if isinstance(values.get(key), str) and is_folder(values[key]):
            values[key] = str((file.resolve().parent / Path(values[key]).expanduser()).resolve())
    try:
        spec = ModelSpec(**values)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc']))}: {_fault(fault)}" for fault in error.errors())
        raise ZooError(f"{where}: {'; '.join(faults)}") from None
    problem = _problem(spec)
    if problem:
        raise ZooError(f"{where}: {problem}")
    return spec if spec.accuracy is not None or not spec.bundled else _with_measured_accuracy(spec)


def _fault(fault: Mapping[str, Any]) -> str:
    """One of pydantic's findings in the words of a zoo file."""
    kind = fault["type"]
    if kind == "extra_forbidden":
        return f"unknown key; known are: {', '.join(ModelSpec.model_fields)}"
    if kind == "missing":
        return "this key is missing"
    if kind == "string_type":
        return f"must be text; write it in quotes (found {fault['input']!r})"
    return f"{fault['msg'][:1].lower()}{fault['msg'][1:]} (found {fault['input']!r})"


def _problem(spec: ModelSpec) -> str | None:
    """What is wrong with an entry whose keys and types are right."""
    local = is_folder(spec.source)
    hub = not spec.bundled and not local
    if spec.bundled and not _BUNDLED.fullmatch(spec.source):
        return f"source: {spec.source!r} is not bundled:NAME with a plain name"
    if hub and not _HUB_ID.fullmatch(spec.source):
        return f"source: {spec.source!r} is neither bundled:NAME, nor org/name, nor a folder (write ./folder)"
    if hub and spec.revision is None:
        return "revision: a hub source needs a commit, a tag or main (for a folder, write source: ./folder)"
    if not hub and spec.revision is not None:
        return "revision: only a hub source has one; leave it out"
    if spec.revision and (not _REVISION.fullmatch(spec.revision) or ".." in spec.revision):
        return f"revision: {spec.revision!r} is not a commit, a tag or main"
    if spec.base and not is_folder(spec.base) and not _HUB_ID.fullmatch(spec.base):
        bundled = spec.kind == "vlm" and _BUNDLED.fullmatch(spec.base)
        if not bundled:
            return f"base: {spec.base!r} is neither org/name nor a folder (write ./folder)"
    if spec.kind != "detector" and spec.file is not None:
        return "file: only a detector names one weight file; leave it out"
    if spec.kind == "detector" and hub and spec.file is None:
        return "file: a detector from the hub needs the name of its weight file"
    if spec.file and (Path(spec.file).is_absolute() or ".." in Path(spec.file).parts):
        return f"file: {spec.file!r} must lie inside the source"
    if not spec.licence.strip():
        return "licence: this key is empty"
    return _clip_problem(spec) if spec.kind == "clip" else _vlm_problem(spec)


def _clip_problem(spec: ModelSpec) -> str | None:
    """What is wrong with the keys of an image-text model."""
    given = (spec.model_fields_set & _VLM_KEYS) - {"answers"}
    if given:
        return f"{min(given)}: only an entry of kind vlm has this key; leave it out"
    if len(set(spec.answers.values())) < 2 or not all(map(str.strip, spec.answers)):
        return "answers: write at least two texts with different labels, as in {a photo of a cat: cat, a photo: other}"
    return None


def _vlm_problem(spec: ModelSpec) -> str | None:
    """What is wrong with the keys that only a vision-language model has."""
    given = spec.model_fields_set & _VLM_KEYS
    if spec.kind != "vlm":
        return f"{min(given)}: only an entry of kind vlm has this key; leave it out" if given else None
    if spec.family not in list_families():
        return f"family: {spec.family!r} is none of {', '.join(list_families())}"
    if not (spec.question or "").strip():
        return "question: write what the model is asked"
    labels = tuple(spec.answers.values())
    if len(labels) < 2 or len(set(labels)) < len(labels) or not all(map(str.strip, spec.answers)):
        return "answers: write at least two texts, each with another label, as in {yes: fake, no: real}"
    unknown = sorted(set(spec.synonyms) - set(labels))
    if unknown:
        return f"synonyms: {unknown[0]!r} is no label of `answers`"
    hub_base = bool(spec.base) and _HUB_ID.fullmatch(str(spec.base)) is not None
    if hub_base != (spec.base_revision is not None):
        return "base_revision: a base on the hub needs one, and only that"
    if spec.base_revision and (not _REVISION.fullmatch(spec.base_revision) or ".." in spec.base_revision):
        return f"base_revision: {spec.base_revision!r} is not a commit, a tag or main"
    # Of a fine-tuned model with a base only the weights are taken; the code is the base's.
    pinned = spec.base_revision if spec.base else spec.revision
    if spec.remote_code and pinned in ("main", "master"):
        key = "base_revision" if spec.base else "revision"
        return f"{key}: code that runs must not change unseen; give a commit or a tag, not a branch"
    return None


def _check_fallback(spec: ModelSpec, specs: Mapping[str, ModelSpec]) -> None:
    if spec.fallback is None:
        return
    where = f"entry {spec.id!r}: fallback"
    other = specs.get(spec.fallback)
    if other is None:
        bundled = ", ".join(known.id for known in specs.values() if known.bundled)
        raise ZooError(f"{where}: {spec.fallback!r} is unknown; bundled are: {bundled}")
    if not other.bundled:
        raise ZooError(f"{where}: {other.id!r} is not bundled, so it may be missing just as well")
    if (other.kind, other.task) != (spec.kind, spec.task):
        raise ZooError(f"{where}: {other.id!r} is a {other.kind} for {other.task}, not a {spec.kind} for {spec.task}")


def _with_measured_accuracy(spec: ModelSpec) -> ModelSpec:
    """The entry with the accuracy its own measurement states, so that no figure is written down twice."""
    folder = weights_folder(spec.source)
    file = folder / "metrics.json" if folder else None
    if spec.kind in ("detector", "clip") or file is None or not file.is_file():
        return spec
    try:
        accuracy = json.loads(file.read_text(encoding="utf-8"))["validation"]["accuracy"]
        return ModelSpec(**(spec.model_dump() | {"accuracy": accuracy}))
    except (ValueError, KeyError, TypeError) as error:
        raise ZooError(f"{file}: no accuracy in [0, 1] at validation.accuracy; write it anew") from error


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
