"""The Triage tab: many pictures scored here, or a finished run opened, down to the picture that opens in Examine.

Only Gradio's wiring stands here; the behaviour is in ``ui/triage_listeners.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from typing import Any, Final

import gradio as gr

from ui.errors import guard
from ui.examine import EXAMINE_TAB, ExamineTab
from ui.layout import ANNOUNCE_SCRIPT, STATE_LIFETIME_S
from ui.listeners import Opening
from ui.services import Services
from ui.triage_api import TRIAGE_QUEUE
from ui.triage_listeners import Seen, TriageListeners, is_opening
from ui.triage_runs import ALL
from ui.updates import Updates, merge
from ui.wiring import FOLLOW_SCRIPT, PLAIN, PRESS_SCRIPT, PRIVATE

_SCORING: Final[dict[str, Any]] = {"concurrency_id": TRIAGE_QUEUE, "concurrency_limit": 1, **PRIVATE}
_LOOKING: Final[dict[str, Any]] = {"concurrency_id": "looking", "concurrency_limit": 4, **PRIVATE}
_Handed = tuple[str, Opening]
"""The language of the page, and a picture for the Examine tab."""


def create_triage_tab(
    services: Services, language: gr.Radio, first_language: str, tabs: gr.Tabs, examine: ExamineTab
) -> None:
    """The tab inside the Blocks being built; it follows the language by itself.

    Args:
        services: what all visitors share.
        language: the page's language selector, the first input of every listener.
        first_language: the language to build in.
        tabs: all tabs, to turn to Examine.
        examine: where a picture is opened.
    """
    listeners = TriageListeners(services)
    first = merge(listeners.word(first_language), listeners.choose_task(first_language, services.tasks[0]))
    with gr.Tab(first["tab"]["label"], elem_id="triage-tab") as tab:
        parts: dict[str, Any] = {"tab": tab} | _create_parts(first, services)

    def deliver(updates: Updates) -> dict[Any, Any]:
        if not updates:
            return gr.skip()  # an empty answer would be one of too few values to it
        return {
            parts[name]: properties["value"] if name == "seen" else gr.update(**properties)
            for name, properties in updates.items()
        }

    def answer(listener: Any) -> Any:  # noqa: ANN401 - any listener
        return guard(listener, listeners.fail, deliver)

    everything = [part for name, part in parts.items() if name != "stopping"]
    language.change(answer(listeners.translate), [language, parts["seen"]], everything, **_LOOKING)
    tab.select(answer(listeners.word), [language], everything, **_LOOKING)
    _wire_scoring(listeners, parts, language, everything, answer)
    _wire_looking(listeners, parts, language, tabs, examine, answer, deliver)


def _wire_scoring(
    listeners: TriageListeners,
    parts: dict[str, Any],
    language: gr.Radio,
    everything: list[Any],
    answer: Any,  # noqa: ANN401 - makes listeners
) -> None:
    def prepare() -> Event:
        return Event()

    def start(
        spoken: str,
        files: Any,  # noqa: ANN401 - Gradio's payload
        folder: str,
        task: str,
        models: list[str],
        stopping: Event | None,
    ) -> Iterator[Updates]:
        yield from listeners.start(spoken, files, folder, task, models or (), stopping or Event())

    def stop(stopping: Event | None) -> None:
        if stopping is not None:
            stopping.set()

    parts["task"].input(answer(listeners.choose_task), [language, parts["task"]], [parts["models"]], **_LOOKING)
    wanted = [language, *(parts[name] for name in ("files", "folder", "task", "models", "stopping"))]
    begun = parts["start"].click(prepare, None, [parts["stopping"]], queue=False, **PRIVATE)
    begun.then(answer(start), wanted, everything, **_SCORING)
    parts["stop"].click(stop, [parts["stopping"]], None, queue=False, **PRIVATE)


def _wire_looking(
    listeners: TriageListeners,
    parts: dict[str, Any],
    language: gr.Radio,
    tabs: gr.Tabs,
    examine: ExamineTab,
    answer: Any,  # noqa: ANN401 - makes listeners
    deliver: Any,  # noqa: ANN401 - updates to what Gradio understands
) -> None:
    """The controls over the table, the bars, and the way from a row to the Examine tab."""
    wanted = [language, *(parts[name] for name in ("seen", "label", "threshold", "which", "find"))]
    shown = [parts[name] for name in ("seen", "histogram", "table", "threshold", "which", "news", "start", "stop")]

    def press(
        spoken: str,
        event: gr.SelectData,
        seen: Seen | None,
        label: str,
        threshold: float,
        which: str,
        find: str,
    ) -> Updates | _Handed:
        pick = str(event.index)
        if is_opening(pick):
            return spoken, listeners.open(spoken, seen, pick)
        return listeners.look(spoken, seen, label, threshold, which, find, pick)

    def hand_over(found: Updates | _Handed) -> dict[Any, Any]:
        if isinstance(found, dict):
            return deliver(found)
        return {tabs: gr.Tabs(selected=EXAMINE_TAB)} | examine.open(*found)

    for changes in (parts["label"].input, parts["which"].input, parts["find"].input, parts["find"].submit):
        changes(answer(listeners.look), wanted, shown, trigger_mode="always_last", **_LOOKING)
    parts["threshold"].release(answer(listeners.look), wanted, shown, **_LOOKING)
    for name in ("histogram", "table"):
        pressed = parts[name].select(
            guard(press, listeners.fail, hand_over), wanted, [*shown, tabs, *examine.opened], **_LOOKING
        )
    pressed.then(None, js=FOLLOW_SCRIPT, **PRIVATE)


def _create_parts(first: Updates, services: Services) -> dict[str, Any]:
    """The controls and places of the tab, in their order."""
    parts: dict[str, Any] = {
        "seen": gr.State(None, time_to_live=STATE_LIFETIME_S),
        "stopping": gr.State(None, time_to_live=STATE_LIFETIME_S),
        "note": gr.HTML(**first["note"], **PLAIN),
    }
    with gr.Row(elem_id="triage-choice"):
        parts["files"] = gr.File(file_count="multiple", height=140, elem_id="triage-files", scale=5, **first["files"])
        with gr.Column(scale=4, min_width=280):
            parts["folder"] = gr.Dropdown(value="", filterable=False, elem_id="triage-folder", **first["folder"])
            parts["task"] = gr.Dropdown(
                value=services.tasks[0], filterable=False, elem_id="triage-task", **first["task"]
            )
    parts["models"] = gr.CheckboxGroup(elem_id="triage-models", **first["models"])
    with gr.Row(elem_id="triage-actions"):
        parts["start"] = gr.Button(variant="primary", elem_id="triage-start", scale=0, min_width=220, **first["start"])
        parts["stop"] = gr.Button(interactive=False, elem_id="triage-stop", scale=0, min_width=160, **first["stop"])
        parts["download"] = gr.DownloadButton(
            visible=False, elem_id="triage-download", scale=0, min_width=220, **first["download"]
        )
    parts["news"] = gr.HTML(elem_id="triage-news", js_on_load=ANNOUNCE_SCRIPT, **PLAIN)
    parts["histogram"] = gr.HTML(elem_id="triage-histogram", js_on_load=PRESS_SCRIPT, **PLAIN)
    with gr.Row(elem_id="triage-sight"):
        parts["label"] = gr.Dropdown(
            [], filterable=False, visible=False, elem_id="triage-label", min_width=180, **first["label"]
        )
        parts["threshold"] = gr.Slider(
            0, 1, 0.5, step=0.01, visible=False, elem_id="triage-threshold", min_width=260, **first["threshold"]
        )
        parts["which"] = gr.Dropdown(
            value=ALL, filterable=False, visible=False, elem_id="triage-which", min_width=220, **first["which"]
        )
        parts["find"] = gr.Textbox(visible=False, elem_id="triage-find", min_width=200, max_length=200, **first["find"])
    parts["table"] = gr.HTML(elem_id="triage-table", js_on_load=PRESS_SCRIPT, **PLAIN)
    return parts
