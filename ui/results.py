"""What a visitor's examination looks like: values to updates of the controls. No model runs here."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from explain import render
from explain.default_methods import DEFAULTS, default_method
from explain.difference import DifferenceMap
from explain.examination import Examination
from explain.regions import heat_in_detections
from explain.schema import Heatmap
from models.credentials import read_credentials
from models.imaging import SourceImage
from models.loading import BASE_SUFFIX
from models.schema import ModelSpec
from ui import doubt_markup, faithfulness_markup, markup, markup_vlm, pictures
from ui.credentials_markup import render_credentials
from ui.faithfulness import find_faithfulness
from ui.faithfulness_charts import draw_curves
from ui.pictures import View
from ui.text import say
from ui.updates import Updates, merge

Specs = Mapping[str, ModelSpec]


@dataclass(frozen=True)
class Result:
    """A visitor's examination with its picture at screen size, kept in the visitor's session.

    Attributes:
        examination: complete or growing.
        photo: RGB, at most ``render.SCREEN_SIDE_PX`` on the longer side.
    """

    examination: Examination
    photo: Image.Image

    @cached_property
    def photo_file(self) -> Path:
        """The picture without anything on it, written once."""
        return pictures.write_screen(self.photo)

    @cached_property
    def thumbnails(self) -> tuple[markup.Thumbnail, ...]:
        """All maps in small, drawn once."""
        return pictures.draw_thumbnails(self.examination, self.photo)


def name_variants(language: str, specs: Specs) -> Specs:
    """The entries; each vision-language model's base, and the difference to it, as entries with names of their own."""
    variants = {
        f"{spec.id}{suffix}": spec.model_copy(update={"name": say(language, key, name=spec.name)})
        for spec in specs.values()
        if spec.kind == "vlm"
        for suffix, key in ((BASE_SUFFIX, "base.of"), (pictures.DIFFERENCE_SUFFIX, "difference.of"))
    }
    return {**specs, **variants}


def make_result(examination: Examination, former: Result | None = None) -> Result:
    """The result of a step; the picture of the step before is taken over."""
    photo = former.photo if former else render.fit(examination.source.rgb)
    return Result(examination, photo)


def settle_view(examination: Examination, view: View, specs: Specs | None = None) -> View | None:
    """The view itself where its map exists, else the nearest that does; ``None`` while there is no map.

    Args:
        examination: whatever is found so far.
        view: what the visitor wants to see.
        specs: with it, where the wanted method is not there, that of the model's kind is shown.
    """
    maps = [(model_id, pictures.method_of(shown)) for model_id, shown in pictures.list_maps(examination)]
    if not maps:
        return None
    near = [key for key in maps if key[0] == view.model_id] or [key for key in maps if key[1] == view.method] or maps
    first = near[0][0]
    usual = default_method(specs[first].kind) if specs and first in specs else ""
    wanted = [key for key in near if key[1] == view.method] or [key for key in near if key == (first, usual)] or near
    model_id, method = wanted[0]
    return replace(view, model_id=model_id, method=method)


def show_result(language: str, specs: Specs, result: Result, view: View | None) -> Updates:
    """Everything found so far but the viewer: the verdict, the models, the grid, the pickers, the bundle."""
    examination = result.examination
    shown = markup.grid_key(view.model_id, view.method) if view else ""
    evidence = markup.render_heading(say(language, "evidence"), say(language, "evidence.note"))
    shown_now: Updates = {
        "verdict": {"value": _verdict(language, specs, examination)},
        "rows": {"value": show_rows(language, specs, examination)},
        "words": {"value": markup_vlm.render_words(language, examination.words, specs, pictures.words_uri())},
        "grid": {"value": show_grid(language, specs, result, shown), "shown": shown},
        "evidence": {"value": evidence},
        "evidence_panel": {"visible": examination.complete and examination.verdict is not None},
        "viewer_heading": {"value": markup.render_heading(say(language, "heatmap"), say(language, "heatmap.slider"))},
    }
    if view is None:
        shown_now["trust_panel"] = {"visible": False}
    return shown_now | show_pickers(specs, examination, view)


def show_grid(language: str, specs: Specs, result: Result, shown: str = "") -> str:
    """All maps in small, each with its badge once it is measured; of each model the most faithful then come first."""
    marks = faithfulness_markup.cell_marks(language, result.examination)
    gains = {(one.model_id, one.method): one.gain for one in result.examination.faithfulness}
    cells = sorted(result.thumbnails, key=lambda cell: -gains.get((cell.model_id, cell.method), -math.inf))
    models = list(dict.fromkeys(cell.model_id for cell in result.thumbnails))
    cells.sort(key=lambda cell: models.index(cell.model_id))
    grid = markup.render_grid(language, cells, specs, shown, marks)
    note = " ".join((say(language, "grid.note"), *([say(language, "grid.sorted")] if gains else [])))
    return _section(language, "grid", grid, note) if grid else ""


def show_trust(language: str, result: Result, view: View | None, small: Collection[str]) -> Updates:
    """How far to believe the map shown, with its curves.

    Args:
        language: of the page.
        result: with or without figures.
        view: the map shown.
        small: models that are measured without being asked for.
    """
    examination = result.examination
    shown = pictures.find_map(examination, view.model_id, view.method) if view else None
    if view is None or shown is None:
        return {"trust_panel": {"visible": False}}
    found = find_faithfulness(examination, view.model_id, view.method)
    words = faithfulness_markup.render_trust(language, examination, shown, small=view.model_id in small)
    curves: dict[str, Any] = {"visible": found is not None, "label": say(language, "trust.curves")}
    return {
        "trust_panel": {"visible": True},
        "trust": {"value": words},
        "curves": curves | {"value": draw_curves(language, found) if found else None},
    }


def show_pickers(specs: Specs, examination: Examination, view: View | None) -> Updates:
    """The pickers of the viewer, offering only maps that exist."""
    if view is None:
        return {"viewer_panel": {"visible": False}}
    maps = pictures.list_maps(examination)
    models = dict.fromkeys(model_id for model_id, _ in maps)
    methods = [pictures.method_of(shown) for model_id, shown in maps if model_id == view.model_id]
    single = examination.heatmap(view.model_id, view.method)
    comparable = single is not None and sum(h.method == view.method for h in examination.heatmaps) > 1
    return {
        "viewer_panel": {"visible": True},
        "model_shown": {
            "choices": [(markup.model_name(specs, model), model) for model in models],
            "value": view.model_id,
        },
        "method_shown": {
            "choices": [(markup.method_title(method), method) for method in methods],
            "value": view.method,
        },
        "boxes": {"interactive": examination.detections is not None},
        "shared": {"interactive": comparable},
    }


def show_view(language: str, specs: Specs, result: Result, view: View) -> Updates:
    """The viewer with its words, drawn from what is kept."""
    shown = pictures.find_map(result.examination, view.model_id, view.method)
    if shown is None:
        return {}
    plain, heated = pictures.draw_view(result.examination, result.photo, shown, view)
    plain_file = result.photo_file if plain is result.photo else pictures.write_screen(plain)
    drawn: Updates = {"viewer": {"value": (str(plain_file), str(pictures.write_screen(heated)))}}
    return merge(drawn, describe_view(language, specs, result.examination, view))


def describe_view(language: str, specs: Specs, examination: Examination, view: View | None) -> Updates:
    """The legend, the mark in the grid, and the shown map's heat on each object."""
    shown = pictures.find_map(examination, view.model_id, view.method) if view else None
    if view is None or shown is None:
        return {"legend": {"value": ""}, "badge": {"value": ""}, "detections": {"value": ""}}
    found = find_faithfulness(examination, view.model_id, view.method)
    if isinstance(shown, DifferenceMap):
        # Shares of heat inside a box mean nothing where heat may be negative.
        name, detections = markup.model_name(specs, shown.tuned.model_id), ""
        legend = markup_vlm.render_difference_legend(language, shown, name, pictures.difference_uri())
    else:
        name, detections = markup.model_name(specs, shown.model_id), _detections(language, examination, shown)
        scale = pictures.scale_of(examination, shown, shared=view.shared)
        bar = pictures.difference_uri() if shown.signed else pictures.legend_uri()
        legend = markup.render_legend(language, shown, name, bar, scale)
        legend += _why_first(language, specs, shown)
    return {
        "legend": {"value": legend},
        "badge": {"value": faithfulness_markup.render_mark(language, found)},
        "detections": {"value": detections},
        "grid": {"shown": markup.grid_key(view.model_id, view.method)},
    }


def _why_first(language: str, specs: Specs, shown: Heatmap) -> str:
    """Why a map is shown first, in one line; empty where it is not, or where nothing was measured."""
    best = DEFAULTS.get(specs[shown.model_id].kind) if shown.model_id in specs else None
    if best is None or best.method != shown.method:
        return ""
    hits, chance = round(100 * best.pointing), round(100 * best.chance)
    words = say(language, "trust.first", method=markup.method_title(best.method), hits=hits, chance=chance)
    return f'<p class="note">{markup.escape(words)}</p>'


def describe_progress(language: str, specs: Specs, examination: Examination) -> str:
    """The status line of a growing examination."""
    if examination.complete:
        seconds = sum(
            spent for step, spent in examination.timings_s.items() if step not in ("faithfulness", "stability")
        )
        return markup.render_status(say(language, "status.done", seconds=f"{seconds:.1f}"))
    asked = examination.settings
    subjects = [*asked.models, *([asked.detector] if asked.detector else [])]
    step = min(round(examination.done * len(subjects)), len(subjects) - 1)
    key = "status.model" if step < len(asked.models) else "status.detector"
    line = say(language, key, name=markup.model_name(specs, subjects[step]))
    return markup.render_status(line, examination.done)


def describe_source(language: str, source: SourceImage | None) -> str:
    """What is known of the chosen file, and what its own signed history says."""
    if source is None:
        return markup.render_empty(say(language, "facts.empty"))
    size_kb = len(source.original) / 1000
    size = f"{size_kb / 1000:.1f} MB" if size_kb >= 1000 else f"{size_kb:.0f} kB"
    entries = (source.name, source.format, "{} × {} px".format(*source.size_wh), size, *source.notes)
    facts = markup.render_facts(language, entries, source.sha256, source.exif)
    return facts + render_credentials(language, read_credentials(source.original, source.format))


def describe_nothing(language: str) -> str:
    """What stands where the verdict will be."""
    return _section(language, "verdict", markup.render_empty(say(language, "verdict.empty")))


def _verdict(language: str, specs: Specs, examination: Examination) -> str:
    if examination.verdict is None and not examination.complete:
        body = markup.render_empty(say(language, "verdict.waiting"))
    else:
        verdict = examination.verdict
        confidence = doubt_markup.render_confidence(language, verdict, specs) if verdict else ""
        body = markup.render_verdict(language, verdict, examination.predictions, specs, confidence)
    return _section(language, "verdict", body)


def show_rows(language: str, specs: Specs, examination: Examination) -> str:
    """A row per model, and what could not be done."""
    problems = [(_subject(specs, problem.subject), problem.message) for problem in examination.problems]
    # What a base model says stands under what was fine-tuned from it, and has no part in the verdict.
    bases = {prediction.model_id: prediction for prediction in examination.base_predictions}
    answers = [
        answer
        for prediction in examination.predictions
        for answer in (prediction, bases.get(f"{prediction.model_id}{BASE_SUFFIX}"))
        if answer is not None
    ]
    notes = doubt_markup.render_notes(language, examination)
    rows = markup.render_rows(language, examination.verdict, answers, specs, notes)
    return rows + markup.render_problems(language, problems)


def _detections(language: str, examination: Examination, heatmap: Heatmap) -> str:
    if examination.detections is None:
        # Not asked for is worth saying; not done yet or failed is said by the status line and the problems.
        off = examination.settings.detector is None
        return _section(language, "detections", markup.render_detections(language, None)) if off else ""
    regions = heat_in_detections(heatmap, examination.detections)
    return _section(language, "detections", markup.render_detections(language, regions))


def _section(language: str, key: str, body: str, note: str = "") -> str:
    return f"<section>{markup.render_heading(say(language, key), note)}{body}</section>"


def _subject(specs: Specs, subject: str) -> str:
    """A problem's subject, a model id with or without a method behind it, in words."""
    model_id, _, method = subject.partition(" ")
    return f"{markup.model_name(specs, model_id)} {markup.method_title(method)}".strip()
