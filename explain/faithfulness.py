"""Is a heatmap what the model used? Every map of a picture measured together, beside random maps.

All changed pictures of all maps, figures and controls form one list without duplicates, which runs in full batches at
the model's own resolution.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from explain.attribution import infidelity, max_sensitivity
from explain.catalog import get_method
from explain.faithfulness_controls import (
    Badge,
    ControlCurves,
    centre_gaussian,
    correlation_length,
    random_maps,
    smoothness_groups,
)
from explain.faithfulness_metrics import (
    Curve,
    average_drop,
    counts_of,
    increase,
    road_combined,
    sparseness,
)
from explain.faithfulness_probe import Forward, ModelProbe, Probe, make_probe
from explain.faithfulness_schema import FaithfulnessSettings, MapFaithfulness
from explain.faithfulness_variants import Variants
from explain.schema import Heatmap
from explain.targets import Target
from models.clip import ImageTextModel
from models.lean import lean_network
from models.schema import LiveModel

__all__ = ["FaithfulnessMeter", "FaithfulnessSettings", "MapFaithfulness", "badges_of", "measure_maps"]

Maps = NDArray[np.float32]


def measure_maps(
    probe: Probe,
    heatmaps: Sequence[Heatmap],
    settings: FaithfulnessSettings | None = None,
    told: Callable[[float], None] | None = None,
) -> list[MapFaithfulness]:
    """The figures and badges of heatmaps of one picture, model and target.

    Args:
        probe: of that picture, model and target.
        heatmaps: those to measure; one that is not class-aware is measured by the probe's target too.
        settings: how.
        told: is called with the share of the changed pictures scored, in [0, 1]; what it raises ends the measuring.

    Returns:
        One result per heatmap, in order.
    """
    chosen = settings or FaithfulnessSettings()
    if not heatmaps:
        return []
    maps = np.stack([probe.place(heatmap) for heatmap in heatmaps])
    blind = [not get_method(heatmap.method).class_aware for heatmap in heatmaps]
    controls, groups = _controls(maps, chosen)
    everything = np.concatenate([maps, *controls])
    pixels = maps[0].size
    wanted = Variants(pixels)
    whole = wanted.ask("", -1, 0, 0)
    counts = counts_of(pixels, chosen.steps)
    curves = [_ask_curves(wanted, index, counts, chosen) for index in range(len(maps))]
    roads = [_ask_road(wanted, index, pixels, chosen) for index in range(len(maps))]
    rough_counts = counts_of(pixels, chosen.badge_steps)
    rough = [_ask_curves(wanted, index, rough_counts, chosen) for index in range(len(everything))] if controls else []
    scores = wanted.scores(probe, everything, chosen.seed, told)
    evidence = np.stack([_evidence(one, heatmap) for one, heatmap in zip(maps, heatmaps, strict=True)])
    shown = _shown_alone(probe, np.maximum(evidence, 0)) if chosen.average_drop else None
    badges = _badges(maps, blind, groups, [_pair(rough_counts, one, scores) for one in rough]) if controls else None
    found = []
    for index, heatmap in enumerate(heatmaps):
        road = tuple(Curve(np.asarray(chosen.road_fractions), scores[places]) for places in roads[index])
        measured = MapFaithfulness(
            method=heatmap.method,
            target=heatmap.target,
            layer=heatmap.layer,
            model_id=heatmap.model_id,
            score=float(scores[whole]),
            insertion=_curve(counts, curves[index][0], scores),
            deletion=_curve(counts, curves[index][1], scores),
            sparseness=sparseness(np.abs(evidence[index])),
            road=road_combined(road[0].scores, road[1].scores) if road else None,
            road_curves=(road[0], road[1]) if road else None,
            badge=badges[index] if badges else None,
            settings=chosen,
        )
        alone = None if shown is None else float(shown[index])
        found.append(_with_the_rest(measured, probe, heatmap, evidence[index], alone))
    return found


def badges_of(probe: Probe, heatmaps: Sequence[Heatmap], settings: FaithfulnessSettings | None = None) -> list[Badge]:
    """The badges alone, which take a fifth of the passes: maps and random maps on the short curves.

    Raises:
        ValueError: the settings ask for no random maps.
    """
    chosen = settings or FaithfulnessSettings()
    if chosen.random < 1:
        raise ValueError("a badge needs random maps; set `random` to 20 or 100")
    quick = FaithfulnessSettings(
        chosen.badge_steps,
        chosen.insertion_baseline,
        chosen.deletion_baseline,
        average_drop=False,
        random=chosen.random,
        badge_steps=chosen.badge_steps,
        seed=chosen.seed,
    )
    return [one.badge for one in measure_maps(probe, heatmaps, quick) if one.badge is not None]


class FaithfulnessMeter:
    """Measures, and remembers what it measured; safe to share between threads.

    Args:
        kept: results kept, the ones unused longest go first.
    """

    def __init__(self, kept: int = 256) -> None:
        self._kept = kept
        self._results: OrderedDict[tuple[object, ...], MapFaithfulness] = OrderedDict()
        self._lean: WeakKeyDictionary[nn.Module, Forward | None] = WeakKeyDictionary()
        self._guard = Lock()

    def measure(
        self,
        live: LiveModel,
        image: Image.Image,
        heatmaps: Sequence[Heatmap],
        target: Target,
        settings: FaithfulnessSettings | None = None,
        told: Callable[[float], None] | None = None,
    ) -> list[MapFaithfulness]:
        """Figures and badges of heatmaps, those known already without another pass.

        Args:
            live: the model that the heatmaps explain.
            image: RGB, the picture that they explain.
            heatmaps: with ``image_sha256``, or nothing is remembered.
            target: what they explain.
            settings: how.
            told: as for ``measure_maps``.
        """
        chosen = settings or FaithfulnessSettings()
        keys = [_key(live, heatmap, target, chosen) for heatmap in heatmaps]
        with self._guard:
            known = {key: self._results[key] for key in keys if key in self._results}
        missing = [(key, one) for key, one in zip(keys, heatmaps, strict=True) if key not in known]
        if missing:
            probe = make_probe(live, image, target, forward=self._forward(live, image))
            measured = measure_maps(probe, [one for _, one in missing], chosen, told)
            known |= {key: result for (key, _), result in zip(missing, measured, strict=True)}
        with self._guard:
            for key, heatmap in zip(keys, heatmaps, strict=True):
                if heatmap.image_sha256:
                    self._results[key] = known[key]
                    self._results.move_to_end(key)
            while len(self._results) > self._kept:
                self._results.popitem(last=False)
        return [known[key] for key in keys]

    def _forward(self, live: LiveModel, image: Image.Image) -> Forward | None:
        if isinstance(live, ImageTextModel):
            return live.score  # of what this view is asked about, through the one fast tower that all views share
        with self._guard:
            if live.module in self._lean:
                return self._lean[live.module]
        network = lean_network(live, live.prepare([image])) if live.spec.kind == "classifier" else None
        forward = None if network is None else _forward_of(network)
        with self._guard:
            self._lean[live.module] = forward
        return forward


def _forward_of(network: nn.Module) -> Forward:
    """The network as a probe calls it, without the model's lock: the copy is nobody else's."""
    return lambda inputs: network(**inputs)


def _key(live: LiveModel, heatmap: Heatmap, target: Target, settings: FaithfulnessSettings) -> tuple[object, ...]:
    asked = (getattr(live, "question", None), getattr(live, "style", None))
    weights = live.status.weights_sha256 or id(live.module)
    named = (heatmap.method, heatmap.layer, heatmap.target, heatmap.raw_min, heatmap.raw_max)
    return (heatmap.image_sha256, heatmap.model_id, weights, asked, target.name, named, settings)


def _ask_curves(
    wanted: Variants, index: int, counts: Iterable[int], settings: FaithfulnessSettings
) -> tuple[list[int], list[int]]:
    """Places of the scores of a map's insertion and deletion."""
    counts = list(counts)
    insertion = [wanted.ask(settings.insertion_baseline, index, count, counts[-1]) for count in counts]
    return insertion, [wanted.ask(settings.deletion_baseline, index, 0, count) for count in counts]


def _ask_road(wanted: Variants, index: int, pixels: int, settings: FaithfulnessSettings) -> list[list[int]]:
    """Places of the scores of a map's ROAD, hottest first and coldest first; none if ROAD is not asked for."""
    counts = [round(fraction * pixels) for fraction in settings.road_fractions]
    if not counts:
        return []
    most = [wanted.ask("road", index, 0, count) for count in counts]
    return [most, [wanted.ask("road", index, pixels - count, pixels) for count in counts]]


def _with_the_rest(
    measured: MapFaithfulness, probe: Probe, heatmap: Heatmap, values: Maps, alone: float | None
) -> MapFaithfulness:
    """The same with the figures that are no curves; ``alone`` is the score of the map's part of the picture."""
    settings = measured.settings
    if alone is not None:
        drop = average_drop(measured.score, alone) if measured.score > 0 else None
        measured = replace(measured, average_drop=drop, increase=increase(measured.score, alone))
    if settings.infidelity_samples:
        found = infidelity(probe, values, samples=settings.infidelity_samples, seed=settings.seed)
        measured = replace(measured, infidelity=found)
    # A signed map of each picture nearby would take some dozen passes each.
    if settings.sensitivity_samples and isinstance(probe, ModelProbe) and not heatmap.signed:
        moved = max_sensitivity(
            lambda variants: probe.explain(variants, heatmap),
            probe.picture,
            samples=settings.sensitivity_samples,
            seed=settings.seed,
        )
        measured = replace(measured, max_sensitivity=moved)
    return measured


def _evidence(values: Maps, heatmap: Heatmap) -> Maps:
    """A placed map with 0 where nothing speaks: of a signed map, in [-1, 1], that is the middle of its scale."""
    return values * np.float32(2) - np.float32(1) if heatmap.signed else values


def _shown_alone(probe: Probe, maps: Maps) -> NDArray[np.float64]:
    """Scores of the picture times each map."""
    shares = torch.from_numpy(maps).to(probe.picture)[:, None]
    return torch.cat([probe.score(part * probe.picture) for part in shares.split(probe.batch)]).numpy()


def _curve(counts: Sequence[int], places: Sequence[int], scores: NDArray[np.float64]) -> Curve:
    return Curve(np.asarray(counts, np.float64) / counts[-1], scores[list(places)])


def _pair(
    counts: Sequence[int], places: tuple[list[int], list[int]], scores: NDArray[np.float64]
) -> tuple[Curve, Curve]:
    return _curve(counts, places[0], scores), _curve(counts, places[1], scores)


@dataclass(frozen=True)
class _Group:
    """Maps that share random maps: their indices, and where the random ones begin among all maps."""

    members: tuple[int, ...]
    first: int
    count: int
    length_px: float


def _controls(maps: Maps, settings: FaithfulnessSettings) -> tuple[list[Maps], list[_Group]]:
    """The blob in the centre and the random maps, and who is held against which."""
    if settings.random < 1:
        return [], []
    shape = maps.shape[1:]
    lengths = [correlation_length(one) for one in maps]
    controls, groups = [centre_gaussian((shape[0], shape[1]))[None]], []
    first = len(maps) + 1
    for members in smoothness_groups(lengths):
        length = float(np.exp(np.mean(np.log([lengths[index] for index in members]))))
        controls.append(random_maps(length, (shape[0], shape[1]), settings.random, settings.seed))
        groups.append(_Group(tuple(members), first, settings.random, length))
        first += settings.random
    return controls, groups


def _badges(
    maps: Maps, blind: Sequence[bool], groups: Sequence[_Group], pairs: Sequence[tuple[Curve, Curve]]
) -> dict[int, Badge]:
    """Each map against its group's random maps; ``pairs``: curves of maps, blob, random maps."""
    badges = {}
    gains = [insertion.auc - deletion.auc for insertion, deletion in pairs]
    centre = pairs[len(maps)]
    for group in groups:
        members = slice(group.first, group.first + group.count)
        chance = np.asarray(gains[members])
        curves = ControlCurves(
            centre[0].fractions,
            np.stack([insertion.scores for insertion, _ in pairs[members]]),
            np.stack([deletion.scores for _, deletion in pairs[members]]),
            centre[0].scores,
            centre[1].scores,
        )
        for index in group.members:
            badges[index] = Badge(
                better_than=int((chance < gains[index]).sum()),
                random=chance,
                gain=gains[index],
                centre_gain=gains[len(maps)],
                length_px=correlation_length(maps[index]),
                control_px=group.length_px,
                class_blind=blind[index],
                curves=curves,
            )
    return badges
