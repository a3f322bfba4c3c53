"""What attacks search on in place of a model whose own gradients are of no use; the model judges all the same."""

from __future__ import annotations

from torch import nn

from unfool.attacks.proxy import SurrogateSettings
from unfool.core.streams import Streams
from unfool.models.surrogates.inner import Inner
from unfool.models.surrogates.pinned import Pinned
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


def bare(inner: Inner) -> SurrogateSettings:
    """The classifiers inside the model, without what it does around them."""
    return SurrogateSettings(
        name="bare",
        words=f"the classifier inside ({inner.words}), attacked bare and replayed on the model",
        why="the model does more than scale what goes in and out of it",
        make=inner.bare,
    )


def pinned(seed: int, blocked: Probe | None = None, *, fixed: bool = True) -> SurrogateSettings:
    """A random model with its draws pinned for each image, and gradients passed through its masked pieces.

    Args:
        seed: What the draws follow from.
        blocked: The masked pieces.
        fixed: Whether pinning reaches all that the model draws (`draws_stay_fixed`); if not, the words say so.
    """
    streams = Streams(seed).named("pinned draws")

    def make(model: nn.Module) -> nn.Module:
        return Pinned(model if blocked is None or not blocked.can_help else blocked.surrogate(model), streams)

    return SurrogateSettings(
        name="pinned",
        words="gradients with the draws of each image fixed" if fixed else "gradients with draws that cannot be fixed",
        why="the model is random, and gradients of other draws at every step may cancel each other",
        make=make,
    )
