"""The What-if panel below an examination: its controls in their places, joined to ``ui/whatif_listeners.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from explain.whatif import Fill
from ui.errors import guard
from ui.layout import ANNOUNCE_SCRIPT, STATE_LIFETIME_S
from ui.pictures import View
from ui.results import Result
from ui.services import MODELS_AT_ONCE, MODELS_QUEUE, Services
from ui.updates import Updates
from ui.whatif_listeners import BRUSH, HOTTEST, Region, Supposing, read_paint
from ui.wiring import PLAIN, PRIVATE

_AT_ONCE: dict[str, Any] = {**PRIVATE, "queue": False}
_RUNNING: dict[str, Any] = {**PRIVATE, "concurrency_id": MODELS_QUEUE, "concurrency_limit": MODELS_AT_ONCE}


@dataclass(frozen=True)
class WhatIfControls:
    """Every component of the panel."""

    painted: gr.State
    panel: gr.Column
    heading: gr.HTML
    kind: gr.Radio
    share: gr.Slider
    corners: gr.Textbox
    chosen: gr.Dropdown
    paint: gr.ImageEditor
    fill: gr.Radio
    ask: gr.Button
    evidence: gr.Button
    news: gr.HTML
    found: gr.HTML


@dataclass(frozen=True)
class WhatIfPanel:
    """What the page needs of the panel.

    Attributes:
        outputs: what ``translate`` may change.
        translate: every word in another language, from the language and the result.
    """

    outputs: list[Any]
    translate: Callable[..., dict[Any, Any]]


def create_whatif_panel(
    services: Services,
    language: gr.Radio,
    first_language: str,
    result: gr.State,
    view: list[Any],
    examined: gr.events.Dependency,
) -> WhatIfPanel:
    """The panel inside the Blocks being built.

    Args:
        services: what all visitors share.
        language: the page's language selector.
        first_language: the language to build in.
        result: the visitor's examination.
        view: the controls that make a ``View``, in the order of its fields.
        examined: what ends an examination.
    """
    supposing = Supposing(services)
    c = _create(supposing.translate(first_language, None))

    def deliver(updates: Updates) -> dict[Any, Any]:
        if not updates:
            return gr.skip()
        return {getattr(c, name): gr.update(**properties) for name, properties in updates.items()}

    def listener(answer: Callable[..., Any]) -> Callable[..., Any]:
        return guard(answer, supposing.fail, deliver)

    def ask_again(
        spoken: str,
        result: Result | None,
        painted: Any,  # noqa: ANN401 - a mask or nothing
        kind: str,
        share: float,
        corners: str,
        chosen: int | None,
        fill: Fill,
        *shown: Any,  # noqa: ANN401 - the fields of a view
    ) -> Iterator[Updates]:
        yield from supposing.ask(spoken, result, View(*shown), Region(kind, share, corners, chosen, fill), painted)

    def search(spoken: str, result: Result | None, fill: Fill, *shown: Any) -> Iterator[Updates]:  # noqa: ANN401
        yield from supposing.search(spoken, result, View(*shown), fill)

    outputs = [getattr(c, part.name) for part in fields(c) if part.name != "painted"]
    examined.then(listener(supposing.renew), [language, result], outputs, **_AT_ONCE)
    c.kind.input(listener(supposing.choose), [language, c.kind, result], outputs, **_AT_ONCE)
    # The editor's picture needs Gradio's own reading; nothing else of the page does.
    painted = c.ask.click(read_paint, [c.paint], [c.painted], **(PRIVATE | {"preprocess": True}))
    asked: list[Any] = [language, result, c.painted, c.kind, c.share, c.corners, c.chosen, c.fill, *view]
    painted.then(listener(ask_again), asked, [c.news, c.found], **_RUNNING)
    c.evidence.click(listener(search), [language, result, c.fill, *view], [c.news, c.found], **_RUNNING)
    return WhatIfPanel(outputs, listener(supposing.translate))


def _create(first: Updates) -> WhatIfControls:
    painted = gr.State(None, time_to_live=STATE_LIFETIME_S)
    with gr.Column(visible=False, elem_id="whatif-panel") as panel:
        heading = gr.HTML(first["heading"]["value"], elem_id="whatif-heading", **PLAIN)
        with gr.Row(elem_id="whatif-row"):
            with gr.Column(scale=2, min_width=280):
                kind = gr.Radio(value=HOTTEST, elem_id="whatif-kind", **first["kind"])
                share = gr.Slider(1, 90, value=10, step=1, elem_id="whatif-share", **first["share"])
                corners = gr.Textbox(visible=False, max_length=80, elem_id="whatif-corners", **first["corners"])
                chosen = gr.Dropdown(visible=False, elem_id="whatif-object", **first["chosen"])
                fill = gr.Radio(value="blur", elem_id="whatif-fill", **first["fill"])
                ask = gr.Button(variant="primary", elem_id="whatif-ask", **first["ask"])
                evidence = gr.Button(elem_id="whatif-evidence", **first["evidence"])
                news = gr.HTML(elem_id="whatif-news", js_on_load=ANNOUNCE_SCRIPT, **PLAIN)
            with gr.Column(scale=5, min_width=280):
                paint = gr.ImageEditor(
                    visible=False,
                    type="pil",
                    format="png",
                    sources=(),
                    transforms=(),
                    layers=False,
                    buttons=[],
                    brush=gr.Brush(default_size=32, colors=["#e6007e"], color_mode="fixed"),
                    height=460,
                    elem_id=f"whatif-{BRUSH}",
                    **first["paint"],
                )
                found = gr.HTML(elem_id="whatif-found", **PLAIN)
    return WhatIfControls(
        painted, panel, heading, kind, share, corners, chosen, paint, fill, ask, evidence, news, found
    )
