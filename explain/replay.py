"""Recompute an evidence bundle and say, item by item, what came out the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from explain.bundle import SCHEMA_VERSION, read_parts
from explain.claims_asking import ClaimChecker
from explain.examination import Examination, Settings, examine, measure_faithfulness
from explain.faithfulness import FaithfulnessMeter
from explain.faithfulness_schema import FaithfulnessSettings, describe_faithfulness
from explain.sanity_asking import check_maps
from explain.stability import describe_stability
from explain.stability_asking import measure_stability
from explain.versions import versions
from models.errors import BundleError
from models.imaging import read_image
from models.loading import ModelLoader
from models.schema import Detections, Prediction

# Probabilities and scaled maps may differ by this much between machines, through the order of floating-point sums.
TOLERANCE = 1e-3
Outcome = Literal["equal", "within tolerance", "different"]


@dataclass(frozen=True)
class Comparison:
    """One recomputed item.

    Attributes:
        item: what was compared.
        outcome: whether it came out the same.
        detail: by how much, and why if it is known.
    """

    item: str
    outcome: Outcome
    detail: str = ""


def replay(folder: Path, loader: ModelLoader, image: Path | None = None) -> list[Comparison]:
    """Recompute a bundle on this machine.

    Args:
        folder: the bundle.
        loader: with the zoo that the bundle was made with.
        image: the original file, when the bundle does not hold it.

    Returns:
        One comparison per file hash, prediction, heatmap, detection list, claim and so on.

    Raises:
        BundleError: if the folder is no bundle, or the original is missing or another one.
    """
    manifest = read_manifest(folder)
    original = image or _original(folder, manifest)
    source = read_image(original, manifest["image"]["name"])
    if source.sha256 != manifest["image"]["sha256"]:
        raise BundleError(f"{original} is not the image of this bundle: its SHA-256 is {source.sha256}.")
    again = examine(source, _settings(folder, manifest["settings"]), loader)
    why = _changes(manifest, again)
    problems = {problem.subject: problem.message for problem in again.problems}
    return [
        *_compare_files(folder, manifest),
        *_compare_predictions(manifest["predictions"], again.predictions, problems, why),
        *_compare_predictions(manifest["base_predictions"], again.base_predictions, problems, why),
        *_compare_verdict(manifest, again, why),
        *_compare_heatmaps(folder, manifest, again, why),
        *_compare_words(manifest, again, why),
        *_compare_detections(manifest, again, why),
        *_compare_faithfulness(manifest, again, loader, why),
        *_compare_stability(manifest, again, loader, why),
        *_compare_checks(manifest, again, loader, why),
        *_compare_credentials(manifest["image"], again),
        *_compare_claims(manifest, again, loader, why),
    ]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle.

    Raises:
        BundleError: if there is none, it is damaged, or of a schema this version does not know.
    """
    path = Path(folder) / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"{folder} is no evidence bundle: it has no manifest.json.") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} is damaged; get the bundle again.") from error
    version = manifest.get("schema_version")
    if version not in range(1, SCHEMA_VERSION + 1):
        raise BundleError(f"{path} has schema {version}, this Exhibit reads 1 to {SCHEMA_VERSION}.")
    # The first schema knew no vision-language models, the second no faithfulness, the third no stability and the fourth
    # neither claims nor content credentials; what an earlier one lacks was neither asked for nor made.
    lists = ("base_predictions", "differences", "words", "asked", "faithfulness", "stability", "randomisation")
    return {**{name: [] for name in lists}, "claims": None, **manifest}


def _settings(folder: Path, stored: dict[str, Any]) -> Settings:
    """The settings of a bundle; what an earlier schema lacks keeps its default."""
    known = {item.name for item in fields(Settings)}
    unknown = sorted(stored.keys() - known)
    if unknown or not {"task", "models"} <= stored.keys():
        what = f"settings that this Exhibit does not know ({', '.join(unknown)})" if unknown else "no task or no models"
        raise BundleError(f"{Path(folder) / 'manifest.json'} has {what}; replay it with the Exhibit that made it.")
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
    return Settings(**values)


def _original(folder: Path, manifest: dict[str, Any]) -> Path:
    name = manifest["image"]["original"]
    if name is None:
        raise BundleError("the bundle holds only the hash of the picture; give the file with --image.")
    path = (Path(folder) / name).resolve()
    if path.parent != Path(folder).resolve():
        raise BundleError(f"the manifest points outside the bundle ({name}); do not trust it.")
    return path


def _changes(manifest: dict[str, Any], again: Examination) -> str:
    """Which weights, versions and precisions differ from those that made the bundle, in words."""
    then, now = _weights_then(manifest), _weights_now(again)
    then = {name: weights for name, weights in then.items() if name in now} | manifest["versions"]
    now |= versions()
    then |= {f"precision of {one['model_id']}": one["precision"] for one in manifest["asked"]}
    now |= {f"precision of {one.model_id}": one.precision for one in again.asked}
    return "; ".join(f"{k} {v} then, {now.get(k)} now" for k, v in then.items() if now.get(k) != v)


def _weights_then(manifest: dict[str, Any]) -> dict[str, str]:
    said = [*manifest["predictions"], *manifest["base_predictions"]]
    said += [manifest["detections"]] if manifest["detections"] else []
    return {f"weights of {p['model_id']}": p["status"]["weights_sha256"][:12] for p in said}


def _weights_now(again: Examination) -> dict[str, str]:
    said: list[Prediction | Detections] = [*again.predictions, *again.base_predictions]
    said += [again.detections] if again.detections else []
    return {f"weights of {p.model_id}": p.status.weights_sha256[:12] for p in said}


def _compare_verdict(manifest: dict[str, Any], again: Examination, why: str) -> list[Comparison]:
    then, now = manifest["verdict"], again.verdict
    if then is None:
        return []
    if now is None or then["label"] != now.label:
        said = f"{then['label']} then, {now.label if now else 'none'} now" + (f" ({why})" if why else "")
        return [Comparison("verdict", "different", said)]
    gaps = (abs(share - now.probabilities.get(label, 0.0)) for label, share in then["probabilities"].items())
    return [_judge("verdict", max(gaps), why)]


def _compare_files(folder: Path, manifest: dict[str, Any]) -> list[Comparison]:
    found = []
    for name, expected in manifest["files"].items():
        path = Path(folder) / name
        if not path.is_file():
            found.append(Comparison(f"file {name}", "different", "missing"))
        elif hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            found.append(Comparison(f"file {name}", "different", "changed after the bundle was made"))
        else:
            found.append(Comparison(f"file {name}", "equal"))
    return found


def _judge(item: str, difference: float, why: str) -> Comparison:
    if difference == 0:
        return Comparison(item, "equal")
    if difference <= TOLERANCE:
        return Comparison(item, "within tolerance", f"differs by at most {difference:.1e}")
    return Comparison(item, "different", f"differs by {difference:.1e}" + (f" ({why})" if why else ""))


def _compare_predictions(
    before: Sequence[dict[str, Any]], again: Sequence[Prediction], problems: Mapping[str, str], why: str
) -> list[Comparison]:
    now = {prediction.model_id: prediction for prediction in again}
    found = []
    for then in before:
        item = f"prediction {then['model_id']}"
        prediction = now.get(then["model_id"])
        if prediction is None:
            found.append(Comparison(item, "different", problems.get(then["model_id"], "no answer now")))
            continue
        reason = why
        if then["status"]["weights_sha256"] != prediction.status.weights_sha256:
            reason = f"other weights: {then['status']['loaded_from']} then, {prediction.status.loaded_from} now"
        elif (then.get("question"), then.get("style")) != (prediction.question, prediction.style):
            reason = f"another question: {then.get('question')!r} then, {prediction.question!r} now"
        if then.get("temperature") != prediction.temperature:
            reason = reason or f"temperature {then.get('temperature')} then, {prediction.temperature} now"
        labels = then["probabilities"].keys() | prediction.probabilities.keys()
        gaps = (abs(then["probabilities"].get(k, 0.0) - prediction.probabilities.get(k, 0.0)) for k in labels)
        found.append(_judge(item, max(gaps), reason))
        found += _compare_novelty(then, prediction, reason)
    return found


def _compare_novelty(then: dict[str, Any], prediction: Prediction, why: str) -> list[Comparison]:
    """How unlike the training pictures the picture was and is, where both are known."""
    before, after = then.get("novelty"), prediction.novelty
    if before is None:
        return []
    item = f"novelty {then['model_id']}"
    if after is None or after.threshold != before["threshold"]:
        return [Comparison(item, "different", why or "measured with other statistics then")]
    return [_judge(item, abs(before["distance"] - after.distance) / after.threshold, why)]


def _compare_stability(manifest: dict[str, Any], again: Examination, loader: ModelLoader, why: str) -> list[Comparison]:
    """Every answer and correlation under small changes, measured once more."""
    if not manifest["stability"]:
        return []
    now = {one.model_id: describe_stability(one) for one in measure_stability(again, loader).stability}
    found = []
    for then in manifest["stability"]:
        item = f"stability {then['model_id']}"
        one = now.get(then["model_id"])
        sides = [_stability_numbers(side) for side in (then, one) if side]
        if len(sides) < 2 or sides[0].keys() != sides[1].keys():
            found.append(Comparison(item, "different", "other changes or maps now" if one else "not measured now"))
            continue
        gaps = (abs(value - sides[1][name]) for name, value in sides[0].items())
        found.append(_judge(item, max(gaps, default=0.0), why))
    return found


def _compare_checks(manifest: dict[str, Any], again: Examination, loader: ModelLoader, why: str) -> list[Comparison]:
    """What was left of maps under random weights, drawn from the same seed once more."""
    asked = [(then["model_id"], then["method"]) for then in manifest["randomisation"]]
    if not asked:
        return []
    now = {(one.model_id, one.method): one for one in check_maps(again, loader, asked).checks}
    found = []
    for key, then in zip(asked, manifest["randomisation"], strict=True):
        item, one = f"randomisation {' '.join(key)}", now.get(key)
        if one is None or len(one.shares) != len(then["shares"]):
            found.append(Comparison(item, "different", "not checked now" if one is None else "other stages now"))
            continue
        gaps = np.abs(np.array([then["rank_correlations"], then["ssim"]]) - [one.rank_correlations, one.ssim])
        found.append(_judge(item, float(gaps.max()), why))
    return found


def _compare_credentials(then: dict[str, Any], again: Examination) -> list[Comparison]:
    """What the picture's signed history says; an earlier schema than the fifth did not keep it."""
    if "credentials" not in then:
        return []
    before, item = then["credentials"], "content credentials"
    now = asdict(again.credentials) if again.credentials else None
    if before == now:
        return [Comparison(item, "equal")]
    if before is None or now is None:
        return [Comparison(item, "different", "none then, some now" if now else "some then, none now")]
    changed = [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]
    said = (f"{name} {before.get(name)!r} then, {now.get(name)!r} now" for name in sorted(changed))
    return [Comparison(item, "different", "; ".join(said))]


def _compare_claims(manifest: dict[str, Any], again: Examination, loader: ModelLoader, why: str) -> list[Comparison]:
    """Every claim held against the picture once more."""
    then = manifest["claims"]
    if then is None:
        return []
    checked = ClaimChecker(loader, then["domain"]).check(again, [one["claim"] for one in then["claims"]])
    if checked.claims is None:
        return [Comparison("claims", "different", checked.problems[-1].message)]
    if checked.claims.weights_sha256 != then["weights_sha256"]:
        why = f"other weights of {checked.claims.model_id}"
    found = []
    for number, (before, now) in enumerate(zip(then["claims"], checked.claims.verdicts, strict=True), 1):
        item = f"claim {number}"
        if before["verdict"] != now.verdict:
            said = f"{before['verdict']} then, {now.verdict} now" + (f" ({why})" if why else "")
            found.append(Comparison(item, "different", said))
        else:
            found.append(_judge(item, abs(before["support"] - now.support), why))
    return found


def _stability_numbers(found: dict[str, Any]) -> dict[str, float]:
    numbers = {}
    for one in found["variants"]:
        numbers[one["change"]] = one["probability"]
        numbers |= {f"{one['change']} {method}": value for method, value in one["correlations"].items()}
    return numbers


def _compare_heatmaps(folder: Path, manifest: dict[str, Any], again: Examination, why: str) -> list[Comparison]:
    found = []
    for then in manifest["heatmaps"]:
        item = f"heatmap {then['model_id']} {then['method']}"
        heatmap = again.heatmap(then["model_id"], then["method"])
        parts = read_parts(Path(folder) / then["array"])
        if heatmap is None or [p.cam.shape for p in heatmap.parts] != [p.cam.shape for p in parts]:
            found.append(Comparison(item, "different", "no such map now" if heatmap is None else "another grid now"))
            continue
        # Relative to the map's own range: raw values have no common unit.
        span = max(then["raw_max"] - then["raw_min"], 1e-12)
        gaps = (float(np.abs(a.cam - b.cam).max()) / span for a, b in zip(parts, heatmap.parts, strict=True))
        found.append(_judge(item, max(gaps), why))
    return found


def _compare_faithfulness(
    manifest: dict[str, Any], again: Examination, loader: ModelLoader, why: str
) -> list[Comparison]:
    """Every figure and the random maps' too, measured once more as the bundle says it was done."""
    if not manifest["faithfulness"]:
        return []
    stored = manifest["faithfulness"][0]["settings"]
    try:
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
        settings = FaithfulnessSettings(**values)
    except TypeError as error:
        raise BundleError(
            f"the bundle measured faithfulness in a way that this Exhibit does not know ({error}); "
            "replay it with the Exhibit that made it."
        ) from error
    measured = measure_faithfulness(again, loader, FaithfulnessMeter(), settings)
    now = {(one.model_id, one.method): describe_faithfulness(one) for one in measured.faithfulness}
    found = []
    for then in manifest["faithfulness"]:
        item = f"faithfulness {then['model_id']} {then['method']}"
        one = now.get((then["model_id"], then["method"]))
        if one is None or one["figures"].keys() != then["figures"].keys():
            found.append(Comparison(item, "different", "not measured now" if one is None else "other figures now"))
            continue
        before, after = (
            np.array([*side["figures"].values(), *(side["badge"] or {"random_gains": []})["random_gains"]])
            for side in (then, one)
        )
        found.append(_judge(item, float(np.abs(before - after).max()), why))
    return found


def _compare_words(manifest: dict[str, Any], again: Examination, why: str) -> list[Comparison]:
    now = {words.model_id: words for words in again.words}
    found = []
    for then in manifest["words"]:
        item = f"words {then['model_id']}"
        words = now.get(then["model_id"])
        if words is None or words.words != tuple(word["text"] for word in then["words"]):
            found.append(Comparison(item, "different", "no scores now" if words is None else "other words now"))
            continue
        before = np.array([word["score"] for word in then["words"]], np.float32)
        span = max(float(np.abs(before).max(initial=0)), 1e-12)
        found.append(_judge(item, float(np.abs(before - words.scores).max(initial=0)) / span, why))
    return found


def _compare_detections(manifest: dict[str, Any], again: Examination, why: str) -> list[Comparison]:
    then = manifest["detections"]
    if then is None:
        return []
    item = "detections"
    if again.detections is None:
        return [Comparison(item, "different", "the detector does not answer now")]
    labels = [entry["label"] for entry in then["objects"]]
    if labels != list(again.detections.labels):
        return [Comparison(item, "different", f"{len(labels)} objects then, {len(again.detections)} now; {why}")]
    if not labels:
        return [Comparison(item, "equal")]
    boxes = np.array([entry["box_xyxy"] for entry in then["objects"]])
    side = max(again.detections.size_wh)
    return [_judge(item, float(np.abs(boxes - again.detections.xyxy).max()) / side, why)]
