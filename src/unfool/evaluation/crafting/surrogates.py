"""What attacks search on in place of a model whose own gradients are of no use."""

from __future__ import annotations

from unfool.attacks import SurrogateSettings
from unfool.models.surrogates.probing import Probe


def straight_through(blocked: Probe) -> SurrogateSettings | None:
    """The model with gradients passed straight through its masked pieces; None where nothing leads past them."""
    if not blocked.can_help:
        return None
    return SurrogateSettings(
        name="straight-through",
        words=f"gradients passed straight through {blocked.words} (BPDA)",
        why="no usable gradient passes there",
        make=blocked.surrogate,
    )
