"""How well claims are told apart: captions of photographs, questions about objects, drawn scenes.

Figures on photographs come from pictures on which neither the image-text model nor the fusion in use was fitted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from benchmarks.report import Figure
from benchmarks.verifier_calibration import GENERAL, fit_photographs
from benchmarks.verifier_data import Asked, Photo, SceneLook, centres_inside, names_box
from models.intervals import Estimate, difference, estimate
from rag.fusion import Fusion
from rag.looks import look_at
from rag.verifier import Verifier

__all__ = ["caption_figures", "casework_figures", "object_figures"]

FOLDS = 5
RESAMPLES = 300
COCO = Path("../shared/data/coco_photos/photos.parquet")
DETECTOR_CARD = Path("assets/bundled/yolov8n-coco/metrics.json")
PUBLISHED = (
    "published for other photographs and questions: PaliGemma mix-224 0.880 random, 0.866 popular; "
    "Qwen2-VL-2B 0.88; PaliGemma mix-448 0.894 random, 0.884 popular"
)
Numbers = NDArray[np.float64]
Truths = NDArray[np.bool_]


def caption_figures(verifier: Verifier, asked: Sequence[Asked], *, resamples: int = RESAMPLES) -> list[Figure]:
    """Figures of every signal and of the fusion, fitted on four fifths of the photographs and measured on the rest."""
    supports, verdicts = _cross_fitted(verifier, asked)
    pictures = np.array([one.picture for one in asked])
    truth = np.array([one.truth for one in asked])
    name = verifier.clip.spec.id
    figures: list[Figure] = []
    for against, said in _SAID.items():
        chosen = np.array([against == "false" or one.kind in ("true", against) for one in asked])
        shown = f"{name}, true captions against {said}"
        whole = np.array([one.signals.values["whole"] for one in asked])
        fused = _auroc(supports[chosen], truth[chosen])
        alone = _auroc(whole[chosen], truth[chosen])
        gain = _estimate(difference(fused, alone), pictures[chosen], resamples)
        single = {key: _single(asked, key, chosen) for key in GENERAL}
        listed = ", ".join(f"{key} {value:.3f}" for key, value in single.items() if value is not None)
        figures += [
            _figure(f"fusion_auroc_{against}", _estimate(fused, pictures[chosen], resamples), None, shown),
            _figure(
                f"whole_auroc_{against}",
                _estimate(alone, pictures[chosen], resamples),
                None,
                shown + "; whole sentence",
            ),
            Figure(
                f"fusion_gain_{against}",
                _known(gain["low"]),
                0.0,
                "higher",
                f"{shown}: lower end of the 95 % interval of the fusion's AUROC less the whole sentence's, paired "
                f"bootstrap over photographs (gain {_known(gain['value']):.3f}, up to {_known(gain['high']):.3f}); "
                f"single signals, each where it is there: {listed}",
            ),
        ]
    yes = verdicts == "supported"
    return [
        *figures,
        Figure(
            "calibration_error_photographs",
            calibration_error(supports, truth),
            None,
            "lower",
            f"{name}: expected calibration error in ten bins of support, true, foreign and replaced captions",
        ),
        Figure(
            "supported_precision_photographs",
            float(truth[yes].mean()) if yes.any() else float("nan"),
            None,
            "higher",
            f"{name}: share of true captions among those called supported, threshold set for 0.9 on the other "
            f"photographs; {yes.mean():.1%} of {len(asked)} captions were called so, "
            f"{(verdicts == 'refuted').mean():.1%} refuted (right in {_share(~truth[verdicts == 'refuted'])})",
        ),
    ]


def casework_figures(verifier: Verifier, scenes: Sequence[SceneLook], seed: int) -> list[Figure]:
    """Figures of the stored head and fusion on scenes of a seed that neither has seen."""
    if verifier.fusion is None:
        raise TypeError("casework is measured with a stored calibration; run python -m benchmarks.verifier_calibration")
    supports, elsewhere, whole, truth, owners, kinds = [], [], [], [], [], []
    hits, chance = [], []
    for number, scene in enumerate(scenes):
        claims = (*scene.true, *scene.false)
        other = scenes[(number + 1) % len(scenes)]
        found = verifier.measure(scene.look, claims)
        supports += [verifier.fusion.support(one.values) for one in found]
        elsewhere += [verifier.fusion.support(one.values) for one in verifier.measure(other.look, claims)]
        whole += [one.values["whole"] for one in found]
        truth += [True] * len(scene.true) + [False] * len(scene.false)
        owners += [number] * len(claims)
        kinds += [scene.kind.split("/")[0]] * len(claims)
        inside = centres_inside(scene.look.boxes, scene.boxes_xyxy)
        for claim, one in zip(scene.true, found, strict=False):
            if one.region_xyxy is not None and names_box(claim, scene.box_labels):
                hits.append(bool(centres_inside([one.region_xyxy], scene.boxes_xyxy)[0]))
                chance.append(float(inside.mean()))
    score, true, owner = np.array(supports), np.array(truth), np.array(owners)
    shown = f"{len(scenes)} generated scenes of seed {seed} (calibrated on seed {verifier.fusion.data['scenes_seed']})"
    by_kind = ", ".join(
        f"{kind} {roc_auc_score(true[np.array(kinds) == kind], score[np.array(kinds) == kind]):.3f}"
        for kind in sorted(set(kinds))
    )
    fused = _estimate(_auroc(score, true), owner)
    alone = roc_auc_score(true, np.array(whole))
    return [
        _figure(
            "fusion_auroc_casework",
            fused,
            0.95,
            f"{shown}, {len(true)} claims, half of them with one thing changed; {by_kind}; whole sentence alone "
            f"{alone:.3f}; the same claims judged on another scene, which is what their wording gives away, "
            f"{roc_auc_score(true, np.array(elsewhere)):.3f}",
        ),
        Figure(
            "region_hit_rate_casework",
            float(np.mean(hits)),
            0.85,
            "higher",
            f"{shown}: centre of the best region in a box that the claim names, or within 15 px of it, "
            f"{len(hits)} true claims; a region drawn at random {np.mean(chance):.3f}",
        ),
        Figure(
            "calibration_error_casework",
            calibration_error(score, true),
            None,
            "lower",
            f"{shown}: expected calibration error in ten bins of support",
        ),
        _precision("supported_precision_casework", verifier.fusion, score, true, shown),
    ]


def object_figures(verifier: Verifier) -> list[Figure]:
    """Is there a ...? As many objects that are there as are not per photograph, as POPE asks (arXiv:2305.10355)."""
    photos = list(_held_out())
    names = verifier.detector.names if verifier.detector else ()
    common = _by_frequency(photos)
    figures = []
    looks = [look_at(photo.open(), verifier.clip, verifier.detector) for photo in photos]
    low = (
        [verifier.detector.detect([photo.open()], confidence=0.01)[0] for photo in photos] if verifier.detector else []
    )
    random = np.random.default_rng(0)
    for style in ("random", "popular"):
        rows, truth, owner = [], [], []
        for number, photo in enumerate(photos):
            there = sorted(set(photo.labels))
            away = [name for name in (common if style == "popular" else names) if name not in there]
            drawn = away if style == "popular" else random.permutation(away).tolist()
            asked = there[:3]
            for name in (*asked, *drawn[: len(asked)]):
                texts = verifier.clip.embed_texts([f"a photo of a {name}", *(f"a photo of a {one}" for one in names)])
                cosines = np.vstack([looks[number].whole, looks[number].regions]) @ texts.T
                certain = [
                    c for label, c in zip(low[number].labels, low[number].confidence, strict=True) if label == name
                ]
                margin = cosines[:, 0].max() - np.median(cosines[:, 1:].max(0))
                rows.append([np.log(max([*certain, 0.005])), cosines[0, 0] - np.median(cosines[0, 1:]), margin])
                truth.append(name in there)
                owner.append(number)
        right = _twofold(np.array(rows), np.array(truth), np.array(owner))
        score = _estimate(_accuracy(right), np.array(owner))
        figures.append(
            _figure(
                f"object_accuracy_{style}",
                score,
                None,
                f"{len(right)} questions about {len(photos)} COCO photographs that the bundled detector was not "
                f"fine-tuned on, half of them yes, {verifier.clip.spec.id} and the detector, fitted on one half of the "
                f"photographs and measured on the other, in turn; {PUBLISHED}",
            )
        )
    return figures


def calibration_error(scores: Numbers, truth: Truths, bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015): mean distance of score and share of truth over equal bins."""
    places = np.minimum((scores * bins).astype(int), bins - 1)
    parts = [(places == at) for at in range(bins) if (places == at).any()]
    return float(sum(part.mean() * abs(scores[part].mean() - truth[part].mean()) for part in parts))


_SAID = {
    "false": "all false ones, of both kinds",
    "foreign": "captions of other photographs",
    "replaced": "the same with one word replaced",
}


def _cross_fitted(verifier: Verifier, asked: Sequence[Asked]) -> tuple[Numbers, NDArray[np.str_]]:
    """Support and verdict of every caption by a fusion that has not seen its photograph."""
    folds = np.array([one.picture % FOLDS for one in asked])
    supports, verdicts = np.zeros(len(asked)), np.full(len(asked), "", dtype="<U20")
    for fold in range(FOLDS):
        fusion = fit_photographs(verifier.clip, [one for one, at in zip(asked, folds, strict=True) if at != fold])
        for place in np.flatnonzero(folds == fold).tolist():
            supports[place] = fusion.support(asked[place].signals.values)
            verdicts[place] = fusion.verdict(supports[place])
    return supports, verdicts


def _auroc(scores: Numbers, truth: Truths) -> Callable[[NDArray[np.int64]], dict[str, float]]:
    def statistic(weights: NDArray[np.int64]) -> dict[str, float]:
        return {"value": float(roc_auc_score(truth, scores, sample_weight=weights))}

    return statistic


def _accuracy(right: Truths) -> Callable[[NDArray[np.int64]], dict[str, float]]:
    def statistic(weights: NDArray[np.int64]) -> dict[str, float]:
        return {"value": float(np.average(right, weights=weights))}

    return statistic


def _estimate(
    statistic: Callable[[NDArray[np.int64]], dict[str, float]], owners: NDArray[Any], resamples: int = RESAMPLES
) -> Estimate:
    groups = np.unique(owners, return_inverse=True)[1].astype(np.int64)
    return estimate(statistic, len(owners), groups=groups, resamples=resamples)["value"]


def _single(asked: Sequence[Asked], name: str, chosen: Truths) -> float | None:
    """AUROC of one signal over the claims that have it."""
    rows = [one for one, kept in zip(asked, chosen, strict=True) if kept and name in one.signals.values]
    truth = [one.truth for one in rows]
    if len(set(truth)) < 2:
        return None
    return float(roc_auc_score(truth, [one.signals.values[name] for one in rows]))


def _twofold(rows: Numbers, truth: Truths, owner: NDArray[np.int64]) -> Truths:
    """Where a logistic model that was fitted on the photographs of the other half is right."""
    right = np.zeros(len(truth), dtype=bool)
    for half in (0, 1):
        own = owner % 2 == half
        scale = rows[~own].std(0) + 1e-9
        model = LogisticRegression(max_iter=1000).fit(rows[~own] / scale, truth[~own])
        right[own] = model.predict(rows[own] / scale) == truth[own]
    return right


def _held_out() -> Iterator[Photo]:
    """COCO photographs that the detector's fine-tuning left out and that have no captions."""
    ids = set(json.loads(DETECTOR_CARD.read_text(encoding="utf-8"))["heldout_coco_ids"])
    for row in pq.read_table(COCO).to_pylist():
        if row["coco_id"] in ids and not row["captions"] and row["labels"]:
            yield Photo(row["image"]["bytes"], (), tuple(row["labels"]))


def _by_frequency(photos: Sequence[Photo]) -> list[str]:
    counts: dict[str, int] = {}
    for photo in photos:
        for name in set(photo.labels):
            counts[name] = counts.get(name, 0) + 1
    return sorted(counts, key=lambda name: (-counts[name], name))


def _precision(name: str, fusion: Fusion, scores: Numbers, truth: Truths, shown: str) -> Figure:
    verdicts = np.array([fusion.verdict(score) for score in scores])
    yes, no = verdicts == "supported", verdicts == "refuted"
    return Figure(
        name,
        float(truth[yes].mean()) if yes.any() else float("nan"),
        None,
        "higher",
        f"{shown}: share of true claims among those called supported, threshold set for {fusion.target_precision:g} "
        f"at calibration; {yes.mean():.1%} were called so, {no.mean():.1%} refuted (right in {_share(~truth[no])})",
    )


def _figure(name: str, found: Estimate, bound: float | None, how: str) -> Figure:
    interval = f" (95 % interval {_known(found['low']):.3f} to {_known(found['high']):.3f})"
    return Figure(name, _known(found["value"]), bound, "higher", how + interval)


def _known(value: float | None) -> float:
    return float("nan") if value is None else value


def _share(right: Truths) -> str:
    return f"{right.mean():.1%}" if len(right) else "none"
