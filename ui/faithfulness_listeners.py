"""What the controls of measuring do, free of Gradio's wiring: each answers with the updates of the page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event

from explain.sanity_asking import check_maps
from ui import markup, results
from ui.faithfulness import find_faithfulness, measure_steps, unmeasured_models
from ui.faithfulness_markup import render_check, render_mark
from ui.pictures import View
from ui.results import Result
from ui.services import Services
from ui.text import say
from ui.updates import Updates, merge


@dataclass(frozen=True)
class Trusting:
    """Measuring for a visitor over the shared services; keeps nothing of the visitor."""

    services: Services

    def renew(self, _language: str, measuring: Event | None) -> Updates:
        """End what is being measured: another examination, or another wish, takes its place."""
        if measuring is not None:
            measuring.set()
        return {"measuring": {"value": Event()}, "measured": {"value": ""}, "cancel": {"interactive": False}}

    def begin(self, language: str, measuring: Event | None) -> Updates:
        """Say at once that the wish to measure was heard."""
        line = markup.render_status(say(language, "trust.waiting"), 0.0)
        told: Updates = {"measured": {"value": line}, "cancel": {"interactive": True}}
        return merge(self.renew(language, measuring), told)

    def cancel(self, language: str, measuring: Event | None) -> Updates:
        """End measuring between two passes."""
        if measuring is not None:
            measuring.set()
        return self._told(say(language, "trust.stopped"))

    def measure(
        self, language: str, measuring: Event | None, result: Result | None, view: View, *, small: bool
    ) -> Iterator[Updates]:
        """Measure the maps that are not measured yet; the badges of a model show when it is done.

        Args:
            language: of the page.
            measuring: set to end it.
            result: complete, or nothing is measured.
            view: the map shown, marked in the grid.
            small: only models behind which bundled weights stand.
        """
        # A generator that yields nothing would empty everything it may change.
        yield {}
        if measuring is None or measuring.is_set() or result is None or not result.examination.complete:
            return
        models = unmeasured_models(result.examination, small=small)
        if not models:
            if not small:
                yield self._told(say(language, "trust.nothing"))
            return
        specs, started, before = self.services.zoo.specs, time.perf_counter(), result.examination
        for step in measure_steps(self.services, before, models, measuring):
            if measuring.is_set():
                return
            line = say(language, "trust.measuring", name=markup.model_name(specs, step.model_id))
            updates: Updates = {
                "measured": {"value": markup.render_status(line, step.done)},
                "cancel": {"interactive": True},
            }
            if step.examination is not result.examination:
                result = results.make_result(step.examination, result)
                names = results.name_variants(language, specs)
                updates["result"] = {"value": result}
                shown = markup.grid_key(view.model_id, view.method)
                updates["grid"] = {"value": results.show_grid(language, names, result, shown), "shown": shown}
                updates["rows"] = {"value": results.show_rows(language, names, result.examination)}
            yield updates
        if measuring.is_set():
            return
        count = len(result.examination.faithfulness) - len(before.faithfulness)
        seconds = f"{time.perf_counter() - started:.1f}"
        yield self._told(say(language, "trust.done", count=count, seconds=seconds))

    def check(self, language: str, result: Result | None, view: View) -> Iterator[Updates]:
        """Hold the map shown against those of the same network with random weights (Adebayo et al. 2018)."""
        yield {}
        settled = results.settle_view(result.examination, view) if result else None
        shown = result.examination.heatmap(settled.model_id, settled.method) if result and settled else None
        if result is None or shown is None or shown.model_id not in result.examination.settings.models:
            yield {"checked": {"value": markup.render_empty(say(language, "check.gone"))}}
            return
        line = say(language, "check.running", name=markup.model_name(self.services.zoo.specs, shown.model_id))
        yield {"checked": {"value": markup.render_status(line, 0.0)}}
        key = (shown.model_id, shown.method)
        examination = check_maps(result.examination, self.services.loader, [key])
        yield {
            "result": {"value": results.make_result(examination, result)},
            "checked": {"value": render_check(language, examination, *key)},
        }

    def show(self, language: str, result: Result | None, view: View) -> Updates:
        """Words and curves of the map shown, its badge, and whether anything is left to measure."""
        settled = results.settle_view(result.examination, view) if result else None
        if result is None or settled is None:
            return {"trust_panel": {"visible": False}}
        examination = result.examination
        found = find_faithfulness(examination, settled.model_id, settled.method)
        left = unmeasured_models(examination, small=False)
        small = unmeasured_models(examination, small=True)
        return merge(
            results.show_trust(language, result, settled, small),
            {
                "badge": {"value": render_mark(language, found)},
                "grid": {"shown": markup.grid_key(settled.model_id, settled.method)},
                "measure": {"visible": bool(left), "interactive": examination.complete},
                "check": {"interactive": examination.complete},
                "checked": {"value": render_check(language, examination, settled.model_id, settled.method)},
            },
        )

    def _told(self, line: str) -> Updates:
        return {"measured": {"value": markup.render_status(line)}, "cancel": {"interactive": False}}
