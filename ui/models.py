"""The Models tab: every model of the zoo, what it needs and what stands behind it, to load and to unload."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from models.errors import ExhibitError
from ui import markup
from ui.errors import guard
from ui.inventory import take_inventory
from ui.layout import ANNOUNCE_SCRIPT
from ui.model_table import LOAD, UNLOAD, render_inventory, render_memory
from ui.services import LOADING_AT_ONCE, LOADING_QUEUE, Services
from ui.text import say
from ui.updates import Updates
from ui.wiring import PLAIN, PRIVATE

# A press of a row's button is told; ``busy`` marks the rows of models that are being loaded without drawing the table
# again, so that nothing moves under the finger; after a new table the focus returns to the row it was in.
TABLE_SCRIPT = """
let pressed = "";
const row = (id) => element.querySelector(`tr[data-model="${CSS.escape(id)}"]`);
const mark = () => element.querySelectorAll("tr[data-model]").forEach((each) => {
  const news = (props.busy ?? {})[each.dataset.model];
  const [button, box] = [each.querySelector("button"), each.querySelector(".news")];
  button.setAttribute("aria-disabled", String(Boolean(news)));
  box.hidden = !news;
  if (!news) return;
  box.querySelector("p").textContent = news.text;
  const bar = box.querySelector("progress");
  if (news.share == null) bar.removeAttribute("value"); else bar.value = 100 * news.share;
});
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-pick]");
  if (!button || button.getAttribute("aria-disabled") === "true") return;
  pressed = button.closest("tr").dataset.model;
  button.setAttribute("aria-disabled", "true");
  trigger("select", { index: button.dataset.pick, value: button.dataset.pick });
});
watch(["busy", "value"], () => {
  mark();
  if (pressed && document.activeElement === document.body) row(pressed)?.querySelector("button").focus();
});
mark();
"""


@dataclass(frozen=True)
class ModelListeners:
    """The behaviour of the tab over the shared services; keeps nothing of a visitor."""

    services: Services

    def show(self, language: str) -> Updates:
        """The table and the memory as they are now."""
        inventory = take_inventory(self.services)
        return {
            "memory": {"value": render_memory(language, inventory)},
            "table": {"value": render_inventory(language, inventory), "busy": self._busy()},
        }

    def press(self, language: str, pick: str) -> Iterator[Updates]:
        """A row's button: load or unload its model.

        Args:
            language: of the page.
            pick: ``model_table.pick_key`` of the button.
        """
        action, _, model_id = pick.partition("|")
        name = self.services.zoo.get(model_id).name
        if action == LOAD:
            yield self._line(say(language, "zoo.waiting", name=name)) | self._marks()
            yield from self._load(language, model_id, name)
        elif action == UNLOAD:
            self.services.loader.release(model_id)
            yield self.show(language) | self._line(say(language, "zoo.released", name=name))

    def fail(self, line: str) -> Updates:
        """One line says what went wrong."""
        return self._line(line, error=True) | self._marks()

    def _load(self, language: str, model_id: str, name: str) -> Iterator[Updates]:
        # Forgets an earlier failure: whoever presses the button has done something about it.
        self.services.loader.release(model_id)
        try:
            for _ in self.services.load(model_id):
                yield self._marks()
        except ExhibitError as error:
            yield self.show(language) | self._line(" ".join(str(error).split()), error=True)
            return
        status = self.services.loader.status(model_id)
        if status.reason:
            line = self._line(say(language, "zoo.stands_in", name=name, reason=status.reason), error=True)
        else:
            line = self._line(say(language, "zoo.ready", name=name))
        yield self.show(language) | line

    def _line(self, text: str, *, error: bool = False) -> Updates:
        return {"news": {"value": markup.render_status(text, error=error)}}

    def _marks(self) -> Updates:
        return {"table": {"busy": self._busy()}}

    def _busy(self) -> dict[str, Any]:
        under_way = self.services.board.under_way
        return {model_id: {"share": news.share, "text": news.text} for model_id, news in under_way.items()}


@dataclass(frozen=True)
class ModelsTab:
    """What the page needs of the tab.

    Attributes:
        tab: for its name.
        outputs: what ``show`` changes.
        show: the tab as it is now, in a language.
    """

    tab: gr.Tab
    outputs: list[Any]
    show: Callable[..., dict[Any, Any]]


def create_models_tab(services: Services, language: gr.Radio, first_language: str) -> ModelsTab:
    """The tab inside the Blocks being built.

    Args:
        services: what all visitors share.
        language: the page's language selector, the first input of every listener.
        first_language: the language to build in.
    """
    listeners = ModelListeners(services)
    first = listeners.show(first_language)
    with gr.Tab(say(first_language, "tab.models"), elem_id="models-tab") as tab:
        controls = {
            "memory": gr.HTML(elem_id="zoo-memory", **first["memory"], **PLAIN),
            "news": gr.HTML(elem_id="zoo-news", js_on_load=ANNOUNCE_SCRIPT, **PLAIN),
            "table": gr.HTML(elem_id="zoo", js_on_load=TABLE_SCRIPT, **first["table"], **PLAIN),
        }
    outputs: list[Any] = list(controls.values())

    def deliver(updates: Updates) -> dict[Any, Any]:
        return {controls[name]: gr.update(**properties) for name, properties in updates.items()}

    def press(spoken: str, event: gr.SelectData) -> Iterator[Updates]:
        yield from listeners.press(spoken, str(event.index))

    show = guard(listeners.show, listeners.fail, deliver)
    tab.select(show, [language], outputs, queue=False, **PRIVATE)
    controls["table"].select(
        guard(press, listeners.fail, deliver),
        [language],
        outputs,
        trigger_mode="multiple",
        concurrency_id=LOADING_QUEUE,
        concurrency_limit=LOADING_AT_ONCE,
        **PRIVATE,
    )
    return ModelsTab(tab, outputs, show)
