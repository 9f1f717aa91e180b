"""The models of an examination asked again about a picture without a part of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from explain.examination import Examination, Problem, load_explainable
from explain.schema import Heatmap
from explain.whatif import Change, Evidence, Fill, Mask, Remover, changes_of, smallest_evidence
from models.ensemble import combine
from models.errors import ExhibitError
from models.loading import ModelLoader
from models.schema import Prediction, Verdict

__all__ = ["WhatIf", "ask_without", "find_evidence"]

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class WhatIf:
    """What the models say of a picture without a region.

    Attributes:
        mask: bool (h, w), what was taken away.
        fill: what stands there instead.
        picture: RGB, what the models saw.
        changes: one per model.
        before: the verdict on the whole picture, of the models that answered twice.
        after: the verdict without the region; ``None`` where none answered or their labels differ.
        problems: models that could not be asked again.
    """

    mask: Mask
    fill: Fill
    picture: Image.Image
    changes: tuple[Change, ...]
    before: Verdict | None
    after: Verdict | None
    problems: tuple[Problem, ...] = ()

    @property
    def share(self) -> float:
        """Part of the picture's area that was taken away."""
        return float(self.mask.mean())


def ask_without(examination: Examination, loader: ModelLoader, mask: Mask, fill: Fill) -> WhatIf:
    """Every model of an examination asked again, without a region of the picture.

    Args:
        examination: with predictions.
        loader: as it was examined with.
        mask: bool (h, w) at the picture's size.
        fill: what stands there instead.

    Raises:
        ExhibitError: no model has answered yet, or the region is empty.
    """
    if not examination.predictions:
        raise ExhibitError("no model has answered yet, so nothing can change; examine the picture first.")
    if not mask.any():
        raise ExhibitError("the region is empty; choose a part of the picture.")
    picture = Remover(examination.source.rgb, fill)(mask)
    after: list[Prediction] = []
    problems: list[Problem] = []
    for prediction in examination.predictions:
        try:
            live = load_explainable(loader, prediction.model_id, examination.settings)
            after += live.predict([picture])
        except ExhibitError as error:
            LOGGER.warning("%s: %s", prediction.model_id, error)
            problems.append(Problem(prediction.model_id, str(error)))
    changes = changes_of(examination.predictions, after)
    accuracies = {spec.id: spec.accuracy for spec in loader.zoo.specs.values()}
    verdicts: tuple[Verdict | None, Verdict | None] = (None, None)
    try:
        if changes:
            verdicts = (
                combine([one.before for one in changes], accuracies),
                combine([one.after for one in changes], accuracies),
            )
    except ExhibitError as error:  # models of one task that use different labels
        problems.append(Problem("verdict", str(error)))
    return WhatIf(mask, fill, picture, changes, *verdicts, tuple(problems))


def find_evidence(
    examination: Examination,
    loader: ModelLoader,
    heatmap: Heatmap,
    fill: Fill,
    told: Callable[[int], None] | None = None,
) -> Evidence:
    """The smallest hottest regions of a map that decide what its model says.

    Args:
        examination: of the picture.
        loader: as it was examined with.
        heatmap: one of the examination's.
        fill: what stands where the picture was taken away.
        told: is called with the number of questions asked so far before each; what it raises ends the search.

    Raises:
        ExhibitError: the model cannot be had.
    """
    live = load_explainable(loader, heatmap.model_id, examination.settings)
    asked = 0

    def ask(picture: Image.Image) -> str:
        nonlocal asked
        if told is not None:
            told(asked)
        asked += 1
        return live.predict([picture])[0].label

    return smallest_evidence(examination.source.rgb, heatmap, ask, fill)
