"""From a zoo entry to a live model, with a way out when its weights cannot be had.

The chain is fine-tuned, then base, then bundled; the status of what serves says which it is, why, and what to do.
"""

from __future__ import annotations

import gc
import logging
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import torch

from models.errors import ModelUnavailableError, ZooError
from models.hub import Hub, Wanted
from models.registry import Zoo, is_folder, weights_folder
from models.schema import LoadState, ModelSpec, ModelStatus, Precision
from models.vlm_loading import Place, VlmLoader, check_trust, vlm_kind
from models.weights import SINGLE, check_whole, classifier_weights, clip_weights, hash_files, is_adapter, vlm_weights

if TYPE_CHECKING:
    from models.classifier import ImageClassifier
    from models.clip import ImageTextModel
    from models.detector import Detector
    from models.vlm import VisionLanguageModel

    Live = ImageClassifier | Detector | VisionLanguageModel | ImageTextModel

__all__ = ["BASE_SUFFIX", "ModelLoader"]

BASE_SUFFIX = "@base"
"""Added to an entry's id to mean its base model, asked the same."""

_log = logging.getLogger(__name__)

LoadProgress = Callable[[str, float | None, str], None]
"""Called with the model's id, the share done in [0, 1] or None, and a few words."""

RETRY_S = 300.0
"""Seconds for which a source that failed is not asked again, so that no picture waits for a hub that is away."""


@dataclass(frozen=True)
class _Step:
    """One way to serve an entry.

    Attributes:
        state: what serves if this step succeeds.
        source: bundled folder, local folder or hub repository.
        shown: what ``ModelStatus.loaded_from`` says of it; a hub repository gets its commit added.
        wanted: what to ask of the hub; ``None`` for a folder.
        owner: the entry that the source belongs to, whose labels or answers it knows.
    """

    state: LoadState
    source: str
    shown: str
    wanted: Wanted | None
    owner: ModelSpec


class ModelLoader:
    """Loads models when they are first asked for and keeps the latest ones; safe to share between threads.

    Args:
        zoo: the known models.
        max_models: most models kept in memory; the one unused longest goes first.
        device: where to put them; a GPU if there is one.
        offline: never use the network.
        progress: told of downloads and loading, from the loading thread.
        hub: where hub entries come from; made from the environment by default.
        trusted: ids of entries whose repositories may run their own code.

    Raises:
        ValueError: ``max_models`` is below 1.
    """

    def __init__(
        self,
        zoo: Zoo,
        *,
        max_models: int = 4,
        device: torch.device | str | None = None,
        offline: bool = False,
        progress: LoadProgress | None = None,
        hub: Hub | None = None,
        trusted: Collection[str] = (),
    ) -> None:
        if max_models < 1:
            raise ValueError("max_models must be at least 1")
        self.zoo = zoo
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.hub = hub or Hub(offline=offline)
        self._max_models = max_models
        self._progress = progress
        self._trusted = frozenset(trusted)
        for model_id in self._trusted:
            zoo.get(model_id)
        self._live: OrderedDict[tuple[str, Precision | None], Live] = OrderedDict()
        self._failed: dict[str, tuple[float, ModelUnavailableError]] = {}
        self._guard = Lock()
        self._loading: defaultdict[str, Lock] = defaultdict(Lock)
        # Building a network sets defaults of the whole process for a moment, so only one is built at a time.
        self._building = Lock()
        self._vlms = VlmLoader(self.device, lambda: self.loaded)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Ids of the models in memory, the one unused longest first."""
        with self._guard:
            return tuple(dict.fromkeys(model_id for model_id, _ in self._live))

    def load(self, model_id: str, *, precision: Precision | None = None) -> Live:
        """The live model, loaded now if it is not in memory; may take as long as a download.

        Args:
            model_id: zoo id; ``ID@base`` is the base model of a vision-language entry, asked the same.
            precision: how a vision-language model's weights are kept; the entry's own when not given.

        Raises:
            ZooError: no entry has this id.
            ModelUnavailableError: neither it nor what may stand in for it can be had; gives reason and remedy.
        """
        spec = self._spec(model_id)
        key = (model_id, precision if spec.kind == "vlm" else None)
        with self._guard:
            loading = self._loading[model_id]
        with loading:
            with self._guard:
                live = self._live.get(key)
                if live is not None and not self._worth_retrying(spec, live):
                    self._live.move_to_end(key)
                    return live
            live = self._serve(spec, precision)
            with self._guard:
                self._live[key] = live
                self._live.move_to_end(key)
                while len(self._live) > self._max_models:
                    self._live.popitem(last=False)
            return live

    def status(self, model_id: str) -> ModelStatus:
        """What serves, or would serve, for this entry; returns at once, loads nothing and asks no network.

        Raises:
            ZooError: no entry has this id.
        """
        spec = self._spec(model_id)
        with self._guard:
            live = next((live for (known, _), live in self._live.items() if known == model_id), None)
        if live is not None:
            return live.status
        problems: list[ModelUnavailableError] = []
        for step in self._chain(spec):
            try:
                note, remedy = self._outlook(spec, step)
            except ModelUnavailableError as problem:
                problems.append(problem)
                continue
            return _stand_in(ModelStatus(step.state, step.shown, note, remedy), problems)
        return ModelStatus(LoadState.UNAVAILABLE, reason=problems[0].reason, remedy=problems[0].remedy)

    def release(self, model_id: str | None = None) -> None:
        """Drops a model (or all of them) from memory and forgets its failures, so that the next use tries anew.

        Raises:
            ZooError: no entry has this id.
        """
        dropped = [self.zoo.get(model_id)] if model_id else list(self.zoo.specs.values())
        with self._guard:
            for spec in dropped:
                for key in [key for key in self._live if key[0].partition("@")[0] == spec.id]:
                    del self._live[key]
                for step in self._chain(spec):
                    self._failed.pop(step.source, None)
        gc.collect()  # a network and its hooks may refer to each other
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _spec(self, model_id: str) -> ModelSpec:
        """The entry, or for ``ID@base`` an entry of its base alone."""
        name, base, rest = model_id.partition(BASE_SUFFIX)
        spec = self.zoo.get(name if base and not rest else model_id)
        if spec.id == model_id:
            return spec
        if spec.kind != "vlm" or not spec.base:
            raise ZooError(f"{spec.id} has no base to compare with; a vision-language entry names it as `base`")
        changes = {"id": model_id, "source": spec.base, "revision": spec.base_revision, "base": None, "fallback": None}
        return spec.model_copy(update=changes)

    def _chain(self, spec: ModelSpec) -> Iterator[_Step]:
        state = LoadState.BUNDLED if spec.bundled else LoadState.FINE_TUNED
        # An entry whose source is its base asks a general model, which nobody taught the task.
        state = LoadState.BASE if spec.id.endswith(BASE_SUFFIX) or spec.base == spec.source else state
        wanted = _wanted(spec, spec.source, spec.revision)
        shown = spec.source if wanted or not spec.bundled else spec.id
        yield _Step(state, spec.source, shown, wanted, spec)
        if spec.base and spec.base != spec.source:
            yield _base_step(spec)
        if spec.fallback:
            own = self.zoo.get(spec.fallback)
            yield _Step(LoadState.BUNDLED, own.source, own.id, None, own)

    def _worth_retrying(self, spec: ModelSpec, live: Live) -> bool:
        """Whether a stand-in serves although what was asked for may be within reach by now."""
        wanted = next(self._chain(spec))
        failed_before = wanted.source in self._failed and self._recent_failure(wanted.source) is None
        return failed_before and live.status.state != wanted.state

    def _recent_failure(self, source: str) -> ModelUnavailableError | None:
        at, problem = self._failed.get(source, (0.0, None))
        return problem if problem and time.monotonic() - at < RETRY_S else None

    def _serve(self, spec: ModelSpec, precision: Precision | None = None) -> Live:
        problems: list[ModelUnavailableError] = []
        for step in self._chain(spec):
            recent = self._recent_failure(step.source)
            if recent:
                problems.append(recent)
                continue
            try:
                live = self._load(spec, step, problems, precision)
            except ModelUnavailableError as error:
                _log.warning("%s: %s", spec.id, error)
                problems.append(error)
                if step.wanted:
                    self._failed[step.source] = (time.monotonic(), error)
            else:
                self._tell(spec.id, 1.0, "ready")
                return live
        kind = type(problems[0])
        raise kind(f"{spec.id}: {problems[0].reason}", problems[0].remedy) from problems[0]

    def _load(
        self, spec: ModelSpec, step: _Step, problems: list[ModelUnavailableError], precision: Precision | None
    ) -> Live:
        if spec.kind == "vlm":
            return self._load_vlm(spec, step, problems, precision)
        place = self._fetch(spec, step)
        files = _weights(step, place.folder)
        self._tell(spec.id, None, f"loading {spec.name}")
        check_whole(file for file in files if file.suffix == ".safetensors")
        status = _stand_in(ModelStatus(step.state, place.shown, weights_sha256=hash_files(files)), problems)
        with self._building:
            if spec.kind == "detector":
                from models.detector import load_detector

                return load_detector(spec, place.folder, status, device=self.device)
            if spec.kind == "clip":
                from models.clip_loading import load_clip

                return load_clip(spec, place.folder, status, answers=step.owner.answers, device=self.device)
            from models.classifier import load_classifier
            from models.doubt import read_doubt

            live = load_classifier(spec, place.folder, status, renames=step.owner.labels, device=self.device)
            live.doubt = read_doubt(place.folder, status.weights_sha256, live.processor)
            return live

    def _load_vlm(
        self, spec: ModelSpec, step: _Step, problems: list[ModelUnavailableError], precision: Precision | None
    ) -> Live:
        check_trust(step.owner, self._trusted)
        self._vlms.room(step.owner, self._network_at_hand(step), precision)
        own, base = self._fetch(spec, step), None
        from_source = step.state is not LoadState.BASE
        if is_adapter(own.folder) or (from_source and vlm_kind(step.owner, step.source) == "weights"):
            if not step.owner.base:
                raise ModelUnavailableError(
                    f"{step.source} is an adapter and needs its base", "name it as `base` in the zoo file"
                )
            base = self._fetch(spec, _base_step(step.owner))
        self._tell(spec.id, None, f"loading {spec.name}")
        with self._building:
            live = self._vlms.load(spec, step.owner, own, base, step.state, precision)
        live.status = _stand_in(live.status, problems)
        return live

    def _fetch(self, spec: ModelSpec, step: _Step) -> Place:
        """The step's folder or file on this machine, downloaded where it is not there yet."""
        if step.wanted is None:
            return Place(_local_path(step), step.shown)
        path, commit = self.hub.fetch(step.wanted, lambda share, text: self._tell(spec.id, share, text))
        return Place(path, f"{step.shown}@{commit}")

    def _outlook(self, spec: ModelSpec, step: _Step) -> tuple[str, str]:
        """A note and a remedy on a step that would probably succeed; both empty if nothing need be said.

        Raises:
            ModelUnavailableError: the step would fail.
        """
        if spec.kind == "vlm":
            check_trust(step.owner, self._trusted)
            folder = self._network_at_hand(step)
            self._vlms.room(step.owner, folder)
        else:
            folder = self._at_hand(step)
        if folder is not None:
            return "", ""
        return f"not on this machine yet: the first use downloads {spec.size_mb:.0f} MB", ""

    def _network_at_hand(self, step: _Step) -> Path | None:
        """The folder of a vision-language step's whole network, which may be its base; otherwise as ``_at_hand``."""
        folder = self._at_hand(step)
        if step.owner.base and step.state is not LoadState.BASE and (folder is None or is_adapter(folder)):
            return self._at_hand(_base_step(step.owner))
        return folder

    def _at_hand(self, step: _Step) -> Path | None:
        """The step's folder or file if it is on this machine, ``None`` if it can be downloaded.

        Raises:
            ModelUnavailableError: neither.
        """
        if step.wanted is None:
            path = _local_path(step)
            _weights(step, path)
            return path
        problem = self._recent_failure(step.source)
        here = None if problem else self.hub.cached(step.wanted)
        if here:
            return here[0]
        problem = problem or self.hub.obstacle(step.wanted)
        if problem:
            raise type(problem)(problem.reason, problem.remedy)
        return None

    def _tell(self, model_id: str, share: float | None, text: str) -> None:
        if self._progress:
            self._progress(model_id, share, text)


def _local_path(step: _Step) -> Path:
    """The folder, or for a detector with a named file that file; meaningless for a hub source."""
    folder = weights_folder(step.source) or Path()
    return folder / step.owner.file if step.owner.file else folder


def _base_step(spec: ModelSpec) -> _Step:
    base = str(spec.base)
    return _Step(LoadState.BASE, base, base, _wanted(spec, base, spec.base_revision or "main"), spec)


def _wanted(spec: ModelSpec, source: str, revision: str | None) -> Wanted | None:
    if source.startswith("bundled:") or is_folder(source):
        return None
    # A vision-language entry is as hard to get as the harder of its two halves.
    access = spec.access if source == spec.source or spec.kind == "vlm" else "public"
    kind = vlm_kind(spec, source) if spec.kind == "vlm" else "clip" if spec.kind == "clip" else "classifier"
    return Wanted(source, revision or "main", spec.file, access, kind)


def _weights(step: _Step, path: Path) -> list[Path]:
    """The files whose bytes are the model.

    Raises:
        UnsafeWeightsError: the weights of a classifier or a vision-language model are pickles.
        ModelUnavailableError: a file is missing.
    """
    if step.owner.kind == "classifier":
        return classifier_weights(path)
    if step.owner.kind == "clip":
        return clip_weights(path)
    if step.owner.kind == "vlm":
        return vlm_weights(path, vlm_kind(step.owner, step.source))
    file = path / SINGLE if path.is_dir() else path
    if not file.is_file():
        raise ModelUnavailableError(f"there is no weight file {file}", "correct `source`, or copy the file there")
    return [file]


def _stand_in(status: ModelStatus, problems: list[ModelUnavailableError]) -> ModelStatus:
    """The status of something that serves because the steps before it, if any, failed."""
    if not problems:
        return status
    return replace(
        status,
        reason=f"{status.loaded_from} answers instead: {'; '.join(problem.reason for problem in problems)}",
        remedy=problems[0].remedy,
    )
