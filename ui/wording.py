"""The controls' words and choices in a language; the page is built and later translated from the same values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from explain.catalog import CATALOG, DEFAULT_METHODS
from models.families.base import Stage
from models.prompts import STYLES
from models.schema import LoadState, Precision
from ui import markup
from ui.services import BASE, BOTH, TUNED, Choice, Services
from ui.text import say, say_or
from ui.updates import Updates

# Control to the key of its label; the controls whose choices have words of their own follow below.
_LABELS = {
    "picture": "picture",
    "task": "task",
    "models": "models",
    "settings": "settings",
    "methods": "methods",
    "target": "target",
    "detector": "detector",
    "asked": "asked",
    "style": "style",
    "adapter": "adapter",
    "precision": "precision",
    "layer": "layer",
    "viewer": "heatmap.slider",
    "model_shown": "heatmap.model",
    "method_shown": "heatmap.method",
    "opacity": "heatmap.opacity",
    "boxes": "heatmap.boxes",
    "shared": "heatmap.shared",
    "original": "evidence.original",
    "curves": "trust.curves",
}
_BUTTONS = {
    "examine": "examine",
    "stop": "stop",
    "download": "evidence.download",
    "write": "write",
    "measure": "trust.measure",
    "cancel": "trust.cancel",
    "check": "check",
}
# Controls whose choices are words of their own: ``CONTROL.CHOICE``.
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "style": tuple(STYLES),
    "adapter": (TUNED, BASE, BOTH),
    "precision": get_args(Precision),
    "layer": get_args(Stage),
}


def word_controls(language: str, services: Services) -> Updates:
    """Labels, placeholders and choices that do not depend on the question."""
    updates: Updates = {name: {"label": say(language, key)} for name, key in _LABELS.items()}
    updates |= {name: {"value": say(language, key)} for name, key in _BUTTONS.items()}
    updates["picture"] |= {"placeholder": say(language, "picture.drop"), "alt_text": say(language, "picture.alt")}
    updates["task"]["choices"] = [(say_or(language, f"task.{task}", task), task) for task in services.tasks]
    updates["methods"]["choices"] = [(entry.title, name) for name, entry in CATALOG.items()]
    updates["detector"]["choices"] = [
        (say(language, "detector.none"), ""),
        *(
            (_choice_words(language, services, choice), choice.spec.id)
            for choice in services.detectors()
            if choice.available
        ),
    ]
    for name, choices in _CHOICES.items():
        updates[name]["choices"] = [(say_or(language, f"{name}.{choice}", choice), choice) for choice in choices]
    updates["examples"] = {"value": _word_examples(language, services)}
    return updates


def word_task(language: str, services: Services, task: str) -> Updates:
    """The choices that depend on the question: models with what would answer for each, and labels."""
    choices = services.choices(task)
    missing = [(choice.spec, choice.status) for choice in choices if not choice.available]
    labels = [(markup.label_word(language, label), label) for label in services.labels(task)]
    return {
        "models": {"choices": [(_choice_words(language, services, c), c.spec.id) for c in choices if c.available]},
        "unavailable": {"value": markup.render_unavailable(language, missing)},
        "target": {"choices": [(say(language, "target.predicted"), ""), *labels]},
    }


def word_question(language: str, services: Services, models: Sequence[str]) -> Updates:
    """What is offered for the vision-language models among the chosen ones; hidden where there is none.

    Args:
        language: of the page.
        services: for the models' own questions.
        models: ids of the chosen models.
    """
    asked = [services.zoo.get(model_id) for model_id in models if services.reads_questions(model_id)]
    own = {spec.question for spec in asked if spec.question}
    shown = {"visible": bool(asked)}
    return {
        "vlm_panel": shown,
        "asked": {"placeholder": own.pop() if len(own) == 1 else say(language, "asked.own")},
        "precision": shown,
        "layer": shown,
    }


def choose_task(services: Services, task: str) -> Updates:
    """The values that a question starts with."""
    return {"models": {"value": list(services.default_models(task))}, "target": {"value": ""}}


def choose_first(services: Services) -> Updates:
    """The values that a page starts with."""
    task = services.tasks[0]
    first: Updates = {
        "task": {"value": task},
        "methods": {"value": list(DEFAULT_METHODS)},
        "detector": {"value": services.default_detector() or ""},
        "asked": {"value": ""},
        "style": {"value": "plain"},
        "adapter": {"value": TUNED},
        "precision": {"value": "auto"},
        "layer": {"value": "tower"},
    }
    return first | choose_task(services, task)


def _word_examples(language: str, services: Services) -> str:
    """The examples as small pictures with their names."""
    entries = [(each.name, say(language, f"example.{each.name}"), each.thumbnail) for each in services.examples]
    return f'<p class="caption">{markup.escape(say(language, "examples"))}</p>{markup.render_picks(entries)}'


def _choice_words(language: str, services: Services, choice: Choice) -> str:
    """A model's name and, where its own weights are not simply here, what would answer or happen."""
    name, status = choice.spec.name, choice.status
    if choice.at_hand:
        return name if status.state is LoadState.FINE_TUNED else f"{name} ({say(language, f'state.{status.state}')})"
    if status.state is LoadState.FINE_TUNED:
        return f"{name} ({say(language, 'models.download', size=f'{choice.spec.size_mb:.0f}')})"
    stand_in = markup.model_name(services.zoo.specs, status.loaded_from)
    return f"{name} ({say(language, 'models.stand_in', name=stand_in)})"
