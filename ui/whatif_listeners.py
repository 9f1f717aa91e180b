"""What the What-if panel does, free of Gradio's wiring: each answers with the updates of the page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from explain.examination import Examination
from explain.schema import Heatmap
from explain.whatif import FILLS, Fill, Mask, box_mask, hottest_mask
from explain.whatif_asking import ask_without, find_evidence
from models.errors import ExhibitError
from ui import markup, results, whatif_markup
from ui.pictures import View, find_map
from ui.progress import Work
from ui.results import Result
from ui.services import Services
from ui.text import say
from ui.updates import Updates, merge

HOTTEST, BOX, OBJECT, BRUSH = KINDS = ("hottest", "box", "object", "brush")
REPORT_EVERY_S = 0.4


@dataclass(frozen=True)
class Region:
    """The part of the picture a visitor means, as the controls give it.

    Attributes:
        kind: one of ``KINDS``.
        share: of the hottest part, in percent.
        corners: of the box, as written.
        chosen: number of the detected object, from 0; ``None`` for none.
        fill: what stands there instead.
    """

    kind: str = HOTTEST
    share: float = 10
    corners: str = ""
    chosen: int | None = None
    fill: Fill = "blur"


@dataclass(frozen=True)
class Supposing:
    """The panel's behaviour over the shared services; keeps nothing of a visitor."""

    services: Services

    def translate(self, language: str, result: Result | None) -> Updates:
        """Every word of the panel in a language; what was found is cleared, since its words are of another."""
        heading = markup.render_heading(say(language, "whatif"), say(language, "whatif.note"))
        updates: Updates = {
            "heading": {"value": heading},
            "kind": {
                "label": say(language, "whatif.kind"),
                "choices": [(say(language, f"whatif.kind.{kind}"), kind) for kind in KINDS],
            },
            "fill": {
                "label": say(language, "whatif.fill"),
                "choices": [(say(language, f"whatif.fill.{fill}"), fill) for fill in FILLS],
            },
            "ask": {"value": say(language, "whatif.ask")},
            "evidence": {"value": say(language, "whatif.evidence")},
            "found": {"value": ""},
            "news": {"value": ""},
        }
        for name, key in (("share", "share"), ("corners", "corners"), ("chosen", "object"), ("paint", "paint")):
            updates[name] = {"label": say(language, f"whatif.{key}")}
        updates["chosen"] |= {"choices": _objects(result)}
        return updates

    def renew(self, language: str, result: Result | None) -> Updates:
        """Another examination: its objects to choose from, and nothing found yet."""
        objects = _objects(result)
        ready = result is not None and result.examination.verdict is not None
        updates: Updates = {
            "panel": {"visible": ready},
            "kind": {"value": HOTTEST},
            "chosen": {"choices": objects, "value": objects[0][1] if objects else None},
            "paint": {"value": None},
            "found": {"value": ""},
            "news": {"value": ""},
        }
        return merge(updates, self.choose(language, HOTTEST, result))

    def choose(self, _language: str, kind: str, result: Result | None) -> Updates:
        """Another kind of region: its own controls show."""
        updates: Updates = {
            "share": {"visible": kind == HOTTEST},
            "corners": {"visible": kind == BOX},
            "chosen": {"visible": kind == OBJECT},
            "paint": {"visible": kind == BRUSH},
        }
        if kind == BRUSH and result is not None:
            updates["paint"]["value"] = str(result.photo_file)
        return updates

    def ask(
        self, language: str, result: Result | None, view: View, region: Region, painted: Mask | None
    ) -> Iterator[Updates]:
        """Ask every model again without the region."""
        if result is None:
            yield self.fail(say(language, "whatif.first"))
            return
        yield {"news": {"value": markup.render_status(say(language, "whatif.asking"), 0.0)}}
        mask = self.mask_of(language, result.examination, view, region, painted)
        found = ask_without(result.examination, self.services.loader, mask, region.fill)
        specs = results.name_variants(language, self.services.zoo.specs)
        line = say(language, "whatif.done", share=f"{found.share:.1%}")
        yield {
            "found": {"value": whatif_markup.render_changes(language, found, result.photo, specs)},
            "news": {"value": markup.render_status(line)},
        }

    def search(self, language: str, result: Result | None, view: View, fill: Fill) -> Iterator[Updates]:
        """Find the smallest evidence along the map shown, telling how often its model was asked."""
        if result is None:
            yield self.fail(say(language, "whatif.first"))
            return
        heatmap = self._map(language, result.examination, view)
        specs = results.name_variants(language, self.services.zoo.specs)
        name, asked, given = markup.model_name(specs, heatmap.model_id), [0], []

        def work() -> None:
            def told(count: int) -> None:
                asked[0] = count + 1

            given.append(find_evidence(result.examination, self.services.loader, heatmap, fill, told))

        searching = Work("smallest-evidence", work)
        searching.start()
        while searching.is_alive():
            line = say(language, "whatif.searching", name=name, count=asked[0])
            yield {"news": {"value": markup.render_status(line, min(0.95, asked[0] / 27))}}
            searching.join(REPORT_EVERY_S)
        searching.finish()
        line = say(language, "whatif.found", name=name, count=asked[0])
        shown = whatif_markup.render_evidence(language, given[0], heatmap, result.photo, specs)
        yield {"found": {"value": shown}, "news": {"value": markup.render_status(line)}}

    def mask_of(
        self, language: str, examination: Examination, view: View, region: Region, painted: Mask | None
    ) -> Mask:
        """The region as a mask at the picture's size.

        Raises:
            ExhibitError: nothing, or nothing usable, was chosen.
        """
        size_wh = examination.source.size_wh
        if region.kind == BOX:
            return box_mask(size_wh, _box(language, region.corners))
        if region.kind == OBJECT:
            found = examination.detections
            if found is None or region.chosen is None or not 0 <= region.chosen < len(found):
                raise ExhibitError(say(language, "whatif.no_object"))
            left, top, right, bottom = found.xyxy[region.chosen].tolist()
            return box_mask(size_wh, (left, top, right, bottom))
        if region.kind == BRUSH:
            if painted is None or not painted.any():
                raise ExhibitError(say(language, "whatif.no_paint"))
            whole = cv2.resize(painted.astype(np.uint8), size_wh, interpolation=cv2.INTER_NEAREST)
            return whole.astype(bool)
        return hottest_mask(self._map(language, examination, view), region.share / 100)

    def fail(self, line: str) -> Updates:
        """One line says what went wrong; what was found stays."""
        return {"news": {"value": markup.render_status(line, error=True)}}

    def _map(self, language: str, examination: Examination, view: View) -> Heatmap:
        settled = results.settle_view(examination, view)
        shown = find_map(examination, settled.model_id, settled.method) if settled else None
        if not isinstance(shown, Heatmap):
            raise ExhibitError(say(language, "whatif.no_map"))
        return shown


def read_paint(drawn: Mapping[str, Any] | None) -> Mask | None:
    """What was painted in the editor, bool (h, w) at the editor's size; ``None`` for nothing.

    Args:
        drawn: the editor's value, its layers RGBA pictures.
    """
    layers = [layer for layer in (drawn or {}).get("layers", ()) if isinstance(layer, Image.Image)]
    if not layers:
        return None
    return np.any([np.asarray(layer.convert("RGBA").getchannel("A")) > 0 for layer in layers], axis=0)


def _box(language: str, text: str) -> tuple[float, float, float, float]:
    numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
    if len(numbers) != 4:
        raise ExhibitError(say(language, "whatif.bad_box", text=text))
    left, top, right, bottom = map(float, numbers)
    return left, top, right, bottom


def _objects(result: Result | None) -> list[tuple[str, int]]:
    """The detected objects by name and number, the surest first as the detector gives them."""
    found = result.examination.detections if result else None
    if found is None:
        return []
    return [
        (f"{index + 1}. {label} {confidence:.0%}", index)
        for index, (label, confidence) in enumerate(zip(found.labels, found.confidence, strict=True))
    ]
