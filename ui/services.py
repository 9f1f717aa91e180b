"""All that the page needs from the rooms below, built once by ``app.py`` and handed to the tabs."""

from __future__ import annotations

import importlib
import logging
import time
import zipfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from explain.catalog import DEFAULT_METHODS
from explain.examination import Examination, Settings, examine_steps
from explain.faithfulness import FaithfulnessMeter
from models.errors import ExhibitError
from models.families.base import Stage
from models.imaging import SourceImage, read_image
from models.loading import BASE_SUFFIX, ModelLoader
from models.registry import Zoo, load_zoo
from models.schema import LoadState, ModelSpec, ModelStatus, Precision
from ui.compare_shelf import Shelf
from ui.examples import Example, find_examples, generate_picture
from ui.files import fresh_path
from ui.progress import News, ProgressBoard, Work

if TYPE_CHECKING:
    from models.loading import Live

_LOG = logging.getLogger(__name__)
DETECTION = "detection"
# One limit for all that runs a model: two visitors take turns, whichever button or endpoint they use.
MODELS_QUEUE = "models"
MODELS_AT_ONCE = 1
# Which weights of a vision-language model answer: the fine-tuned ones, its base, or both to compare.
TUNED, BASE, BOTH = "tuned", "base", "both"
LOADING_QUEUE = "loading"
LOADING_AT_ONCE = 4
REPORT_EVERY_S = 0.4


@dataclass(frozen=True)
class Choice:
    """A model that can be asked for, and what would answer."""

    spec: ModelSpec
    status: ModelStatus

    @property
    def available(self) -> bool:
        """Whether anything would answer."""
        return self.status.state is not LoadState.UNAVAILABLE

    @property
    def at_hand(self) -> bool:
        """Whether the wanted weights themselves would answer, so that ticking it asks for no stand-in."""
        return self.available and not self.status.reason


@dataclass(frozen=True)
class Asking:
    """How vision-language models are asked and looked into; the defaults are the models' own ways.

    Attributes:
        question: empty for each model's own.
        style: prompt style; empty for each model's own.
        adapter: ``tuned``, ``base``, or ``both`` to compare them.
        precision: how weights are kept; ``auto`` as the zoo says.
        layer: stage of the network whose layer is explained.
    """

    question: str = ""
    style: str = ""
    adapter: str = TUNED
    precision: Precision = "auto"
    layer: Stage = "tower"


@dataclass(frozen=True)
class Services:
    """What every tab shares. Holds no visitor's data.

    Attributes:
        zoo: all known models.
        loader: loads them lazily and keeps a few.
        examples: pictures to try, found when the page was built.
        board: what the loader says while it works.
        reports: saved evaluations, for the Compare tab.
        meter: measures how far to believe heatmaps, and remembers it.
        folders: of pictures and finished runs that the operator opened for the Triage tab.
    """

    zoo: Zoo
    loader: ModelLoader
    examples: tuple[Example, ...]
    board: ProgressBoard = field(default_factory=ProgressBoard)
    reports: Shelf = field(default_factory=Shelf)
    meter: FaithfulnessMeter = field(default_factory=FaithfulnessMeter)
    folders: tuple[Path, ...] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """The questions a picture can be asked."""
        return tuple(task for task in self.zoo.tasks if task != DETECTION)

    def choices(self, task: str) -> tuple[Choice, ...]:
        """The models of a task with what would serve, without loading any.

        Raises:
            ZooError: if no model answers the task.
        """
        return tuple(Choice(spec, self.loader.status(spec.id)) for spec in self.zoo.for_task(task))

    def detectors(self) -> tuple[Choice, ...]:
        """The detectors with what would serve; empty when the zoo has none."""
        return self.choices(DETECTION) if DETECTION in self.zoo.tasks else ()

    def labels(self, task: str) -> tuple[str, ...]:
        """The labels that a task's models are known to use, sorted; the common pair when no entry says."""
        specs = self.zoo.for_task(task)
        named = {label for spec in specs for label in (*spec.labels.values(), *spec.answers.values())}
        return tuple(sorted(named)) or ("fake", "real")

    def default_models(self, task: str) -> tuple[str, ...]:
        """The models ticked at first: those whose own weights are here, else whatever would answer.

        A base model is not ticked beside what was fine-tuned from it: it has learnt nothing of the task.
        """
        choices = self.choices(task)
        chosen = [c for c in choices if c.at_hand] or [c for c in choices if c.available]
        # A general model names itself as its base, which says nothing of it.
        bases = {choice.spec.base for choice in chosen if choice.spec.base != choice.spec.source}
        return tuple(choice.spec.id for choice in chosen if choice.spec.source not in bases)

    def reads_questions(self, model_id: str) -> bool:
        """Whether a model is a vision-language model, which can be asked anything."""
        spec = self.zoo.specs.get(model_id.removesuffix(BASE_SUFFIX))
        return spec is not None and spec.kind == "vlm"

    def find_models(self, names: Collection[str]) -> tuple[ModelSpec, ...]:
        """The entries that answer pictures and are called so, by their ids or by the folders of bundled weights."""
        known = (spec for task in self.tasks for spec in self.zoo.for_task(task))
        return tuple(spec for spec in known if spec.id in names or spec.source.removeprefix("bundled:") in names)

    def default_detector(self) -> str | None:
        """The detector chosen at first."""
        found = self.detectors()
        return next((c.spec.id for c in (*(c for c in found if c.at_hand), *found) if c.available), None)

    def read(self, path: Path, name: str) -> SourceImage:
        """One checked picture.

        Raises:
            BadImageError: if it is none.
        """
        return read_image(path, name)

    def settings(
        self,
        task: str,
        models: tuple[str, ...] = (),
        methods: tuple[str, ...] = (),
        target: str = "",
        detector: str | None = None,
        asking: Asking | None = None,
    ) -> Settings:
        """Settings with the gaps filled.

        No models means the default ones, no methods those that share one pass, no target the predicted label. Without a
        vision-language model among them, ``asking`` is left out: nobody would be asked.
        """
        models = models or self.default_models(task)
        asked = asking if asking and any(map(self.reads_questions, models)) else Asking()
        if asked.adapter == BASE:
            models = tuple(f"{each}{BASE_SUFFIX}" if self.reads_questions(each) else each for each in models)
        return Settings(
            task=task,
            models=models,
            methods=methods or DEFAULT_METHODS,
            target=target or None,
            detector=detector or None,
            question=asked.question.strip() or None,
            style=asked.style or None,
            precision=None if asked.precision == "auto" else asked.precision,
            layer=None if asked.layer == "tower" else asked.layer,
            compare_base=asked.adapter == BOTH,
        )

    def load_all(self, settings: Settings, stopping: Event) -> Iterator[tuple[str, News]]:
        """Load what the settings name, outside the queue that models run in, telling how far it is.

        A model that cannot be had is no error here: the examination says so beside the answers of the others.

        Args:
            settings: whose models and detector to load.
            stopping: ends the waiting; a download that was begun goes on for the next time.

        Yields:
            The model being loaded and the latest news of it, every ``REPORT_EVERY_S`` seconds while it takes that long.
        """
        wanted = (*settings.models, *([settings.detector] if settings.detector else []))
        yield from self.load_each(wanted, stopping, settings.precision)

    def load_each(
        self, model_ids: Iterable[str], stopping: Event, precision: Precision | None = None
    ) -> Iterator[tuple[str, News]]:
        """As ``load_all``, for models by their ids; what is in memory already is passed over.

        Args:
            model_ids: in the order to load them.
            stopping: as for ``load_all``.
            precision: how the weights of vision-language models are kept; as the zoo says when not given.
        """
        for model_id in dict.fromkeys(model_ids):
            if stopping.is_set() or (model_id in self.loader.loaded and not precision):
                continue
            try:
                for news in self.load(model_id, stopping, precision):
                    yield model_id, news
            except ExhibitError as error:
                _LOG.info("%s", error)

    def load(self, model_id: str, stopping: Event | None = None, precision: Precision | None = None) -> Iterator[News]:
        """Load one model, telling how far it is.

        Args:
            model_id: which.
            stopping: as for ``load_all``.
            precision: how a vision-language model's weights are kept; as the zoo says when not given.

        Yields:
            The latest news, every ``REPORT_EVERY_S`` seconds while it takes that long.

        Raises:
            ExhibitError: the model cannot be had.
        """

        def work() -> None:
            with self.board.following(model_id):
                self.live(model_id, precision)

        loading = Work(f"load-{model_id}", work)
        loading.start()
        loading.join(REPORT_EVERY_S)
        while loading.is_alive():
            if stopping is not None and stopping.is_set():
                return
            yield self.board.latest(model_id)
            loading.join(REPORT_EVERY_S)
        loading.finish()

    def live(self, model_id: str, precision: Precision | None = None) -> Live:
        """A loaded model, loaded now if need be.

        Raises:
            ExhibitError: the model cannot be had.
        """
        return self.loader.load(model_id, precision=precision) if precision else self.loader.load(model_id)

    def examine(self, source: SourceImage, settings: Settings) -> Iterator[Examination]:
        """The examination step by step, each more complete than the last.

        Raises:
            ExhibitError: if the settings cannot be meant.
        """
        _LOG.info("Examining %d x %d px with %s", *source.size_wh, ", ".join(settings.models))
        return examine_steps(source, settings, self.loader)

    def warm_up(self) -> None:
        """Examine a generated picture, so that libraries and bundled models are there before the first visitor asks."""
        started = time.perf_counter()
        source = read_image(generate_picture(), "warm-up.png")
        try:
            for task in self.tasks:
                bundled = tuple(spec.id for spec in self.zoo.for_task(task) if spec.bundled)
                if bundled:
                    *_, last = examine_steps(
                        source, self.settings(task, bundled, detector=self.default_detector()), self.loader
                    )
                    _LOG.info("Warm after %.1f s: %s", time.perf_counter() - started, last.timings_s)
        except ExhibitError as error:
            _LOG.warning("Not warmed up: %s", error)


@dataclass(frozen=True)
class Packed:
    """An evidence bundle on its way to a visitor: the archive, and the overlays that lie in it."""

    archive: Path
    overlays: tuple[Path, ...]


def pack_bundle(examination: Examination, *, include_original: bool = True) -> Packed:
    """The evidence bundle as one zip file, named after the picture's hash and never after the visitor's file.

    Raises:
        BundleError: if the examination is not complete or the disk refuses.
    """
    archive = fresh_path(f"exhibit-{examination.source.sha256[:12]}.zip")
    folder = examination.save(archive.parent / archive.stem, include_original=include_original)
    # PNG and npz are compressed already; storing them is ten times faster.
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                packed.write(file, file.relative_to(archive.parent))
    return Packed(archive, tuple(sorted((folder / "overlays").glob("*.png"))))


def import_shared_libraries() -> None:
    """Import, while there is one thread, what the warm-up and a visitor's first request would both import.

    Both reach narwhals, one through scikit-learn and one through plotly, and its modules import each other: begun in
    two threads at once, Python finds a deadlock and one of them fails.
    """
    importlib.import_module("plotly.graph_objects").Figure()


def build_services(
    user_zoo: Path | None = None,
    trusted: Collection[str] = (),
    reports: Path | None = None,
    folders: Collection[Path] = (),
) -> Services:
    """Services over Exhibit's zoo and a user's own, with the examples that this machine has.

    Args:
        user_zoo: a zoo file to merge in.
        trusted: ids of entries whose repositories may run their own code.
        reports: a folder of saved reports to show beside those of bundled models.
        folders: of pictures and finished runs that visitors may look into.

    Raises:
        ZooError: if a zoo file cannot be used, or a trusted id is unknown.
        ReportError: if there is no such folder of reports.
        ExhibitError: if there is no such folder of pictures.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ExhibitError(f"--folder {folder}: there is no such folder.")
    shelf = Shelf(reports)
    zoo = load_zoo(user_zoo)
    board = ProgressBoard()
    loader = ModelLoader(zoo, progress=board.tell, trusted=trusted)
    return Services(
        zoo=zoo, loader=loader, examples=find_examples(), board=board, reports=shelf, folders=tuple(folders)
    )
