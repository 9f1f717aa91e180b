"""The Examine tab: one picture, the models' verdict, and what they used.

Only Gradio's wiring stands here: the controls of ``ui/layout.py`` are joined to the answers of ``ui/listeners.py``.
Listeners that run a model share one queue; those that only draw need none. All are private, programs use ``ui/api.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr

from ui.errors import guard
from ui.faithfulness import MEASURING_AT_ONCE, MEASURING_QUEUE
from ui.faithfulness_listeners import Trusting
from ui.files import check_upload
from ui.layout import Controls, create_controls
from ui.listeners import Chosen, Kept, Listeners, Opening, Wishes
from ui.pictures import View
from ui.results import Result
from ui.services import LOADING_AT_ONCE, LOADING_QUEUE, MODELS_AT_ONCE, MODELS_QUEUE, Asking, Services
from ui.text import say
from ui.updates import Updates, merge
from ui.whatif import create_whatif_panel
from ui.wiring import PRIVATE
from ui.wording import choose_first

_AT_ONCE: dict[str, Any] = {**PRIVATE, "queue": False}
EXAMINE_TAB = "examine"
"""Id of the tab, by which others turn to it."""
_STATES = ("chosen", "result", "writings", "stopping", "measuring")
# The page presses the hidden link once it knows the file.
_DOWNLOAD_SCRIPT = "() => setTimeout(() => document.querySelector('#archive')?.click(), 200)"


@dataclass(frozen=True)
class ExamineTab:
    """What the page needs of the tab.

    Attributes:
        tab: for its name.
        inputs: what ``translate`` needs after the language; the first is the question.
        outputs: what it may change.
        translate: every word in another language.
        refresh: what would answer for each model by now, from the language and the question.
        refreshed: what that may change.
        open: a picture of another tab, from the language and an ``Opening``.
        opened: what that may change.
    """

    tab: gr.Tab
    inputs: list[Any]
    outputs: list[Any]
    translate: Callable[..., dict[Any, Any]]
    refresh: Callable[..., dict[Any, Any]]
    refreshed: list[Any]
    open: Callable[[str, Opening], dict[Any, Any]]
    opened: list[Any]


def create_examine_tab(services: Services, language: gr.Radio, first_language: str) -> ExamineTab:
    """The tab inside the Blocks being built.

    Args:
        services: what all visitors share.
        language: the page's language selector, the first input of every listener.
        first_language: the language to build in.
    """
    listeners = Listeners(services)
    first = choose_first(services)
    task, models = first["task"]["value"], first["models"]["value"]
    words = listeners.translate(first_language, task, models, Kept(), View("", ""))
    with gr.Tab(say(first_language, "tab.examine"), id=EXAMINE_TAB, elem_id="examine-tab") as tab:
        controls = create_controls(merge(words, first))
        _wire_choice(controls, listeners, language)
        examined = _wire_examination(controls, listeners, language)
        picked = _wire_view(controls, listeners, language)
        _wire_trust(controls, listeners, language, examined, picked)
        view = _view_inputs(controls)
        whatif = create_whatif_panel(services, language, first_language, controls.result, view, examined)

    def translate(spoken: str, task: str, models: list[str], *rest: Any) -> Updates:  # noqa: ANN401 - states and a view
        return listeners.translate(spoken, task, models, Kept(*rest[:3]), View(*rest[3:]))

    translate_controls = _listener(controls, translate, listeners)

    def translate_all(spoken: str, *inputs: Any) -> dict[Any, Any]:  # noqa: ANN401 - as for ``translate``
        return translate_controls(spoken, *inputs) | whatif.translate(spoken, inputs[3])

    return ExamineTab(
        tab=tab,
        inputs=[
            controls.task,
            controls.models,
            controls.chosen,
            controls.result,
            controls.writings,
            *view,
        ],
        outputs=[*_all(controls), *whatif.outputs],
        translate=translate_all,
        refresh=_listener(controls, listeners.refresh, listeners),
        refreshed=[controls.models, controls.unavailable, controls.target, controls.status, controls.stop],
        open=_listener(controls, listeners.open, listeners),
        opened=_opened(controls),
    )


def _wire_choice(controls: Controls, listeners: Listeners, language: gr.Radio) -> None:
    """Picture, examples and question."""
    c = controls
    outputs: list[Any] = [c.chosen, c.picture, c.facts, c.status, c.stop]

    def choose(spoken: str, payload: dict[str, Any] | None, chosen: Chosen | None) -> Updates:
        if payload:
            check_upload(Path(payload["path"]))
        return listeners.choose(spoken, payload, chosen)

    def choose_example(spoken: str, event: gr.SelectData) -> Updates:
        return listeners.choose_example(spoken, str(event.index))

    # Unprocessed: the file as it was uploaded is what gets hashed and examined, and what is no picture gets our words.
    c.picture.upload(_listener(c, choose, listeners), [language, c.picture, c.chosen], outputs, **_AT_ONCE)
    c.picture.clear(_listener(c, listeners.clear, listeners), [language], outputs, **_AT_ONCE)
    c.examples.select(_listener(c, choose_example, listeners), [language], outputs, **_AT_ONCE)
    question: list[Any] = [c.vlm_panel, c.asked, c.precision, c.layer, c.status, c.stop]
    asked: list[Any] = [c.models, c.unavailable, c.target, *question]
    c.task.input(_listener(c, listeners.ask, listeners), [language, c.task], asked, api_name="choose_task", **_AT_ONCE)
    c.models.input(_listener(c, listeners.tick, listeners), [language, c.models], question, **_AT_ONCE)


def _wire_examination(controls: Controls, listeners: Listeners, language: gr.Radio) -> gr.events.Dependency:
    """Examine, the models' own words, Stop and the evidence bundle; what comes after an examination follows it."""
    c = controls

    def run(spoken: str, stopping: Event, chosen: Chosen | None, *asked: Any) -> Iterator[Updates]:  # noqa: ANN401
        count = len(_wish_inputs(c))
        yield from listeners.run(spoken, stopping, chosen, _wishes(asked[:count]), View(*asked[count:]))

    def write(spoken: str, stopping: Event, chosen: Chosen | None, *asked: Any) -> Iterator[Updates]:  # noqa: ANN401
        yield from listeners.write(spoken, stopping, chosen, _wishes(asked))

    def pack(spoken: str, result: Result | None, original: bool) -> Updates:
        return listeners.pack(spoken, result, original=original)

    shared: dict[str, Any] = {"concurrency_id": MODELS_QUEUE, "concurrency_limit": MODELS_AT_ONCE, **PRIVATE}
    asked: list[Any] = [language, c.stopping, c.chosen, *_wish_inputs(c)]
    running = _load_first(c, c.examine, listeners, language).then(
        _listener(c, run, listeners), [*asked, *_view_inputs(c)], _all(c), **shared
    )
    # Once it has ended, the viewer follows the pickers as they are now: they may have moved meanwhile.
    ended = running.then(_redraw(c, listeners), [language, c.result, *_view_inputs(c)], _drawn(c), **_AT_ONCE)
    told: list[Any] = [c.written, c.writings, c.status, c.stop]
    _load_first(c, c.write, listeners, language).then(_listener(c, write, listeners), asked, told, **shared)
    # Not Gradio's ``cancels``: a browser that has not heard the event's number yet cannot cancel it.
    c.stop.click(_listener(c, listeners.stop, listeners), [language, c.stopping], [c.status, c.stop], **_AT_ONCE)
    c.download.click(
        _listener(c, pack, listeners),
        [language, c.result, c.original],
        [c.archive, c.status, c.stop],
        concurrency_id="bundles",
        concurrency_limit=1,
        **PRIVATE,
    ).then(None, js=_DOWNLOAD_SCRIPT, **PRIVATE)
    return ended


def _wire_trust(
    c: Controls,
    listeners: Listeners,
    language: gr.Radio,
    examined: gr.events.Dependency,
    picked: gr.events.Dependency,
) -> None:
    """Badges of small models once an examination has ended, those of large ones on request, and what is shown of them.

    Measuring has a queue of its own: nobody's verdict waits for somebody's badges.
    """
    trusting = Trusting(listeners.services)
    shown: list[Any] = [c.trust_panel, c.trust, c.curves, c.badge, c.grid, c.measure, c.measured, c.check, c.checked]
    measured: list[Any] = [c.result, c.grid, c.rows, c.measured, c.cancel]

    def fail(line: str) -> Updates:
        return {"measured": listeners.fail(line)["status"], "cancel": {"interactive": False}}

    def listener(answer: Callable[..., Any]) -> Callable[..., Any]:
        return guard(answer, fail, lambda updates: _to_gradio(c, updates))

    def show(spoken: str, result: Result | None, *view: Any) -> Updates:  # noqa: ANN401 - the fields of a view
        return trusting.show(spoken, result, View(*view))

    def measure(small: bool) -> Callable[..., Iterator[Updates]]:
        def answer(spoken: str, measuring: Event, result: Result | None, *view: Any) -> Iterator[Updates]:  # noqa: ANN401
            yield from trusting.measure(spoken, measuring, result, View(*view), small=small)

        return answer

    def check(spoken: str, result: Result | None, *view: Any) -> Iterator[Updates]:  # noqa: ANN401 - as above
        yield from trusting.check(spoken, result, View(*view))

    view: list[Any] = [language, c.result, *_view_inputs(c)]
    news: list[Any] = [c.measuring, c.measured, c.cancel]
    c.examine.click(listener(trusting.renew), [language, c.measuring], news, **_AT_ONCE)
    asked = c.measure.click(listener(trusting.begin), [language, c.measuring], news, **_AT_ONCE)
    queue: dict[str, Any] = {"concurrency_id": MEASURING_QUEUE, "concurrency_limit": MEASURING_AT_ONCE, **PRIVATE}
    inputs: list[Any] = [language, c.measuring, c.result, *_view_inputs(c)]
    for begun, small in ((examined, True), (asked, False)):
        ended = begun.then(listener(measure(small)), inputs, measured, **queue)
        ended.then(listener(show), view, shown, **_AT_ONCE)
    c.check.click(listener(check), view, [c.result, c.checked, c.measured, c.cancel], **queue)
    c.cancel.click(listener(trusting.cancel), [language, c.measuring], [c.measured, c.cancel], **_AT_ONCE)
    for picker in (c.model_shown, c.method_shown):
        picker.input(listener(show), view, shown, **_AT_ONCE)
    picked.then(listener(show), view, shown, **_AT_ONCE)


def _load_first(c: Controls, button: gr.Button, listeners: Listeners, language: gr.Radio) -> gr.events.Dependency:
    """A press of a button, and the loading of the models it needs, before anything runs."""

    def load(spoken: str, stopping: Event, chosen: Chosen | None, *asked: Any) -> Iterator[Updates]:  # noqa: ANN401
        yield from listeners.load(spoken, stopping, chosen, _wishes(asked))

    waiting = button.click(
        _listener(c, listeners.wait, listeners), [language], [c.stopping, c.status, c.stop], **_AT_ONCE
    )
    return waiting.then(
        _listener(c, load, listeners),
        [language, c.stopping, c.chosen, *_wish_inputs(c)],
        [c.status, c.stop],
        concurrency_id=LOADING_QUEUE,
        concurrency_limit=LOADING_AT_ONCE,
        **PRIVATE,
    )


def _wish_inputs(controls: Controls) -> list[Any]:
    """The controls that make ``Wishes``, in the order of its fields."""
    c = controls
    return [c.task, c.models, c.methods, c.target, c.detector, c.asked, c.style, c.adapter, c.precision, c.layer]


def _wishes(asked: Sequence[Any]) -> Wishes:
    task, models, methods, target, detector, *asking = asked
    return Wishes(task, models, methods, target, detector, Asking(*asking))


def _wire_view(controls: Controls, listeners: Listeners, language: gr.Radio) -> gr.events.Dependency:
    """All that redraws from what is kept; what else a choice in the grid changes follows it."""
    c = controls

    def pick(spoken: str, event: gr.SelectData, result: Result | None, *view: Any) -> Updates:  # noqa: ANN401 - a view
        model_id, _, method = str(event.index).partition("|")
        return listeners.redraw(spoken, result, View(model_id, method, *view))

    inputs: list[Any] = [language, c.result, *_view_inputs(c)]
    for control in (c.model_shown, c.method_shown, c.boxes, c.shared):
        control.input(_redraw(c, listeners), inputs, _drawn(c), **_AT_ONCE)
    # One drawing at a time while the slider moves; the last position is always drawn.
    c.opacity.change(_redraw(c, listeners), inputs, _drawn(c), trigger_mode="always_last", **_AT_ONCE)
    return c.grid.select(
        _listener(c, pick, listeners), [language, c.result, c.opacity, c.boxes, c.shared], _drawn(c), **_AT_ONCE
    )


def _redraw(controls: Controls, listeners: Listeners) -> Callable[..., Any]:
    def redraw(spoken: str, result: Result | None, *view: Any) -> Updates:  # noqa: ANN401 - the fields of a view
        return listeners.redraw(spoken, result, View(*view))

    return _listener(controls, redraw, listeners)


def _listener(controls: Controls, answer: Callable[..., Any], listeners: Listeners) -> Callable[..., Any]:
    """A listener for Gradio: errors become the status line, updates by name become updates by component."""
    return guard(answer, listeners.fail, lambda updates: _to_gradio(controls, updates))


def _to_gradio(controls: Controls, updates: Updates) -> dict[Any, Any]:
    if not updates:
        return gr.skip()
    return {
        getattr(controls, name): properties["value"] if name in _STATES else gr.update(**properties)
        for name, properties in updates.items()
    }


def _view_inputs(controls: Controls) -> list[Any]:
    """The controls that make a ``View``, in the order of its fields."""
    return [controls.model_shown, controls.method_shown, controls.opacity, controls.boxes, controls.shared]


def _drawn(controls: Controls) -> list[Any]:
    """What a redraw may change."""
    c = controls
    pickers = [c.viewer_panel, c.model_shown, c.method_shown, c.boxes, c.shared]
    return [*pickers, c.viewer, c.badge, c.legend, c.detections, c.grid, c.status, c.stop]


def _opened(controls: Controls) -> list[Any]:
    """What a picture of another tab may change."""
    c = controls
    asked = [c.task, c.models, c.unavailable, c.target, c.vlm_panel, c.asked, c.style, c.adapter, c.precision, c.layer]
    return [c.chosen, c.picture, c.facts, *asked, c.status, c.stop]


def _all(controls: Controls) -> list[Any]:
    return [getattr(controls, part.name) for part in fields(controls)]
