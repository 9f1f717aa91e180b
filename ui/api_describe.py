"""Values of the rooms as the JSON that the page's endpoints answer with."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from explain.difference import DifferenceMap
from explain.examination import Examination
from explain.faithfulness_sanity import describe_check
from explain.faithfulness_schema import describe_faithfulness
from explain.schema import Heatmap, WordAttribution
from explain.stability import describe_stability
from models.schema import ModelStatus, Prediction
from ui.inventory import Holding

__all__ = ["Json", "describe", "describe_heatmap", "describe_holding", "describe_prediction"]

# Enough for the ends and the mean of a map of some dozen cells a side.
DIFFERENCE_SIDE_PX = 256
Json = dict[str, Any]


def describe(examination: Examination) -> Json:
    """An examination as JSON: what the endpoint ``examine`` answers."""
    verdict, found = examination.verdict, examination.detections
    return {
        "image": {
            "name": examination.source.name,
            "sha256": examination.source.sha256,
            "size_wh": list(examination.source.size_wh),
            "notes": list(examination.source.notes),
            "credentials": asdict(examination.credentials) if examination.credentials else None,
        },
        "verdict": asdict(verdict) if verdict else None,
        "predictions": [describe_prediction(prediction) for prediction in examination.predictions],
        "base_predictions": [describe_prediction(prediction) for prediction in examination.base_predictions],
        "heatmaps": [describe_heatmap(heatmap) for heatmap in examination.heatmaps],
        "differences": [_describe_difference(difference) for difference in examination.differences],
        "words": [_describe_words(words) for words in examination.words],
        "detections": None
        if found is None
        else [
            {"label": label, "confidence": float(confidence), "box_xyxy": [float(edge) for edge in box]}
            for label, confidence, box in zip(found.labels, found.confidence, found.xyxy, strict=True)
        ],
        "faithfulness": [describe_faithfulness(found) for found in examination.faithfulness],
        "stability": [describe_stability(found) for found in examination.stability],
        "randomisation": [describe_check(found) for found in examination.checks],
        "problems": [asdict(problem) for problem in examination.problems],
        "timings_s": examination.timings_s,
        "stage": examination.stage,
        "done": examination.done,
        "complete": examination.complete,
    }


def describe_prediction(prediction: Prediction) -> Json:
    """What one model says."""
    return {
        "model": prediction.model_id,
        "label": prediction.label,
        "probabilities": prediction.probabilities,
        "latency_s": prediction.latency_s,
        "status": _describe_status(prediction.status),
        "question": prediction.question,
        "style": prediction.style,
        "temperature": prediction.temperature,
        "raw_probabilities": prediction.raw,
        "expected": asdict(prediction.expected) if prediction.expected else None,
        "novelty": asdict(prediction.novelty) if prediction.novelty else None,
    }


def describe_heatmap(heatmap: Heatmap) -> Json:
    """What a map is, without its values."""
    return {
        "model": heatmap.model_id,
        "method": heatmap.method,
        "target": heatmap.target,
        "layer": heatmap.layer,
        "raw_min": heatmap.raw_min,
        "raw_max": heatmap.raw_max,
        "grid_rc": list(heatmap.grid_rc),
        "signed": heatmap.signed,
        "convergence_delta": heatmap.delta,
    }


def _describe_difference(difference: DifferenceMap) -> Json:
    """Which two maps differ and the raw range that both are scaled by; the change as parts of that range."""
    width, height = difference.tuned.size_wh
    shrink = min(1.0, DIFFERENCE_SIDE_PX / max(width, height))
    values = difference.at((max(1, round(width * shrink)), max(1, round(height * shrink))))
    return {
        "model": difference.tuned.model_id,
        "base": difference.base.model_id,
        "method": difference.tuned.method,
        "target": difference.tuned.target,
        "layer": difference.tuned.layer,
        "scale": list(difference.scale),
        "mean": float(values.mean()),
        "lowest": float(values.min()),
        "highest": float(values.max()),
    }


def _describe_words(words: WordAttribution) -> Json:
    return {
        "model": words.model_id,
        "target": words.target,
        "question": words.question,
        "words": [
            {"word": word, "score": score, "share": share}
            for word, score, share in zip(words.words, words.scores.tolist(), words.shares.tolist(), strict=True)
        ],
    }


def describe_holding(holding: Holding) -> Json:
    """A model of the inventory."""
    told = ("id", "name", "task", "kind", "family", "licence", "access", "trained_on", "accuracy", "question")
    spec, here = holding.spec, next(iter(holding.needs_mb.values()))
    sizes = {"size_mb": spec.size_mb, "memory_mb": here, "loaded": holding.loaded}
    return spec.model_dump(include=set(told)) | sizes | {"status": _describe_status(holding.status)}


def _describe_status(status: ModelStatus) -> Json:
    return asdict(status) | {"state": status.state.value}
