"""The Examine tab as controls in their places; their words come in, their behaviour is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from explain.render import DEFAULT_OPACITY
from ui.updates import Updates
from ui.wiring import PLAIN

Parts = dict[str, gr.blocks.Block]

# One listener per block: buttons inside the HTML say which picture was chosen; ``shown`` marks it for the eye and for
# screen readers without drawing the block again.
PICK_SCRIPT = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-pick]");
  if (button) trigger("select", { index: button.dataset.pick, value: button.dataset.pick });
});
watch("shown", () => {
  element.querySelectorAll("button[data-pick]").forEach((button) => {
    button.setAttribute("aria-pressed", String(button.dataset.pick === props.shown));
  });
});
"""
# The region stays while its content changes, which is what screen readers listen to.
ANNOUNCE_SCRIPT = 'element.setAttribute("aria-live", "polite");'
STATE_LIFETIME_S = 3600
QUESTION_LENGTH = 600


@dataclass(frozen=True)
class Controls:
    """Every component of the tab, in the order of the page."""

    chosen: gr.State
    result: gr.State
    writings: gr.State
    stopping: gr.State
    measuring: gr.State
    picture: gr.Image
    facts: gr.HTML
    examples: gr.HTML
    task: gr.Radio
    models: gr.CheckboxGroup
    unavailable: gr.HTML
    vlm_panel: gr.Column
    asked: gr.Textbox
    style: gr.Radio
    adapter: gr.Radio
    write: gr.Button
    settings: gr.Accordion
    methods: gr.CheckboxGroup
    target: gr.Dropdown
    detector: gr.Dropdown
    precision: gr.Radio
    layer: gr.Radio
    examine: gr.Button
    stop: gr.Button
    status: gr.HTML
    verdict: gr.HTML
    rows: gr.HTML
    written: gr.HTML
    words: gr.HTML
    viewer_panel: gr.Column
    viewer_heading: gr.HTML
    viewer: gr.ImageSlider
    badge: gr.HTML
    legend: gr.HTML
    model_shown: gr.Radio
    method_shown: gr.Radio
    opacity: gr.Slider
    boxes: gr.Checkbox
    shared: gr.Checkbox
    trust_panel: gr.Column
    trust: gr.HTML
    curves: gr.Plot
    measured: gr.HTML
    measure: gr.Button
    cancel: gr.Button
    check: gr.Button
    checked: gr.HTML
    grid: gr.HTML
    detections: gr.HTML
    evidence_panel: gr.Column
    evidence: gr.HTML
    original: gr.Checkbox
    download: gr.Button
    archive: gr.DownloadButton


def create_controls(first: Updates) -> Controls:
    """The tab's two columns; one below the other where the window is narrow.

    Args:
        first: the controls' words, choices and values to start with.
    """
    parts: Parts = {
        "chosen": gr.State(None, time_to_live=STATE_LIFETIME_S),
        "result": gr.State(None, time_to_live=STATE_LIFETIME_S),
        "writings": gr.State((), time_to_live=STATE_LIFETIME_S),
        "stopping": gr.State(None, time_to_live=STATE_LIFETIME_S),
        "measuring": gr.State(None, time_to_live=STATE_LIFETIME_S),
    }
    with gr.Row(elem_id="columns"):
        with gr.Column(scale=4, min_width=300, elem_id="asked"):
            parts |= _asked(first)
        with gr.Column(scale=9, min_width=300, elem_id="found"):
            parts |= _found(first)
    return Controls(**parts)


def _asked(first: Updates) -> Parts:
    parts: Parts = {
        "picture": gr.Image(
            type="filepath",
            image_mode=None,
            sources=["upload", "clipboard"],
            buttons=["fullscreen"],
            height=280,
            elem_id="picture",
            **first["picture"],
        ),
        "facts": gr.HTML(elem_id="facts", **first["facts"], **PLAIN),
        "examples": gr.HTML(elem_id="examples", js_on_load=PICK_SCRIPT, shown="", **first["examples"], **PLAIN),
        "task": gr.Radio(elem_id="task", **first["task"]),
        "models": gr.CheckboxGroup(elem_id="models", **first["models"]),
        "unavailable": gr.HTML(elem_id="unavailable", **first["unavailable"], **PLAIN),
    }
    with gr.Column(elem_id="vlm-panel", **first["vlm_panel"]) as panel:
        parts |= {
            "vlm_panel": panel,
            "asked": gr.Textbox(
                lines=2, max_lines=6, max_length=QUESTION_LENGTH, elem_id="asked-text", **first["asked"]
            ),
            "style": gr.Radio(elem_id="style", **first["style"]),
            "adapter": gr.Radio(elem_id="adapter", **first["adapter"]),
            "write": gr.Button(elem_id="write", size="md", **first["write"]),
        }
    with gr.Accordion(open=False, elem_id="settings", **first["settings"]) as settings:
        parts |= {
            "settings": settings,
            "methods": gr.CheckboxGroup(elem_id="methods", **first["methods"]),
            "target": gr.Dropdown(elem_id="target", **first["target"]),
            "detector": gr.Dropdown(elem_id="detector", **first["detector"]),
            "precision": gr.Radio(elem_id="precision", **first["precision"]),
            "layer": gr.Radio(elem_id="layer", **first["layer"]),
        }
    with gr.Row(elem_id="actions"):
        parts["examine"] = gr.Button(variant="primary", elem_id="examine", scale=3, min_width=120, **first["examine"])
        parts["stop"] = gr.Button(interactive=False, elem_id="stop", scale=1, min_width=96, **first["stop"])
    parts["status"] = gr.HTML(elem_id="status", js_on_load=ANNOUNCE_SCRIPT, **first["status"], **PLAIN)
    return parts


def _found(first: Updates) -> Parts:
    parts: Parts = {
        "verdict": gr.HTML(elem_id="verdict", js_on_load=ANNOUNCE_SCRIPT, **first["verdict"], **PLAIN),
        "rows": gr.HTML(elem_id="rows", **PLAIN),
        "written": gr.HTML(elem_id="written", **PLAIN),
        "words": gr.HTML(elem_id="words", **PLAIN),
    }
    with gr.Column(visible=False, elem_id="viewer-panel") as panel:
        parts |= {"viewer_panel": panel, "viewer_heading": gr.HTML(**PLAIN)} | _viewer(first)
    parts |= _trust(first)
    parts["grid"] = gr.HTML(elem_id="grid", js_on_load=PICK_SCRIPT, shown="", **PLAIN)
    parts["detections"] = gr.HTML(elem_id="detections", **PLAIN)
    with gr.Column(visible=False, elem_id="evidence-panel") as panel:
        parts |= {"evidence_panel": panel, "evidence": gr.HTML(**PLAIN)}
        with gr.Row(elem_id="evidence-actions"):
            parts["download"] = gr.Button(elem_id="download", scale=0, min_width=280, **first["download"])
            parts["original"] = gr.Checkbox(
                value=True, elem_id="original", container=False, scale=1, min_width=200, **first["original"]
            )
        # Filled when asked for, then pressed by the page: a bundle is only written for those who want it.
        parts["archive"] = gr.DownloadButton(elem_id="archive")
    return parts


def _viewer(first: Updates) -> Parts:
    parts: Parts = {}
    with gr.Row(elem_id="viewer-row"):
        with gr.Column(scale=5, min_width=280):
            parts["viewer"] = gr.ImageSlider(
                interactive=False,
                show_label=False,
                buttons=["fullscreen"],
                elem_id="viewer",
                max_height=620,
                slider_position=35,
                **first["viewer"],
            )
            parts["badge"] = gr.HTML(elem_id="badge", **PLAIN)
            parts["legend"] = gr.HTML(elem_id="legend", **PLAIN)
        with gr.Column(scale=2, min_width=220, elem_id="viewer-controls"):
            parts["model_shown"] = gr.Radio(elem_id="model-shown", **first["model_shown"])
            parts["method_shown"] = gr.Radio(elem_id="method-shown", **first["method_shown"])
            parts["opacity"] = gr.Slider(0, 1, value=DEFAULT_OPACITY, step=0.05, elem_id="opacity", **first["opacity"])
            parts["boxes"] = gr.Checkbox(elem_id="boxes", container=False, **first["boxes"])
            parts["shared"] = gr.Checkbox(elem_id="shared", container=False, **first["shared"])
    return parts


def _trust(first: Updates) -> Parts:
    """How far to believe the map shown: words, curves, and what measuring is at."""
    with gr.Column(visible=False, elem_id="trust-panel") as panel:
        parts: Parts = {
            "trust_panel": panel,
            "trust": gr.HTML(elem_id="trust", **PLAIN),
            "curves": gr.Plot(visible=False, elem_id="trust-curves", **first["curves"]),
            "measured": gr.HTML(elem_id="measured", js_on_load=ANNOUNCE_SCRIPT, **PLAIN),
        }
        with gr.Row(elem_id="trust-actions"):
            parts["measure"] = gr.Button(elem_id="measure", size="md", scale=0, min_width=200, **first["measure"])
            parts["cancel"] = gr.Button(
                elem_id="cancel", size="md", scale=0, min_width=160, interactive=False, **first["cancel"]
            )
            parts["check"] = gr.Button(
                elem_id="check", size="md", scale=0, min_width=240, interactive=False, **first["check"]
            )
        parts["checked"] = gr.HTML(elem_id="checked", js_on_load=ANNOUNCE_SCRIPT, **PLAIN)
    return parts
