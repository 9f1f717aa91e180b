"""How far to believe an answer, as accessible HTML: one calm line each, a word before any colour."""

from __future__ import annotations

from collections.abc import Mapping

from explain.examination import Examination
from explain.stability import Stability
from models.schema import ModelSpec, Prediction, Verdict
from ui.markup import escape, label_word, model_name
from ui.text import say

ALIKE = 0.7
"""Correlation from which a map counts as the same one."""


def render_confidence(language: str, verdict: Verdict, specs: Mapping[str, ModelSpec]) -> str:
    """Below the verdict: how often it is right when as sure, and which models have not seen such pictures."""
    lines = []
    if not verdict.confident:
        share = f"{verdict.probabilities[verdict.label]:.0%}"
        lines.append(say(language, "doubt.lean", label=label_word(language, verdict.label), share=share))
    elif verdict.expected is None:
        lines.append(say(language, "doubt.unexpected"))
    else:
        found = verdict.expected
        lines.append(say(language, "doubt.expected", count=found.pictures, accuracy=f"{found.accuracy:.0%}"))
    if verdict.unfamiliar:
        names = ", ".join(model_name(specs, model_id) for model_id in verdict.unfamiliar)
        lines.append(say(language, "doubt.some", names=names))
    return f'<p class="expected">{escape(" ".join(lines))}</p>'


def render_notes(language: str, examination: Examination) -> dict[str, str]:
    """What stands below each model's name, by its id: doubts first and in bold, then figures."""
    stable = {one.model_id: one for one in examination.stability}
    answers = (*examination.predictions, *examination.base_predictions)
    return {one.model_id: _notes(language, one, stable.get(one.model_id)) for one in answers}


def read_stability(language: str, examination: Examination, model_id: str, method: str) -> str:
    """What small changes of the picture do to a map, in a sentence; empty while that is not known."""
    found = next((one for one in examination.stability if one.model_id == model_id), None)
    lowest = found.correlation(method) if found else None
    if lowest is None:
        return ""
    return say(language, "stability.map" if lowest >= ALIKE else "stability.map_moves", value=f"{lowest:.2f}")


def _notes(language: str, prediction: Prediction, stable: Stability | None) -> str:
    strange = prediction.novelty is not None and prediction.novelty.unfamiliar
    doubts = [say(language, "doubt.unseen")] if strange else []
    figures = [_calibration(language, prediction)]
    if prediction.raw is not None and not strange:
        figures.append(_expected(language, prediction))
    if stable is not None and stable.flips:
        changes = ", ".join(say(language, f"stability.{change}") for change in stable.flips)
        doubts.append(say(language, "stability.flips", changes=changes))
    elif stable is not None:
        figures.append(say(language, "stability.kept", points=f"{100 * stable.spread:.0f}"))
    bold = "".join(f'<span class="note doubtful"><strong>✗ {escape(one)}</strong></span>' for one in doubts)
    return bold + "".join(f'<span class="note">{escape(one)}</span>' for one in figures)


def _calibration(language: str, prediction: Prediction) -> str:
    if prediction.raw is None:
        return say(language, "doubt.raw")
    return say(language, "doubt.calibrated", share=f"{prediction.raw[prediction.label]:.1%}")


def _expected(language: str, prediction: Prediction) -> str:
    found = prediction.expected
    if found is None:
        return say(language, "doubt.model_unknown")
    return say(language, "doubt.model", accuracy=f"{found.accuracy:.0%}", count=found.pictures)
