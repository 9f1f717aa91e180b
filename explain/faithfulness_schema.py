"""How faithfulness is measured, and what comes out for one heatmap."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from explain.faithfulness_baselines import BaselineName
from explain.faithfulness_controls import Badge, ControlCurves
from explain.faithfulness_metrics import Curve

__all__ = ["FaithfulnessSettings", "MapFaithfulness", "describe_faithfulness"]


@dataclass(frozen=True)
class FaithfulnessSettings:
    """How faithfulness is measured; part of every result.

    Attributes:
        steps: of the insertion and deletion curves.
        insertion_baseline: what a picture grows out of; blur shows a model no edges to take for evidence.
        deletion_baseline: what the hottest pixels are replaced with.
        average_drop: also show the model the map alone.
        road_fractions: parts of the pixels imputed for ROAD; empty leaves ROAD out, which takes seconds.
        infidelity_samples: noises for infidelity; 0 leaves it out.
        sensitivity_samples: pictures nearby whose maps are computed for max-sensitivity; 0 leaves it out.
        random: number of random maps; 0 leaves the badge out.
        badge_steps: steps of the curves by which maps and random maps are compared.
        seed: of random maps and imputation noise.
    """

    steps: int = 20
    insertion_baseline: BaselineName = "blur"
    deletion_baseline: BaselineName = "mean"
    average_drop: bool = True
    road_fractions: tuple[float, ...] = ()
    infidelity_samples: int = 0
    sensitivity_samples: int = 0
    random: int = 20
    badge_steps: int = 4
    seed: int = 0


@dataclass(frozen=True)
class MapFaithfulness:
    """The figures of one heatmap; ``explain.faithfulness_metrics.METRICS`` says what each means.

    Attributes:
        method: catalog name.
        target: as in ``Heatmap``.
        layer: dotted name.
        model_id: zoo id.
        score: of the target for the whole picture.
        insertion: from the baseline to the picture.
        deletion: from the picture to the baseline.
        sparseness: Gini index.
        settings: how it was measured.
        average_drop: ``None`` when not measured, or where the score is no probability.
        increase: ``None`` when not measured.
        infidelity: ``None`` when not measured.
        max_sensitivity: ``None`` when not measured, or where pictures are cut into tiles.
        road: ``None`` when not measured.
        road_curves: hottest first and coldest first, over the same fractions; ``None`` when not measured.
        badge: ``None`` when no random maps were asked for.
    """

    method: str
    target: str
    layer: str
    model_id: str
    score: float
    insertion: Curve
    deletion: Curve
    sparseness: float
    settings: FaithfulnessSettings
    average_drop: float | None = None
    increase: bool | None = None
    infidelity: float | None = None
    max_sensitivity: float | None = None
    road: float | None = None
    road_curves: tuple[Curve, Curve] | None = None
    badge: Badge | None = None

    @property
    def gain(self) -> float:
        """Area under insertion minus area under deletion; about 0 for a map without information."""
        return self.insertion.auc - self.deletion.auc

    @property
    def figures(self) -> dict[str, float]:
        """Every figure that was measured, by its name in ``METRICS``."""
        found = {
            "insertion": self.insertion.auc,
            "deletion": self.deletion.auc,
            "gain": self.gain,
            "road": self.road,
            "average_drop": self.average_drop,
            "increase": None if self.increase is None else float(self.increase),
            "infidelity": self.infidelity,
            "max_sensitivity": self.max_sensitivity,
            "sparseness": self.sparseness,
        }
        return {name: value for name, value in found.items() if value is not None}


def describe_faithfulness(found: MapFaithfulness) -> dict[str, Any]:
    """The result as JSON: figures, curves, badge and settings."""
    badge = found.badge
    return {
        "model_id": found.model_id,
        "method": found.method,
        "target": found.target,
        "layer": found.layer,
        "score": found.score,
        "figures": found.figures,
        "curves": {
            name: {"fractions": curve.fractions.tolist(), "scores": curve.scores.tolist()}
            for name, curve in (("insertion", found.insertion), ("deletion", found.deletion))
        },
        "badge": None
        if badge is None
        else {
            "text": badge.text,
            "trusted": badge.trusted,
            "better_than": badge.better_than,
            "of": len(badge.random),
            "gain": badge.gain,
            "centre_gain": badge.centre_gain,
            "random_gains": badge.random.tolist(),
            "class_blind": badge.class_blind,
            "length_px": badge.length_px,
            "control_px": badge.control_px,
            "curves": _describe_controls(badge.curves),
        },
        "settings": asdict(found.settings),
    }


def _describe_controls(curves: ControlCurves | None) -> dict[str, Any] | None:
    """The blob's curves, and between which scores those of the random maps lie."""
    if curves is None:
        return None
    return {
        "fractions": curves.fractions.tolist(),
        "centre": {"insertion": curves.centre_insertion.tolist(), "deletion": curves.centre_deletion.tolist()},
        "random": {
            name: {"low": scores.min(axis=0).tolist(), "high": scores.max(axis=0).tolist()}
            for name, scores in (("insertion", curves.insertion), ("deletion", curves.deletion))
        },
    }
