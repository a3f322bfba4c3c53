"""Gradio's theme in the colours and letters of the reports, so that light and dark follow the system for both."""

from __future__ import annotations

import inspect

from gradio.themes import Base

_LETTERS = (
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "Helvetica Neue",
    "Liberation Sans",
    "Arial",
    "sans-serif",
)
_COLOURS = {
    "body_background_fill": "var(--ground)",
    "body_text_color": "var(--ink)",
    "body_text_color_subdued": "var(--soft)",
    "background_fill_primary": "var(--card)",
    "background_fill_secondary": "var(--card)",
    "border_color_primary": "var(--line)",
    "border_color_accent": "var(--accent)",
    "color_accent": "var(--accent)",
    "color_accent_soft": "var(--white-box-tint)",
    "block_background_fill": "var(--card)",
    "block_border_color": "var(--line)",
    "block_label_background_fill": "var(--card)",
    "block_label_text_color": "var(--soft)",
    "block_title_text_color": "var(--ink)",
    "block_info_text_color": "var(--soft)",
    "input_background_fill": "var(--ground)",
    "input_background_fill_focus": "var(--ground)",
    "input_border_color": "var(--line)",
    "input_border_color_focus": "var(--accent)",
    "input_placeholder_color": "var(--soft)",
    "slider_color": "var(--accent)",
    "button_primary_background_fill": "var(--accent)",
    "button_primary_background_fill_hover": "var(--accent)",
    "button_primary_text_color": "var(--ground)",
    "button_primary_text_color_hover": "var(--ground)",
    "button_primary_border_color": "var(--accent)",
    "button_secondary_background_fill": "var(--card)",
    "button_secondary_background_fill_hover": "var(--hair)",
    "button_secondary_text_color": "var(--ink)",
    "button_secondary_text_color_hover": "var(--ink)",
    "button_secondary_border_color": "var(--line)",
    "checkbox_label_background_fill": "var(--ground)",
    "checkbox_label_background_fill_hover": "var(--hair)",
    "checkbox_label_background_fill_selected": "var(--white-box-tint)",
    "checkbox_label_text_color": "var(--ink)",
    "checkbox_label_text_color_selected": "var(--ink)",
    "checkbox_label_border_color": "var(--line)",
    "checkbox_label_border_color_selected": "var(--accent)",
    "checkbox_background_color": "var(--card)",
    "checkbox_background_color_selected": "var(--accent)",
    "checkbox_border_color": "var(--faint)",
    "checkbox_border_color_selected": "var(--accent)",
}


def theme() -> Base:
    """The theme; it names letters of the system alone, so that none are fetched."""
    known = inspect.signature(Base.set).parameters
    both = {**_COLOURS, **{f"{name}_dark": value for name, value in _COLOURS.items() if f"{name}_dark" in known}}
    base = Base(font=_LETTERS, font_mono=("ui-monospace", "Liberation Mono", "monospace"))
    return base.set(button_border_width="1px", checkbox_label_border_width="1px", input_border_width="1px", **both)
