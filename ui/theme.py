"""The look: one typeface that ships with Gradio, one accent colour, light and dark; see also ``assets/*.css``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import gradio as gr
from gradio.themes.utils import colors, sizes

_ASSETS = Path(__file__).resolve().parent.parent / "assets"
STYLE_FILES: Final = tuple(
    _ASSETS / f"{name}.css" for name in ("style", "models", "language", "compare", "faithfulness", "triage", "verify")
)

# Blue stays apart from grey under every common colour-vision deficiency. 6.5:1 on white, 7.6:1 on the dark panel.
ACCENT_LIGHT: Final = "#0b5cad"
ACCENT_DARK: Final = "#79b4f2"

# A picture on the clipboard is put into the page's file input, wherever the keyboard's focus is.
HEAD: Final = """
<script>
document.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find((entry) => entry.type.startsWith("image/"));
  const input = document.querySelector("#picture input[type=file]");
  if (!file || !input) return;
  const carried = new DataTransfer();
  carried.items.add(file);
  input.files = carried.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
  event.preventDefault();
});
</script>
"""


def build_theme() -> gr.themes.Base:
    """The Gradio theme."""
    family = (gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "Noto Sans KR", "system-ui", "sans-serif")
    theme = gr.themes.Base(
        primary_hue=colors.blue,
        neutral_hue=colors.slate,
        radius_size=sizes.radius_sm,
        text_size=sizes.text_md,
        spacing_size=sizes.spacing_md,
        font=family,
        font_mono=family,
    )
    theme.set(**_surfaces(), **_controls())
    return theme


def _surfaces() -> dict[str, str]:
    return {
        "body_background_fill": "#f6f7f8",
        "body_background_fill_dark": "#0f1215",
        "body_text_color": "#15191e",
        "body_text_color_dark": "#e7eaee",
        "body_text_color_subdued": "#545e69",
        "body_text_color_subdued_dark": "#a2acb8",
        "background_fill_primary": "#ffffff",
        "background_fill_primary_dark": "#171b20",
        "background_fill_secondary": "#f6f7f8",
        "background_fill_secondary_dark": "#0f1215",
        "border_color_primary": "#d7dce2",
        "border_color_primary_dark": "#2d343c",
        "border_color_accent": ACCENT_LIGHT,
        "border_color_accent_dark": ACCENT_DARK,
        "color_accent": ACCENT_LIGHT,
        "color_accent_soft": "#e8f0f9",
        "color_accent_soft_dark": "#1b2a3b",
        "block_background_fill": "transparent",
        "block_background_fill_dark": "transparent",
        "block_border_width": "0px",
        "block_padding": "0px",
        "block_shadow": "none",
        "block_label_background_fill": "transparent",
        "block_label_background_fill_dark": "transparent",
        "block_label_border_width": "0px",
        "block_label_text_color": "*body_text_color",
        "block_label_text_color_dark": "*body_text_color",
        "block_title_text_color": "*body_text_color",
        "block_title_text_color_dark": "*body_text_color",
        "block_title_text_weight": "700",
        "block_title_text_size": "*text_sm",
        "block_label_text_size": "*text_sm",
        "block_label_text_weight": "700",
        "link_text_color": ACCENT_LIGHT,
        "link_text_color_dark": ACCENT_DARK,
        "layout_gap": "24px",
        "form_gap_width": "0px",
    }


def _controls() -> dict[str, str]:
    return {
        "button_primary_background_fill": ACCENT_LIGHT,
        "button_primary_background_fill_hover": "#094b8d",
        "button_primary_background_fill_dark": ACCENT_DARK,
        "button_primary_background_fill_hover_dark": "#9cc8f7",
        "button_primary_text_color": "#ffffff",
        "button_primary_text_color_dark": "#0c1621",
        "button_secondary_background_fill": "transparent",
        "button_secondary_background_fill_hover": "*color_accent_soft",
        "button_secondary_background_fill_dark": "transparent",
        "button_secondary_background_fill_hover_dark": "*color_accent_soft",
        "button_secondary_border_color": "#8a95a1",
        "button_secondary_border_color_dark": "#6b7682",
        "button_secondary_text_color": "*body_text_color",
        "button_secondary_text_color_dark": "*body_text_color",
        "button_border_width": "1px",
        "button_large_text_weight": "700",
        "button_transform_hover": "none",
        "checkbox_background_color_selected": ACCENT_LIGHT,
        "checkbox_background_color_selected_dark": "#2f7cc8",
        "checkbox_border_color": "#8a95a1",
        "checkbox_border_color_dark": "#6b7682",
        "checkbox_border_color_selected": ACCENT_LIGHT,
        "checkbox_border_color_selected_dark": ACCENT_DARK,
        "checkbox_border_color_focus": ACCENT_LIGHT,
        "checkbox_border_color_focus_dark": ACCENT_DARK,
        "checkbox_label_background_fill": "transparent",
        "checkbox_label_background_fill_dark": "transparent",
        "checkbox_label_background_fill_hover": "*color_accent_soft",
        "checkbox_label_background_fill_hover_dark": "*color_accent_soft",
        "checkbox_label_background_fill_selected": "transparent",
        "checkbox_label_background_fill_selected_dark": "transparent",
        "checkbox_label_border_width": "0px",
        "checkbox_label_border_width_dark": "0px",
        "checkbox_label_padding": "4px 6px 4px 0px",
        "checkbox_label_text_color_selected": "*body_text_color",
        "checkbox_label_text_color_selected_dark": "*body_text_color",
        "checkbox_label_shadow": "none",
        "input_background_fill": "*background_fill_primary",
        "input_background_fill_dark": "*background_fill_primary",
        "input_border_color": "#8a95a1",
        "input_border_color_dark": "#6b7682",
        "input_border_color_focus": ACCENT_LIGHT,
        "input_border_color_focus_dark": ACCENT_DARK,
        "input_border_width": "1px",
        "input_placeholder_color": "*body_text_color_subdued",
        "input_placeholder_color_dark": "*body_text_color_subdued",
        "input_shadow": "none",
        "input_shadow_focus": "none",
        "slider_color": ACCENT_LIGHT,
        "slider_color_dark": ACCENT_DARK,
        "loader_color": ACCENT_LIGHT,
        "loader_color_dark": ACCENT_DARK,
    }
