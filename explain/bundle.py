"""The evidence bundle: everything about one examination in a folder that another expert can recompute.

Layout: ``manifest.json`` (written last), ``original.FORMAT``, ``picture.png`` (at screen size), ``detections.png``,
``heatmaps/MODEL--METHOD.npz`` with the raw CAMs and the boxes they cover, ``overlays/*.png``, ``differences/*.png``
where a model was compared with its base, ``report.html``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explain import render
from explain.difference import DifferenceMap
from explain.faithfulness_sanity import describe_check
from explain.faithfulness_schema import describe_faithfulness
from explain.regions import heat_in_detections
from explain.report import write_report
from explain.schema import Heatmap, MapPart, WordAttribution
from explain.stability import describe_stability
from explain.versions import versions
from models.errors import BundleError
from models.schema import Detections

if TYPE_CHECKING:
    from explain.examination_schema import CheckedClaims, Examination

SCHEMA_VERSION = 5


def write_bundle(examination: Examination, directory: Path, *, include_original: bool = True) -> Path:
    """Write an examination as a folder, all or nothing.

    Everything is written beside the target and moved there in one step, so that a bundle that exists is whole.

    Args:
        examination: a complete examination.
        directory: the folder to make; its parent is created when missing.
        include_original: put the original bytes in; without them only their hash is kept.

    Returns:
        The folder.

    Raises:
        BundleError: if the folder exists already, the examination is not complete, or the disk refuses.
    """
    directory = Path(directory)
    if directory.exists():
        raise BundleError(f"{directory} exists already and evidence is never overwritten; give another folder.")
    if not examination.complete:
        raise BundleError("the examination is not finished; save it when it is.")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    except OSError as error:
        raise BundleError(f"{directory} cannot be written ({error.strerror}); give a folder that can.") from error
    try:
        _fill(examination, draft, include_original=include_original)
        draft.chmod(0o755)
        draft.rename(directory)
    except OSError as error:
        raise BundleError(f"{directory} cannot be written ({error.strerror}); nothing was kept.") from error
    finally:
        if draft.exists():
            shutil.rmtree(draft)
    return directory


def _fill(examination: Examination, folder: Path, *, include_original: bool) -> None:
    source = examination.source
    original = None
    if include_original:
        original = f"original.{source.format.lower()}"
        (folder / original).write_bytes(source.original)
    screen = render.fit(source.rgb)
    (folder / "heatmaps").mkdir()
    (folder / "overlays").mkdir()
    heatmaps = [_write_heatmap(h, folder, screen) for h in examination.heatmaps]
    differences = [_write_difference(d, folder, screen) for d in examination.differences]
    if examination.detections is not None:
        render.draw_detections(screen, examination.detections).save(folder / "detections.png")
    screen.save(folder / "picture.png")
    manifest = describe(examination)
    manifest["image"]["original"] = original
    for entry, files in zip(manifest["heatmaps"], heatmaps, strict=True):
        entry.update(files)
    for entry, file in zip(manifest["differences"], differences, strict=True):
        entry["overlay"] = file
    write_report(examination, manifest, folder)
    manifest["files"] = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_heatmap(heatmap: Heatmap, folder: Path, screen: Any) -> dict[str, str]:  # noqa: ANN401 - a PIL image
    name = f"{heatmap.model_id}--{heatmap.method}"
    arrays: dict[str, Any] = {f"cam_{i}": part.cam for i, part in enumerate(heatmap.parts)}
    arrays |= {f"box_{i}": np.array(part.box_xyxy, np.float64) for i, part in enumerate(heatmap.parts)}
    np.savez(folder / "heatmaps" / f"{name}.npz", **arrays)
    render.draw_heatmap(screen, heatmap).save(folder / "overlays" / f"{name}.png")
    return {"array": f"heatmaps/{name}.npz", "overlay": f"overlays/{name}.png"}


def _write_difference(difference: DifferenceMap, folder: Path, screen: Any) -> str:  # noqa: ANN401 - a PIL image
    """Only the picture: the arrays are those of the two heatmaps."""
    file = f"differences/{difference.tuned.model_id}--{difference.tuned.method}.png"
    (folder / "differences").mkdir(exist_ok=True)
    render.draw_difference(screen, difference).save(folder / file)
    return file


def read_parts(path: Path) -> tuple[MapPart, ...]:
    """The raw CAMs of one heatmap file.

    Raises:
        BundleError: if the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            count = sum(name.startswith("cam_") for name in arrays.files)
            boxes = [tuple(float(v) for v in arrays[f"box_{i}"]) for i in range(count)]
            return tuple(MapPart(arrays[f"cam_{i}"], (b[0], b[1], b[2], b[3])) for i, b in enumerate(boxes))
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise BundleError(f"{path} is missing or damaged; get the bundle again.") from error


def describe(examination: Examination) -> dict[str, Any]:
    """An examination as JSON: everything but arrays and pictures; the API's answer and the manifest's body."""
    source = examination.source
    return {
        "schema_version": SCHEMA_VERSION,
        "created_utc": examination.created_utc,
        "image": {
            "name": source.name,
            "sha256": source.sha256,
            "format": source.format,
            "size_wh": list(source.size_wh),
            "notes": list(source.notes),
            "exif": source.exif,
            "credentials": asdict(examination.credentials) if examination.credentials else None,
        },
        "settings": asdict(examination.settings),
        "verdict": asdict(examination.verdict) if examination.verdict else None,
        "predictions": [asdict(prediction) for prediction in examination.predictions],
        "base_predictions": [asdict(prediction) for prediction in examination.base_predictions],
        "heatmaps": [_describe_heatmap(heatmap) for heatmap in examination.heatmaps],
        "differences": [_describe_difference(difference) for difference in examination.differences],
        "words": [describe_words(words) for words in examination.words],
        "asked": [asdict(asked) for asked in examination.asked],
        "detections": _describe_detections(examination.detections),
        "faithfulness": [describe_faithfulness(found) for found in examination.faithfulness],
        "stability": [describe_stability(found) for found in examination.stability],
        "randomisation": [describe_check(found) for found in examination.checks],
        "claims": describe_claims(examination.claims) if examination.claims else None,
        "heat_in_detections": _describe_regions(examination),
        "problems": [asdict(problem) for problem in examination.problems],
        "timings_s": examination.timings_s,
        "versions": versions(),
    }


def describe_claims(checked: CheckedClaims) -> dict[str, Any]:
    """Claims held against the picture as JSON, with the model that judged them."""
    from rag.describing import describe_check
    from rag.schema import measure_reliability

    verdicts = checked.verdicts
    told = describe_check(checked.text, verdicts, measure_reliability(verdicts), checked.note)
    judge = {"model_id": checked.model_id, "weights_sha256": checked.weights_sha256, "domain": checked.domain}
    return judge | told


def _describe_heatmap(heatmap: Heatmap) -> dict[str, Any]:
    return {
        "model_id": heatmap.model_id,
        "method": heatmap.method,
        "target": heatmap.target,
        "layer": heatmap.layer,
        "grid_rc": list(heatmap.grid_rc),
        "raw_min": heatmap.raw_min,
        "raw_max": heatmap.raw_max,
        "signed": heatmap.signed,
        "convergence_delta": heatmap.delta,
    }


def _describe_difference(difference: DifferenceMap) -> dict[str, Any]:
    return {
        "model_id": difference.tuned.model_id,
        "base_id": difference.base.model_id,
        "method": difference.tuned.method,
        "target": difference.tuned.target,
        "layer": difference.tuned.layer,
        "scale": list(difference.scale),
    }


def describe_words(words: WordAttribution) -> dict[str, Any]:
    """A word attribution as JSON."""
    scores = words.scores.tolist()
    return {
        "model_id": words.model_id,
        "target": words.target,
        "question": words.question,
        "words": [
            {"text": text, "span": list(span), "score": score}
            for text, span, score in zip(words.words, words.spans, scores, strict=True)
        ],
    }


def _describe_detections(detections: Detections | None) -> dict[str, Any] | None:
    if detections is None:
        return None
    return {
        "model_id": detections.model_id,
        "status": asdict(detections.status),
        "objects": [
            {"label": label, "confidence": float(confidence), "box_xyxy": [float(v) for v in box]}
            for label, confidence, box in zip(detections.labels, detections.confidence, detections.xyxy, strict=True)
        ],
    }


def _describe_regions(examination: Examination) -> list[dict[str, Any]]:
    detections = examination.detections
    if detections is None:
        return []
    return [
        {"model_id": heatmap.model_id, "method": heatmap.method, **asdict(region)}
        for heatmap in examination.heatmaps
        for region in heat_in_detections(heatmap, detections)
    ]
