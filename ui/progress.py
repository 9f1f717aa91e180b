"""What loading threads say of their models, for pages to read: a download must be seen and hold up nobody else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, Thread


@dataclass(frozen=True)
class News:
    """The latest of one model: the share done in [0, 1] where it is known, and a few words."""

    share: float | None
    text: str


class ProgressBoard:
    """The latest news of each model; written by loading threads, read by visitors' listeners."""

    def __init__(self) -> None:
        self._news: dict[str, News] = {}
        self._under_way: Counter[str] = Counter()
        self._guard = Lock()

    def tell(self, model_id: str, share: float | None, text: str) -> None:
        """Take the news of a model; what ``ModelLoader`` calls."""
        with self._guard:
            self._news[model_id] = News(share, text)

    def latest(self, model_id: str) -> News:
        """The latest news of a model, empty words before the first."""
        with self._guard:
            return self._news.get(model_id, News(None, ""))

    @property
    def under_way(self) -> Mapping[str, News]:
        """The models that are being loaded now, for whomever, with the latest news of each."""
        with self._guard:
            return {model_id: self._news.get(model_id, News(None, "")) for model_id in self._under_way}

    @contextmanager
    def following(self, model_id: str) -> Iterator[None]:
        """A model is being loaded for as long as this lasts; its news of an earlier time is forgotten."""
        with self._guard:
            self._news.pop(model_id, None)
            self._under_way[model_id] += 1
        try:
            yield
        finally:
            with self._guard:
                self._under_way[model_id] -= 1
                self._under_way = +self._under_way


class Work(Thread):
    """One piece of work on a thread that dies with the server; what it raised is kept for whoever waits.

    Args:
        name: of the thread.
        work: what to do.
    """

    def __init__(self, name: str, work: Callable[[], object]) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self.error: Exception | None = None

    def run(self) -> None:
        """Do it."""
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - raised again by ``finish`` where somebody waits
            self.error = error

    def finish(self) -> None:
        """Raise what the work raised, if it has ended so."""
        if self.error is not None:
            raise self.error
