"""How far to believe maps and answers, measured for a visitor after the maps are shown, model by model.

Measuring takes some hundred passes, so it runs on a thread of its own that can be ended between two of them, outside
the queue in which other visitors wait for their verdicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from threading import Event

from explain.examination import Examination, measure_faithfulness
from explain.faithfulness_schema import FaithfulnessSettings, MapFaithfulness
from explain.stability_asking import measure_stability
from models.schema import LoadState
from ui import services as shared
from ui.progress import Work
from ui.services import Services

MEASURING_QUEUE = "faithfulness"
MEASURING_AT_ONCE = 1


@dataclass(frozen=True)
class Step:
    """How far measuring is.

    Attributes:
        examination: with what was measured so far.
        model_id: whose maps are being measured, or were last.
        done: share of all that was asked for, in [0, 1].
    """

    examination: Examination
    model_id: str
    done: float


class _EndedError(Exception):
    """Nobody waits for the figures any more."""


def find_faithfulness(examination: Examination, model_id: str, method: str) -> MapFaithfulness | None:
    """The figures of one map, or ``None`` while it is not measured."""
    wanted = (model_id, method)
    return next((one for one in examination.faithfulness if (one.model_id, one.method) == wanted), None)


def unmeasured_models(examination: Examination, *, small: bool) -> tuple[str, ...]:
    """The models with maps that are not measured.

    Args:
        examination: with maps.
        small: only those behind which bundled weights stand, which take seconds.
    """
    measured = {one.model_id for one in examination.faithfulness}
    mapped = {heatmap.model_id for heatmap in examination.heatmaps}
    wanted = [model_id for model_id in examination.settings.models if model_id in mapped - measured]
    if not small:
        return tuple(wanted)
    bundled = {one.model_id for one in examination.predictions if one.status.state is LoadState.BUNDLED}
    return tuple(model_id for model_id in wanted if model_id in bundled)


def measure_steps(
    services: Services,
    examination: Examination,
    models: Sequence[str],
    stopping: Event,
    settings: FaithfulnessSettings | None = None,
) -> Iterator[Step]:
    """Measure the maps of models one after the other.

    Args:
        services: with the loader and what was measured before.
        examination: with maps.
        models: whose maps.
        stopping: ends it between two passes; what was ready is in the last step.
        settings: how; the usual way when not given.

    Yields:
        A step whenever a model is done, and every ``REPORT_EVERY_S`` seconds meanwhile.
    """
    for index, model_id in enumerate(models):
        job = _Job(services, examination, model_id, stopping, settings)
        try:
            job.start()
            job.join(shared.REPORT_EVERY_S)
            while job.is_alive() and not stopping.is_set():
                yield Step(examination, model_id, (index + job.share) / len(models))
                job.join(shared.REPORT_EVERY_S)
            if stopping.is_set():
                return
            job.finish()
        finally:
            job.left.set()
        examination = _with(examination, job.found)
        yield Step(examination, model_id, (index + 1) / len(models))


class _Job(Work):
    """The measuring of one model's maps on a thread, which ends when nobody waits for it any more."""

    def __init__(
        self,
        services: Services,
        examination: Examination,
        model_id: str,
        stopping: Event,
        settings: FaithfulnessSettings | None,
    ) -> None:
        super().__init__(f"measure-{model_id}", self._measure)
        asked = replace(examination.settings, models=(model_id,))
        self.found = replace(examination, settings=asked, faithfulness=(), stability=(), problems=(), timings_s={})
        self.share = 0.0
        self.left = Event()
        self._services, self._stopping, self._settings = services, stopping, settings

    def _measure(self) -> None:
        services = self._services
        self.found = measure_faithfulness(self.found, services.loader, services.meter, self._settings, self._told)
        self.share = 1.0  # asking again about the changed picture takes moments
        self.found = measure_stability(self.found, services.loader, lambda _share: self._told(1.0))

    def _told(self, share: float) -> None:
        self.share = share
        if self._stopping.is_set() or self.left.is_set():
            raise _EndedError


def measure_all(services: Services, examination: Examination, models: Sequence[str]) -> Examination:
    """The examination with the figures of those models' maps, for callers who wait."""
    for step in measure_steps(services, examination, models, Event()):
        examination = step.examination
    return examination


def _with(examination: Examination, part: Examination) -> Examination:
    """The examination with what was found of one model, in the order of its maps."""
    found = {(one.model_id, one.method): one for one in (*examination.faithfulness, *part.faithfulness)}
    order = [(heatmap.model_id, heatmap.method) for heatmap in examination.heatmaps]
    stable = {one.model_id: one for one in (*examination.stability, *part.stability)}
    answered = [prediction.model_id for prediction in examination.predictions]
    spent = {step: examination.timings_s.get(step, 0.0) + seconds for step, seconds in part.timings_s.items()}
    return replace(
        examination,
        stability=tuple(stable[model_id] for model_id in answered if model_id in stable),
        faithfulness=tuple(found[key] for key in order if key in found),
        problems=(*examination.problems, *part.problems),
        timings_s={**examination.timings_s, **spent},
    )
