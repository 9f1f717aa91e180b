"""The page as a whole: its frame, its language, its tabs and its endpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import gradio as gr

from rag.endpoint import read_endpoint
from ui import markup
from ui.api import add_endpoints
from ui.compare import create_compare_tab
from ui.examine import ExamineTab, create_examine_tab
from ui.models import ModelsTab, create_models_tab
from ui.services import Services
from ui.text import DEFAULT_LANGUAGE, LANGUAGES, choose_language, say
from ui.theme import HEAD, STYLE_FILES, build_theme
from ui.triage import create_triage_tab
from ui.verify import create_verify_tab
from ui.verify_desk import VerifyDesk

TITLE = "Exhibit"
MAX_UPLOAD = "256mb"
FILE_LIFETIME_S = 3600
# Each visitor's session can hold a decoded picture; the oldest sessions give way.
MAX_SESSIONS = 64
# Screen readers choose their voice by the language of the document.
_LANGUAGE_SCRIPT = "(...inputs) => { document.documentElement.lang = inputs[0]; return inputs; }"


def build_app(services: Services) -> gr.Blocks:
    """The page over its services; nothing is loaded and nothing served yet.

    Raises:
        EndpointError: the environment names a server for answers, and not wholly.
    """
    lifetime = (FILE_LIFETIME_S, FILE_LIFETIME_S)
    desk = VerifyDesk(services, read_endpoint(os.environ))
    with gr.Blocks(title=TITLE, fill_width=True, analytics_enabled=False, delete_cache=lifetime) as app:
        with gr.Row(elem_id="masthead"):
            masthead = gr.HTML(_masthead(DEFAULT_LANGUAGE), elem_id="title", apply_default_css=False)
            language = gr.Radio(
                [(name, code) for code, name in LANGUAGES.items()],
                value=DEFAULT_LANGUAGE,
                label=say(DEFAULT_LANGUAGE, "language"),
                elem_id="language",
            )
        with gr.Tabs(elem_id="tabs") as tabs:
            examine = create_examine_tab(services, language, DEFAULT_LANGUAGE)
            models = create_models_tab(services, language, DEFAULT_LANGUAGE)
            fill_compare = create_compare_tab(services, language, DEFAULT_LANGUAGE, tabs, examine)
            create_triage_tab(services, language, DEFAULT_LANGUAGE, tabs, examine)
            create_verify_tab(desk, language, DEFAULT_LANGUAGE)
        fill_compare(_wire_language(app, language, masthead, examine, models))
        add_endpoints(services, desk)
    app.queue(default_concurrency_limit=4, max_size=64)
    return app


def launch_options() -> Mapping[str, Any]:
    """What ``Blocks.launch`` needs to look right and to keep to itself."""
    return {
        "theme": build_theme(),
        "css_paths": list(STYLE_FILES),
        "head": HEAD,
        "share": False,
        "footer_links": ["api"],
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "pwa": False,
        "max_file_size": MAX_UPLOAD,
        "state_session_capacity": MAX_SESSIONS,
        "quiet": True,
    }


def _wire_language(app: gr.Blocks, language: gr.Radio, masthead: gr.HTML, tab: ExamineTab, models: ModelsTab) -> Any:  # noqa: ANN401 - Gradio has no name for an event that others follow
    """The page in its visitor's language; returns the event after which it is known."""
    private: dict[str, Any] = {
        "api_visibility": "private",
        "show_progress": "hidden",
        "queue": False,
        "preprocess": False,
    }

    def translate(spoken: str, *inputs: Any) -> dict[Any, Any]:  # noqa: ANN401 - the tab's own inputs
        words = {
            masthead: _masthead(spoken),
            language: gr.update(label=say(spoken, "language")),
            tab.tab: gr.update(label=say(spoken, "tab.examine")),
            models.tab: gr.update(label=say(spoken, "tab.models")),
        }
        return words | tab.translate(spoken, *inputs) | models.show(spoken)

    def greet(request: gr.Request) -> str:
        return choose_language(request.headers.get("accept-language", ""))

    outputs: list[Any] = [masthead, language, tab.tab, models.tab, *tab.outputs, *models.outputs]
    # Also when the browser's own language is chosen at the start; a page that stays English changes nothing.
    language.change(translate, [language, *tab.inputs], outputs, js=_LANGUAGE_SCRIPT, **private)
    greeted = app.load(greet, None, [language], **private)
    # What would answer may have changed since: a model was loaded in the other tab, a file was copied.
    for arrives in (app.load, tab.tab.select):
        arrives(tab.refresh, [language, *tab.inputs[:1]], tab.refreshed, **private)
    return greeted


def _masthead(spoken: str) -> str:
    return f"<h1>{TITLE}</h1><p>{markup.escape(say(spoken, 'tagline'))}</p>"
