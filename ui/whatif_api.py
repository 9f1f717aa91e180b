"""The endpoint ``whatif`` for programs: what the What-if panel shows, as JSON and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from explain import render
from explain.examination import Examination
from explain.whatif import Change, Fill, Mask, box_mask, draw_outline, hottest_mask
from explain.whatif_asking import ask_without, find_evidence
from models.errors import ExhibitError
from models.schema import Box, Verdict
from ui import pictures
from ui.services import Services

Json = dict[str, Any]
SIDE_PX = 2048


class WhatIfEndpoint:
    """The endpoint over the shared services.

    Args:
        services: with the models.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    def whatif(
        self,
        image: str,
        task: str = "deepfake",
        models: list[str] | None = None,
        box: list[float] | None = None,
        hottest: float = 0.1,
        model: str = "",
        method: str = "gradcampp",
        fill: Fill = "blur",
        evidence: bool = False,
    ) -> tuple[Json, list[str]]:
        """Take a region of a picture away, and ask every model again about what is left.

        Args:
            image: The picture file.
            task: The question, one of the tasks that the endpoint `models` lists.
            models: Ids from the endpoint `models`; empty for the ones that are ready on this machine.
            box: The region as two opposite corners in pixels, [x1, y1, x2, y2]; empty for the hottest part of a map.
            hottest: Share of the picture's area that is taken away where no box is given, in (0, 1].
            model: Id of the model whose map says what is hottest; empty for the first.
            method: Heatmap method of that map.
            fill: What stands there instead: "blur", "mean" (colour) or "inpaint".
            evidence: Whether to look also for the smallest hottest regions of that map whose removal changes what its
                model says, and which alone keep it (some thirty further passes).

        Returns:
            The changes (each model's label and probabilities before and after, `flipped`, the verdicts, the share of
            the area taken away; with `evidence` also `smallest`: the shares that flip and that keep, null where none
            does), and PNG files: the region outlined, what the models saw, and the outlines of the evidence.
        """
        examination = self._examine(image, task, models, method)
        heatmap = examination.heatmap(model or examination.settings.models[0], method)
        if heatmap is None and (evidence or not box):
            reasons = " ".join(problem.message for problem in examination.problems)
            raise ExhibitError(reasons or f"{model!r} gives no map by {method}; choose another or send a `box`.")
        mask = box_mask(examination.source.size_wh, _corners(box)) if box else None
        if mask is None and heatmap is not None:
            mask = hottest_mask(heatmap, hottest)
        assert mask is not None  # noqa: S101 - one of the two was given
        found = ask_without(examination, self._services.loader, mask, fill)
        answer: Json = {
            "share": found.share,
            "fill": fill,
            "changes": [_describe(change) for change in found.changes],
            "verdict": {"before": _verdict(found.before), "after": _verdict(found.after)},
            "problems": [problem.message for problem in (*examination.problems, *found.problems)],
            "smallest": None,
        }
        files = [_outline(examination, mask, "removed"), pictures.write_png(found.picture, "seen.png")]
        if evidence and heatmap is not None:
            least = find_evidence(examination, self._services.loader, heatmap, fill)
            answer["smallest"] = {
                "model": heatmap.model_id,
                "label": least.label,
                "flips_share": least.flips_share,
                "flipped_to": least.flipped_to,
                "keeps_share": least.keeps_share,
            }
            outlined = (("flips", least.flips), ("keeps", least.keeps))
            files += [_outline(examination, part, name) for name, part in outlined if part is not None and part.any()]
        return answer, [str(file) for file in files]

    def _examine(self, image: str, task: str, models: list[str] | None, method: str) -> Examination:
        if not image:
            raise ExhibitError("no image was given; send a picture file as `image`.")
        settings = self._services.settings(task, tuple(models or ()), (method,))
        *_, examination = self._services.examine(self._services.read(Path(image), Path(image).name), settings)
        return examination


def _corners(box: list[float]) -> Box:
    numbers = [float(edge) for edge in box if isinstance(edge, int | float)]
    if len(numbers) != 4 or len(box) != 4:
        raise ExhibitError(f"`box` is {box}; send two opposite corners in pixels, [x1, y1, x2, y2].")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _outline(examination: Examination, mask: Mask, name: str) -> Path:
    photo = render.fit(examination.source.rgb, SIDE_PX)
    return pictures.write_png(draw_outline(photo, mask), f"{name}.png")


def _describe(change: Change) -> Json:
    return {
        "model": change.before.model_id,
        "before": {"label": change.before.label, "probabilities": change.before.probabilities},
        "after": {"label": change.after.label, "probabilities": change.after.probabilities},
        "flipped": change.flipped,
        "difference": change.difference,
    }


def _verdict(verdict: Verdict | None) -> Json | None:
    return None if verdict is None else {"label": verdict.label, "probabilities": verdict.probabilities}
