"""The endpoint ``compare`` for programs: what the Compare tab shows, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.reports import ReportError
from ui.compare_listeners import MAX_COMPARED, Comparer
from ui.compare_shelf import Saved
from ui.compare_upload import read_upload
from ui.services import Services

Json = dict[str, Any]


class CompareEndpoint:
    """The endpoint over the shared services.

    Args:
        services: with the saved reports.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._comparer = Comparer()

    def compare(self, reports: list[str] | None = None, files: list[str] | None = None) -> Json:
        """Set saved evaluations of two to four models against each other: figures, paired differences, disagreements.

        Nothing is computed anew by any model; everything comes from saved reports of the same questions about the same
        pictures.

        Args:
            reports: Keys of saved reports, as `known` in the answer lists them; empty to compare only `files`.
            files: Reports of your own: a report.json each, or the zip file of a report's folder.

        Returns:
            `known`: the saved reports (key, name, model, evaluation, kind, rows, generated), of which those with the
            same `evaluation` can be compared. `reports`: the chosen ones with their figures (each value with its 95 %
            interval), per-class figures, confusion matrix, calibration and loss curve. `comparison`, null for fewer
            than two: `contrasts` (differences of each pair with paired 95 % intervals, wins, losses, p_value of
            McNemar's exact test) and `disagreements` (sha256, source, question, truth, what each gave, who was right).
            `generated` tells that the pictures were drawn by a program and are no photographs.
        """
        saved = self._services.reports.list_saved()
        chosen = (*_pick(saved, reports or ()), *(read_upload(Path(file), Path(file).name) for file in files or ()))
        if len(chosen) > MAX_COMPARED:
            raise ReportError(f"{len(chosen)} reports were given; compare at most {MAX_COMPARED} at a time.")
        comparison = self._comparer.compare(chosen) if len(chosen) > 1 else None
        return {
            "known": [_describe(each) for each in saved],
            "reports": [_describe(each) | _measures(each) for each in chosen],
            "comparison": comparison.model_dump(mode="json") if comparison else None,
        }


def _pick(saved: Sequence[Saved], keys: Sequence[str]) -> tuple[Saved, ...]:
    known = {each.key: each for each in saved}
    unknown = [key for key in keys if key not in known]
    if unknown:
        there = ", ".join(known) or "none, start app.py with --reports DIR"
        raise ReportError(f"no report is called {unknown[0]!r}; known are: {there}.")
    return tuple(known[key] for key in dict.fromkeys(keys))


def _describe(saved: Saved) -> Json:
    told = {"name", "model", "base", "status", "kind", "question", "style", "generated"}
    facts = saved.report.model_dump(mode="json", include=told)
    return {"key": saved.key, "evaluation": saved.evaluation, "rows": len(saved.report.rows)} | facts


def _measures(saved: Saved) -> Json:
    told = {"figures", "per_class", "confusion", "calibration", "loss", "data", "made_at", "command", "versions"}
    return saved.report.model_dump(mode="json", include=told)
