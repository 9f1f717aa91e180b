"""The models of an examination asked again about the picture under small changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from explain.catalog import get_method
from explain.examination import Examination, Problem, load_explainable
from explain.faithfulness_probe import fixed_target
from explain.stability import Stability, check_stability
from explain.targets import default_target
from models.errors import ExhibitError
from models.loading import ModelLoader

__all__ = ["measure_stability"]

LOGGER = logging.getLogger(__name__)


def measure_stability(
    examination: Examination, loader: ModelLoader, told: Callable[[float], None] | None = None
) -> Examination:
    """The examination with what small changes do to every model's answer and maps; five passes of each.

    Args:
        examination: with predictions. Base models are left out: they have no part in the verdict.
        loader: as it was examined with.
        told: hears of each model's share done, in [0, 1]; what it raises ends the measuring.

    Returns:
        The same with ``stability``; a model that cannot be asked again becomes a problem and the others go on.
    """
    found: list[Stability] = []
    problems: list[Problem] = []
    started = time.perf_counter()
    wanted = [one for one in examination.predictions if one.model_id in examination.settings.models]
    for prediction in wanted:
        maps = tuple(one for one in examination.heatmaps if one.model_id == prediction.model_id)
        aware = [one.target for one in maps if get_method(one.method).class_aware]
        try:
            live = load_explainable(loader, prediction.model_id, examination.settings)
            own = default_target(live, examination.settings.target)
            target = fixed_target(aware[0], live.labels) if aware else own
            found.append(check_stability(live, examination.source.rgb, prediction, maps, target, told))
        except ExhibitError as error:
            LOGGER.warning("stability of %s: %s", prediction.model_id, error)
            problems.append(Problem(f"stability {prediction.model_id}", str(error)))
    return replace(
        examination,
        stability=tuple(found),
        problems=(*examination.problems, *problems),
        timings_s={**examination.timings_s, "stability": time.perf_counter() - started},
    )
