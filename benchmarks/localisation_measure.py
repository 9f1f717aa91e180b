"""Maps held against what decides: figures per set, model and method with intervals, and what chance reaches."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.localisation_sets import DATA, Case, GroundTruth
from explain.cam import explain_batch
from explain.catalog import CATALOG
from explain.faithfulness_controls import centre_gaussian, correlation_length, random_maps, smoothness_groups
from explain.localisation import FIGURES, THRESHOLDS, TOLERANCE_PX, Localisation, localise
from models.errors import ExhibitError
from models.intervals import Estimate, Figures, Weights, estimate
from models.loading import ModelLoader
from models.schema import LiveModel

__all__ = [
    "OWN",
    "SCORE",
    "Measured",
    "Row",
    "find_model",
    "find_winners",
    "measure",
    "measure_sets",
    "read_results",
    "summarise",
]

Maps = NDArray[np.float32]
Mask = NDArray[np.bool_]

OWN, CHANCE, CENTRE, LEAD = "own", "random", "centre", "lead"
SCORE = "score"
"""The mean over all figures of what a method is ahead of random maps: by this one, methods are ranked."""

METHODS = tuple(name for name, entry in CATALOG.items() if not entry.signed)
"""Those that share one pass; signed attributions have no heat to lie anywhere."""

RANDOM, SEEDS = 10, 5
"""Random maps per picture and smoothness, and how many such handfuls take turns over the pictures."""

FEWEST = 10
"""Cases below which no interval can be given."""

RESAMPLES = 1000

WORK_PX = 128
"""Longer side at which maps and regions are compared: the maps' own cells are coarser still."""

_NOTHING = Localisation(0.0, 0.0, 0.0, np.zeros_like(THRESHOLDS))

_log = logging.getLogger(__name__)


@dataclass
class Measured:
    """What the maps of one set and model reached.

    Attributes:
        asked: cases asked.
        right: of these, those that the model got right; all, where a question has no right answer.
        pictures: number of the picture of each case measured.
        own: method to what its map of each such case reached; ``None`` where it gave none.
        chance: method to the mean of random maps as smooth as its own.
        centre: of the blob in the centre.
    """

    asked: int = 0
    right: int = 0
    pictures: list[int] = field(default_factory=list)
    own: dict[str, list[Localisation | None]] = field(default_factory=lambda: {method: [] for method in METHODS})
    chance: dict[str, list[Localisation]] = field(default_factory=lambda: {method: [] for method in METHODS})
    centre: list[Localisation] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        set: name of the set.
        model: zoo id.
        kind: of the model.
        method: catalog name.
        asked: cases asked.
        right: of these, those that the model got right.
        measured: cases whose maps are measured: those it got right, or all where it was not taught the question.
        empty: of these, those of which the method gave no map; they count as finding nothing.
        figures: figure to ``own``, ``random``, ``centre`` and ``lead`` (own less random), each with its interval.
    """

    set: str
    model: str
    kind: str
    method: str
    asked: int
    right: int
    measured: int
    empty: int
    figures: Mapping[str, Mapping[str, Estimate]]

    def value(self, figure: str, part: str = OWN, end: str = "value") -> float:
        """A number of the line; 0 where it is not defined."""
        return self.figures[figure][part][end] or 0.0

    def to_json(self) -> dict[str, Any]:
        """The line as the results file holds it: value, and lower and upper end of the interval where there is one."""
        ends = {OWN: ("value", "low", "high"), LEAD: ("value", "low", "high"), CHANCE: ("value",), CENTRE: ("value",)}
        return vars(self) | {
            "figures": {
                name: {
                    part: [None if one[end] is None else round(one[end] or 0.0, 3) for end in ends[part]]
                    for part, one in parts.items()
                }
                for name, parts in self.figures.items()
            }
        }


def read_results(file: Path) -> tuple[list[Row], list[dict[str, str]]]:
    """The lines of a results file, their figures as rounded there, and what was not there; none where it is missing."""
    if not file.exists():
        return [], []
    ends = ("value", "low", "high")
    rows = []
    results = json.loads(file.read_text(encoding="utf-8"))
    for stored in results["rows"]:
        figures: dict[str, dict[str, Estimate]] = {
            name: {part: dict(zip(ends, numbers, strict=False)) for part, numbers in parts.items()}
            for name, parts in stored["figures"].items()
        }
        rows.append(Row(**(stored | {"figures": figures})))
    return rows, results["missing"]


def measure_sets(loader: ModelLoader, sets: Iterable[GroundTruth], most: int) -> tuple[list[Row], list[dict[str, str]]]:
    """Every set with every model of it, and what is not here with the reason.

    Args:
        loader: of models.
        sets: those to measure.
        most: cases of each.
    """
    rows: list[Row] = []
    missing: list[dict[str, str]] = []
    for truth in sets:
        for model_id in truth.models:
            try:
                live = find_model(loader, model_id, truth)
                measured = measure(truth.cases(live), most, only_right=truth.taught)
                rows += summarise(truth.name, live, measured)
                _log.info("%s, %s: right on %d of %d", truth.name, model_id, measured.right, measured.asked)
            except ExhibitError as error:
                reason = " ".join(str(error).split())[:300]
                _log.info("%s, %s: not here: %s", truth.name, model_id, reason)
                missing.append({"set": truth.name, "model": model_id, "reason": reason})
    return rows, missing


def find_model(loader: ModelLoader, model_id: str, truth: GroundTruth | None = None) -> LiveModel:
    """The model itself, never what would stand in for it.

    Raises:
        ExhibitError: it, or the data of the set if one is given, is not here.
    """
    if truth and truth.needs and not (DATA / truth.needs).exists():
        raise ExhibitError(f"the set needs ../shared/data/{truth.needs}")
    live = loader.load(model_id)
    if live.status.reason or not isinstance(live, LiveModel):
        raise ExhibitError(live.status.reason or f"{model_id} gives no heatmaps")
    return live


def measure(cases: Iterator[Case], most: int, *, only_right: bool) -> Measured:
    """The maps of cases held against the region and both controls.

    Args:
        cases: of one model.
        most: of these, how many at most.
        only_right: leave out the maps of wrong answers.
    """
    result = Measured()
    for case in islice(cases, most):
        result.asked += 1
        explained = explain_batch(case.live, [case.image], methods=METHODS, targets=[case.target])[0]
        right = case.label in (None, explained.prediction.label)
        result.right += right
        if only_right and not right:
            continue
        region, tolerance_px = shrink(case)
        rows, cols = region.shape
        maps = {one.method: one.at((cols, rows)) for one in explained.heatmaps}
        centre = localise(centre_gaussian((rows, cols)), region, tolerance_px)
        chance = _chance(maps, region, tolerance_px, seed=result.asked)
        lent = next(iter(chance.values()), centre)  # for a method without a map
        for method in METHODS:
            result.own[method].append(localise(maps[method], region, tolerance_px) if method in maps else None)
            result.chance[method].append(chance.get(method, lent))
        result.centre.append(centre)
        result.pictures.append(case.picture)
    return result


def shrink(case: Case) -> tuple[Mask, float]:
    """A case's region at the working size, and the tolerance of the pointing game there."""
    height, width = case.truth.shape
    factor = min(1.0, WORK_PX / max(height, width))
    size = max(round(width * factor), 2), max(round(height * factor), 2)
    share = cv2.resize(case.truth.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    region = share > 0.5
    # A line thinner than a working pixel is nowhere more than half of one.
    return (region if region.any() else share >= share.max()), TOLERANCE_PX * factor


def _chance(maps: Mapping[str, Maps], region: Mask, tolerance_px: float, *, seed: int) -> dict[str, Localisation]:
    """What random maps as smooth as each map reach in the mean."""
    methods = list(maps)
    lengths = [correlation_length(maps[method]) for method in methods]
    found: dict[str, Localisation] = {}
    for members in smoothness_groups(lengths):
        length = float(np.exp(np.mean(np.log([lengths[index] for index in members]))))
        step = round(float(np.log(length)) * 10)  # lengths a tenth apart share random maps
        fields = _random_maps(step, (region.shape[0], region.shape[1]), seed % SEEDS)
        reached = [localise(one, region, tolerance_px) for one in fields]
        mean = Localisation(
            pointing=float(np.mean([one.pointing for one in reached])),
            energy=float(np.mean([one.energy for one in reached])),
            rank=float(np.mean([one.rank for one in reached])),
            ious=np.mean([one.ious for one in reached], axis=0),
        )
        found |= dict.fromkeys((methods[index] for index in members), mean)
    return found


@lru_cache(maxsize=512)
def _random_maps(step: int, shape: tuple[int, int], seed: int) -> Maps:
    return random_maps(float(np.exp(step / 10)), shape, RANDOM, seed)


def summarise(name: str, live: LiveModel, measured: Measured) -> list[Row]:
    """One line per method.

    Raises:
        ExhibitError: too few cases are left.
    """
    if len(measured.pictures) < FEWEST:
        raise ExhibitError(f"right on {measured.right} of {measured.asked}: too few maps to say anything of them")
    groups = np.unique(measured.pictures, return_inverse=True)[1].astype(np.int64)
    rows = []
    for method in METHODS:
        own = [one or _NOTHING for one in measured.own[method]]
        tables = {OWN: _stack(own), CHANCE: _stack(measured.chance[method]), CENTRE: _stack(measured.centre)}

        def figures(weights: Weights, tables: Mapping[str, NDArray[np.float64]] = tables) -> Figures:
            parts = {part: _figures_of(weights, table) for part, table in tables.items()}
            parts[LEAD] = {figure: parts[OWN][figure] - parts[CHANCE][figure] for figure in FIGURES}
            flat = {f"{figure} {part}": value for part, one in parts.items() for figure, value in one.items()}
            return flat | {f"{SCORE} {LEAD}": float(np.mean(list(parts[LEAD].values())))}

        found = estimate(figures, len(own), groups=groups, resamples=RESAMPLES)
        told: dict[str, dict[str, Estimate]] = {}
        for key, value in found.items():
            figure, part = key.split()
            told.setdefault(figure, {})[part] = value
        empty = sum(one is None for one in measured.own[method])
        counts = (measured.asked, measured.right, len(own), empty)
        rows.append(Row(name, live.spec.id, live.spec.kind, method, *counts, told))
    return rows


def _stack(found: Sequence[Localisation]) -> NDArray[np.float64]:
    """(cases, 3 + thresholds)."""
    return np.array([[one.pointing, one.energy, one.rank, *one.ious] for one in found])


def _figures_of(weights: Weights, table: NDArray[np.float64]) -> Figures:
    mean = weights @ table / max(int(weights.sum()), 1)
    return {"pointing": mean[0], "energy": mean[1], "rank": mean[2], "iou": mean[3:].max()}


def find_winners(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Kind of model to the method that is farthest ahead of random maps, in the mean over that kind's sets and models.

    A method that ignores the label cannot win: its map is no evidence for one. Where no method is surely ahead of
    random maps, the model does not look at the region, which says nothing about methods: such a set does not count.

    Of methods that are equal to four digits, as Grad-CAM and HiResCAM are before pooling, the catalog's first wins.

    Args:
        rows: of sets whose models were taught what they are asked.
    """
    told: dict[str, list[list[Row]]] = {}
    for _, group in groupby(rows, key=lambda row: (row.set, row.model)):
        able = [row for row in group if CATALOG[row.method].class_aware]
        if able and max(row.value(SCORE, LEAD, "low") for row in able) > 0:
            told.setdefault(able[0].kind, []).append(able)
    winners = {}
    for kind, tables in told.items():
        scores = {
            row.method: round(float(np.mean([table[place].value(SCORE, LEAD) for table in tables])), 4)
            for place, row in enumerate(tables[0])
        }
        best = max(scores, key=scores.__getitem__)
        hits = [next(row for row in table if row.method == best) for table in tables]
        winners[kind] = {
            "method": best,
            "scores": scores,
            "pointing": round(float(np.mean([row.value("pointing") for row in hits])), 4),
            "chance": round(float(np.mean([row.value("pointing", CHANCE) for row in hits])), 4),
            "sets": [f"{table[0].set}/{table[0].model}" for table in tables],
        }
    return winners
