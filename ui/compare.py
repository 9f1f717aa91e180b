"""The Compare tab: saved reports of one evaluation side by side, down to the pictures on which models disagree.

Only Gradio's wiring stands here; the behaviour is in ``ui/compare_listeners.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import gradio as gr

from ui.compare_gallery import ALL, OPEN
from ui.compare_listeners import MAX_COMPARED, CompareListeners, Wanted
from ui.compare_shelf import Saved
from ui.errors import guard
from ui.examine import EXAMINE_TAB, ExamineTab
from ui.files import check_upload
from ui.layout import ANNOUNCE_SCRIPT, STATE_LIFETIME_S
from ui.listeners import Opening
from ui.services import Services
from ui.text import say
from ui.updates import Updates
from ui.wiring import ARRIVE_SCRIPT, FOLLOW_SCRIPT, PLAIN, PRESS_SCRIPT, PRIVATE, SORT_SCRIPT

TAB: Final = "compare-tab"
COMPARING_QUEUE: Final = "comparing"
COMPARING_AT_ONCE: Final = 2
# Resampling is work: visitors take turns with it, apart from those whose models run.
_COMPARING: Final[dict[str, Any]] = {
    "concurrency_id": COMPARING_QUEUE,
    "concurrency_limit": COMPARING_AT_ONCE,
    **PRIVATE,
}
_Handed = tuple[str, Opening]
"""The language of the page, and a picture for the Examine tab."""


def create_compare_tab(
    services: Services, language: gr.Radio, first_language: str, tabs: gr.Tabs, examine: ExamineTab
) -> Callable[[Any], None]:
    """The tab inside the Blocks being built; it follows the language by itself.

    Args:
        services: what all visitors share.
        language: the page's language selector, the first input of every listener.
        first_language: the language to build in.
        tabs: all tabs, to turn to Examine.
        examine: where a picture is opened.

    Returns:
        What is to be called with the event after which a new page is wired and speaks its visitor's language.
    """
    listeners = CompareListeners(services)
    with gr.Tab(say(first_language, "tab.compare"), elem_id=TAB) as tab:
        parts: dict[str, Any] = {"tab": tab} | _create_parts(first_language)
    wanted: list[Any] = [language, parts["uploads"], parts["evaluation"], parts["reports"], parts["which"]]
    shown = [part for name, part in parts.items() if name != "uploads"]
    _wire_choice(listeners, parts, wanted, shown)
    _wire_gallery(listeners, parts, wanted, tabs, examine)
    return lambda ready: _wire_arrival(ready, listeners, parts, wanted, shown)


def _wire_choice(listeners: CompareListeners, parts: dict[str, Any], wanted: list[Any], shown: list[Any]) -> None:
    """What is compared, and in which language."""

    def show(spoken: str, uploads: tuple[Saved, ...], *choice: Any) -> Iterator[Updates]:  # noqa: ANN401 - the controls' values
        yield from listeners.steps(spoken, uploads, _wanted(*choice))

    def translate(spoken: str, uploads: tuple[Saved, ...], *choice: Any) -> Updates:  # noqa: ANN401 - as above
        return listeners.translate(spoken, uploads, _wanted(*choice))

    def add(spoken: str, uploads: tuple[Saved, ...], *choice: Any) -> Iterator[Updates]:  # noqa: ANN401 - as above, and the file
        check_upload(Path(choice[-1]["path"]))
        yield from listeners.add(spoken, uploads, _wanted(*choice[:-1]), choice[-1])

    answer = _listener(listeners, parts)
    wanted[0].change(answer(translate), wanted, shown, **_COMPARING)
    parts["tab"].select(answer(show), wanted, shown, **_COMPARING)
    parts["reports"].input(answer(show), wanted, shown, trigger_mode="always_last", **_COMPARING)
    parts["evaluation"].input(answer(listeners.choose_evaluation), wanted[:3], shown, **_COMPARING)
    brought = [*wanted, parts["upload"]]
    parts["upload"].upload(answer(add), brought, [*shown, parts["uploads"]], **_COMPARING)


def _wire_arrival(
    ready: Any,  # noqa: ANN401 - Gradio has no name for an event that others follow
    listeners: CompareListeners,
    parts: dict[str, Any],
    wanted: list[Any],
    shown: list[Any],
) -> None:
    """A visitor who was faster than the page finds the tab filled all the same; for others it costs nothing."""

    def arrive(spoken: str, uploads: tuple[Saved, ...], *choice: Any) -> Iterator[Updates]:  # noqa: ANN401 - the controls' values
        *controls, is_open = choice
        if is_open is True:
            yield from listeners.steps(spoken, uploads, _wanted(*controls))
        else:
            yield {}

    asked = [*wanted, gr.JSON(visible=False)]
    ready.then(_listener(listeners, parts)(arrive), asked, shown, js=ARRIVE_SCRIPT % TAB, **_COMPARING)


def _wire_gallery(
    listeners: CompareListeners, parts: dict[str, Any], wanted: list[Any], tabs: gr.Tabs, examine: ExamineTab
) -> None:
    """The pictures on which models disagree, and the way from there to the Examine tab."""

    def turn(spoken: str, uploads: tuple[Saved, ...], *choice: Any) -> Updates:  # noqa: ANN401 - the controls' values
        return listeners.turn(spoken, uploads, _wanted(*choice))

    def press(spoken: str, event: gr.SelectData, uploads: tuple[Saved, ...], *choice: Any) -> Updates | _Handed:  # noqa: ANN401
        action, _, number = str(event.index).partition("|")
        if action == OPEN:
            return spoken, listeners.open(spoken, uploads, _wanted(*choice), int(number))
        return listeners.turn(spoken, uploads, _wanted(*choice), int(number))

    def hand_over(answer: Updates | _Handed) -> dict[Any, Any]:
        if isinstance(answer, dict):
            return _to_gradio(parts, answer)
        return {tabs: gr.Tabs(selected=EXAMINE_TAB)} | examine.open(*answer)

    told = [parts["gallery"], parts["news"]]
    parts["which"].input(_listener(listeners, parts)(turn), wanted, told, **_COMPARING)
    pressed = parts["gallery"].select(
        guard(press, listeners.fail, hand_over), wanted, [*told, tabs, *examine.opened], **_COMPARING
    )
    pressed.then(None, js=FOLLOW_SCRIPT, **PRIVATE)


def _listener(listeners: CompareListeners, parts: dict[str, Any]) -> Callable[..., Any]:
    """Makes listeners for Gradio: errors become the line of news, updates by name become updates by component."""
    return lambda answer: guard(answer, listeners.fail, lambda updates: _to_gradio(parts, updates))


def _wanted(evaluation: str | None, keys: list[str] | None, which: str | None) -> Wanted:
    return Wanted(evaluation, tuple(keys or ()), which or ALL)


def _to_gradio(parts: dict[str, Any], updates: Updates) -> dict[Any, Any]:
    if not updates:
        return gr.skip()  # an empty answer would be one of too few values to it
    return {
        parts[name]: properties["value"] if name == "uploads" else gr.update(**properties)
        for name, properties in updates.items()
    }


def _create_parts(language: str) -> dict[str, Any]:
    """The controls and places of the tab, in their order; their words come with the first answer."""
    parts: dict[str, Any] = {"uploads": gr.State((), time_to_live=STATE_LIFETIME_S)}
    with gr.Row(elem_id="compare-choice"):
        parts["evaluation"] = gr.Dropdown(
            [], label=say(language, "compare.evaluation"), filterable=False, scale=3, elem_id="compare-evaluation"
        )
        parts["reports"] = gr.CheckboxGroup(
            [], label=say(language, "compare.reports"), scale=5, elem_id="compare-reports"
        )
        parts["upload"] = gr.UploadButton(
            say(language, "compare.upload"),
            file_types=[".json", ".zip"],
            size="md",
            scale=0,
            min_width=280,
            elem_id="compare-upload",
        )
    parts |= {
        "news": gr.HTML(elem_id="compare-news", js_on_load=ANNOUNCE_SCRIPT, **PLAIN),
        "about": gr.HTML(elem_id="compare-about", **PLAIN),
        "figures": gr.HTML(elem_id="compare-figures", js_on_load=SORT_SCRIPT, **PLAIN),
        "contrasts": gr.HTML(elem_id="compare-contrasts", **PLAIN),
        "diagrams": gr.HTML(elem_id="compare-diagrams", **PLAIN),
    }
    with gr.Row(elem_id="compare-columns"):
        for number in range(MAX_COMPARED):
            with gr.Column(visible=False, min_width=300, elem_classes="compare-column") as column:
                parts |= {
                    f"column_{number}": column,
                    f"confusion_{number}": gr.Plot(elem_id=f"confusion-{number}"),
                    f"reliability_{number}": gr.Plot(elem_id=f"reliability-{number}"),
                }
    parts["loss"] = gr.Plot(visible=False, elem_id="compare-loss")
    parts["numbers"] = gr.HTML(elem_id="compare-numbers", **PLAIN)
    parts["gallery_heading"] = gr.HTML(elem_id="compare-gallery-heading", **PLAIN)
    parts["which"] = gr.Radio([], visible=False, label=say(language, "compare.which"), elem_id="compare-which")
    parts["gallery"] = gr.HTML(elem_id="compare-gallery", js_on_load=PRESS_SCRIPT, **PLAIN)
    parts["unread"] = gr.HTML(elem_id="compare-unread", **PLAIN)
    return parts
