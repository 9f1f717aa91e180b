"""The Verify tab: a question answered from evidence, and every claim of an answer held against a picture.

Only Gradio's wiring stands here; the behaviour is in ``ui/verify_listeners.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any, Final

import gradio as gr

from rag.embedding import DEFAULT_PICTURE_MODEL
from ui.errors import guard
from ui.layout import ANNOUNCE_SCRIPT, PICK_SCRIPT, QUESTION_LENGTH, STATE_LIFETIME_S
from ui.services import LOADING_AT_ONCE, LOADING_QUEUE, MODELS_AT_ONCE, MODELS_QUEUE
from ui.updates import Updates
from ui.verify_desk import DOMAINS, EXTRACTIVE, Checked, VerifyDesk
from ui.verify_listeners import NO_INDEX, NO_VLM, Verifying, Wish
from ui.wiring import PLAIN, PRIVATE

ANSWER_LENGTH: Final = 6000
INDEXING_QUEUE: Final = "indexing"
_STATES: Final = ("own", "checked", "chosen")
_RUNNING: Final[dict[str, Any]] = {"concurrency_id": MODELS_QUEUE, "concurrency_limit": MODELS_AT_ONCE, **PRIVATE}
_LOADING: Final[dict[str, Any]] = {"concurrency_id": LOADING_QUEUE, "concurrency_limit": LOADING_AT_ONCE, **PRIVATE}
_INDEXING: Final[dict[str, Any]] = {"concurrency_id": INDEXING_QUEUE, "concurrency_limit": 1, **PRIVATE}


def create_verify_tab(desk: VerifyDesk, language: gr.Radio, first_language: str) -> None:
    """The tab inside the Blocks being built; it follows the language by itself.

    Args:
        desk: does the work.
        language: the page's language selector, the first input of every listener.
        first_language: the language to build in.
    """
    verifying = Verifying(desk)
    first = verifying.translate(first_language)
    with gr.Tab(first["tab"]["label"], elem_id="verify-tab") as tab:
        parts: dict[str, Any] = {"tab": tab} | _create_parts(first)

    def deliver(updates: Updates) -> dict[Any, Any]:
        return {
            parts[name]: properties["value"] if name in _STATES else gr.update(**properties)
            for name, properties in updates.items()
        }

    _wire(verifying, parts, language, lambda listener: guard(listener, verifying.fail, deliver))


Answer = Callable[..., Callable[..., Any]]
"""A listener to one for Gradio; see ``ui.errors.guard``."""


def _wire(verifying: Verifying, parts: dict[str, Any], language: gr.Radio, answer: Answer) -> None:
    def stop(cancel: Event | None) -> None:
        if cancel is not None:
            cancel.set()

    everything = [part for name, part in parts.items() if name != "stopping"]
    shown = [language, parts["own"], parts["checked"]]
    language.change(answer(verifying.translate), shown, everything, queue=False, **PRIVATE)
    parts["tab"].select(answer(verifying.translate), shown, everything, queue=False, **PRIVATE)
    parts["stop"].click(stop, [parts["stopping"]], None, queue=False, **PRIVATE)
    _wire_answer(verifying, parts, language, answer, everything)
    _wire_index(verifying, parts, language, answer, everything)
    _wire_claim(verifying, parts, language, answer)


def _wire_answer(
    verifying: Verifying, parts: dict[str, Any], language: gr.Radio, answer: Answer, everything: list[Any]
) -> None:
    """Ask and check, each after what it needs is loaded."""

    # Gradio names endpoints after functions; ``ask`` and ``verify`` are the public ones of ``ui/verify_api.py``.
    def load_to_ask(spoken: str, own: Path | None, cancel: Event | None, *wish: Any) -> Iterator[Updates]:  # noqa: ANN401 - the controls' values
        yield from verifying.load(spoken, Wish(*wish), own, cancel or Event(), asking=True)

    def load_to_check(spoken: str, own: Path | None, cancel: Event | None, *wish: Any) -> Iterator[Updates]:  # noqa: ANN401 - as above
        yield from verifying.load(spoken, Wish(*wish), own, cancel or Event())

    def ask_evidence(spoken: str, own: Path | None, cancel: Event | None, *wish: Any) -> Iterator[Updates]:  # noqa: ANN401 - as above
        yield from verifying.ask(spoken, Wish(*wish), own, cancel or Event())

    def check(spoken: str, _own: Path | None, cancel: Event | None, *wish: Any) -> Iterator[Updates]:  # noqa: ANN401 - as above
        yield from verifying.check(spoken, Wish(*wish), cancel)

    wish = [parts[name] for name in ("picture", "question", "index", "answerer", "text", "domain", "clip", "vlm")]
    asked = [language, parts["own"], parts["stopping"], *wish]
    for pressed in (parts["ask"].click, parts["question"].submit):
        loaded = _load_first(parts, pressed, answer(load_to_ask), asked)
        loaded.then(answer(ask_evidence), asked, everything, **_RUNNING)
    loaded = _load_first(parts, parts["check"].click, answer(load_to_check), asked)
    loaded.then(answer(check), asked, everything, **_RUNNING)


def _wire_index(
    verifying: Verifying, parts: dict[str, Any], language: gr.Radio, answer: Answer, everything: list[Any]
) -> None:
    """Build an index of files."""

    def load(spoken: str, _files: Any, cancel: Event | None, clip: str) -> Iterator[Updates]:  # noqa: ANN401 - Gradio's
        yield from verifying.load_reader(spoken, clip, cancel or Event())

    def build(spoken: str, files: Any, cancel: Event | None, clip: str) -> Iterator[Updates]:  # noqa: ANN401 - as above
        yield from verifying.build(spoken, files, cancel or Event(), clip)

    asked = [language, parts["files"], parts["stopping"], parts["clip"]]
    loaded = _load_first(parts, parts["build"].click, answer(load), asked)
    loaded.then(answer(build), asked, everything, **_INDEXING)


def _load_first(
    parts: dict[str, Any], pressed: Callable[..., Any], loading: Callable[..., Any], asked: list[Any]
) -> gr.events.Dependency:
    """A press, and the loading of models in a queue of its own: a download holds up nobody else."""
    begun = pressed(Event, None, [parts["stopping"]], queue=False, **PRIVATE)
    loaded: gr.events.Dependency = begun.then(loading, asked, [parts["news"], parts["stop"]], **_LOADING)
    return loaded


def _wire_claim(verifying: Verifying, parts: dict[str, Any], language: gr.Radio, answer: Answer) -> None:
    """Look at one claim, and search for what its region looks like."""

    def choose(spoken: str, event: gr.SelectData, checked: Checked | None) -> Iterator[Updates]:
        yield from verifying.choose(spoken, checked, str(event.index))

    shown = [parts[name] for name in ("claim", "claims", "chosen", "similar", "found", "news", "stop")]
    # A claim that is pressed while another is looked at comes after it.
    pressed: dict[str, Any] = {"trigger_mode": "multiple", **_RUNNING}
    parts["claims"].select(answer(choose), [language, parts["checked"]], shown, **pressed)
    searched = [language, *(parts[name] for name in ("checked", "chosen", "index", "own"))]
    parts["similar"].click(answer(verifying.find_similar), searched, shown, **_RUNNING)


def _create_parts(first: Updates) -> dict[str, Any]:
    """The controls and places of the tab, in their order."""
    parts: dict[str, Any] = {name: gr.State(None, time_to_live=STATE_LIFETIME_S) for name in (*_STATES, "stopping")}
    parts["note"] = gr.HTML(**first["note"], **PLAIN)
    with gr.Row(elem_id="verify-row"):
        with gr.Column(scale=4, min_width=280, elem_id="verify-asked"):
            parts |= _create_controls(first)
        with gr.Column(scale=9, min_width=300, elem_id="verify-found"):
            parts["news"] = gr.HTML(elem_id="verify-news", js_on_load=ANNOUNCE_SCRIPT, **PLAIN)
            parts["text"] = gr.Textbox(lines=4, max_length=ANSWER_LENGTH, elem_id="verify-text", **first["text"])
            parts["check"] = gr.Button(elem_id="verify-check", **first["check"])
            parts["claims"] = gr.HTML(elem_id="verify-claims", js_on_load=PICK_SCRIPT, shown="", **PLAIN)
            parts["claim"] = gr.HTML(elem_id="verify-claim", js_on_load=ANNOUNCE_SCRIPT, **PLAIN)
            parts["similar"] = gr.Button(elem_id="verify-similar", size="md", **first["similar"])
            parts["found"] = gr.HTML(elem_id="verify-found-alike", js_on_load=ANNOUNCE_SCRIPT, **PLAIN)
            parts["evidence"] = gr.HTML(elem_id="verify-evidence", **PLAIN)
    return parts


def _create_controls(first: Updates) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "picture": gr.Image(
            type="filepath",
            image_mode=None,
            sources=["upload", "clipboard"],
            buttons=["fullscreen"],
            height=240,
            elem_id="verify-picture",
            **first["picture"],
        ),
        "question": gr.Textbox(lines=2, max_length=QUESTION_LENGTH, elem_id="verify-question", **first["question"]),
        "index": gr.Dropdown(value=NO_INDEX, filterable=False, elem_id="verify-index", **first["index"]),
        "answerer": gr.Dropdown(value=EXTRACTIVE, filterable=False, elem_id="verify-answerer", **first["answerer"]),
        "domain": gr.Radio(value=DOMAINS[0], elem_id="verify-domain", **first["domain"]),
        "clip": gr.Dropdown(value=DEFAULT_PICTURE_MODEL, filterable=False, elem_id="verify-clip", **first["clip"]),
        "vlm": gr.Dropdown(value=NO_VLM, filterable=False, elem_id="verify-vlm", **first["vlm"]),
    }
    with gr.Row(elem_id="verify-actions"):
        parts["ask"] = gr.Button(variant="primary", min_width=120, elem_id="verify-ask", **first["ask"])
        parts["stop"] = gr.Button(interactive=False, min_width=100, elem_id="verify-stop", **first["stop"])
    with gr.Accordion(open=False, elem_id="verify-building", **first["building"]) as parts["building"]:
        parts["files"] = gr.File(file_count="multiple", height=140, elem_id="verify-files", **first["files"])
        parts["build"] = gr.Button(elem_id="verify-build", **first["build"])
        parts["unread"] = gr.HTML(elem_id="verify-unread", **PLAIN)
    return parts
