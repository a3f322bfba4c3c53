"""Methods of adversarial training, each one row: what is perturbed, what is climbed, and what is learnt.

A row of an outside package or plugin file is added in the same way: ``ADVERSARIAL_METHODS.add("name")(row)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from unfool.core.errors import SpecError
from unfool.core.registry import Registry
from unfool.tasks.paired_losses import divergence, mart, trades

LossOfLogits = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""Logits (n, K) of clean and of perturbed views, labels (n,) and the stage's ``beta`` → losses (n,)."""

LossOfLosses = Callable[[Tensor, Tensor, float], Tensor]
"""A task's losses (B,) on clean and on perturbed views, and the strength of its augmentation → losses (B,)."""

TRADES_START = 1e-3
"""Deviation, in pixel units, of TRADES' Gaussian start: at the image itself its divergence has no gradient."""

REWEIGHTING = 2 / 3
"""DynACL's λ (Luo et al., ICLR 2023): by how much of its own weight the clean loss gives way as augmentation decays."""


@dataclass(frozen=True, kw_only=True)
class AdversarialMethod:
    """How a stage learns from perturbed views.

    Without ``learns`` and ``combines`` the tasks' own losses on the perturbed views are learnt, without ``climbs`` they
    are what crafting climbs. A method with ``climbs`` or ``learns`` compares predictions of classes, and takes labels
    tasks only.

    Args:
        description: What it does, in a few words.
        perturbs: Which views of each image are perturbed. With "first" the others stay clean, and the task's loss sees
            all of them together.
        climbs: The loss of logits that crafting climbs.
        learns: The loss of logits that is learnt.
        combines: What is learnt of a task's losses on clean and on perturbed views.
        start_deviation: Deviation, in pixel units, of a Gaussian start of crafting; 0: the attack's own start.

    Raises:
        SpecError: if both ``learns`` and ``combines`` are given.

    Example:
        >>> from unfool.training.adversarial.methods import AdversarialMethod
        >>> def half(clean, perturbed, strength):
        ...     return (clean + perturbed) / 2
        >>> method = AdversarialMethod(description="half clean, half perturbed", combines=half)
        >>> method.keeps_clean, method.labels_only
        (True, False)
    """

    description: str
    perturbs: Literal["all", "first"] = "all"
    climbs: LossOfLogits | None = None
    learns: LossOfLogits | None = None
    combines: LossOfLosses | None = None
    start_deviation: float = 0.0

    def __post_init__(self) -> None:
        if self.learns is not None and self.combines is not None:
            raise SpecError("an adversarial method was given both learns and combines; give one of the two")
        # Lists of what is registered show the docstrings of items.
        object.__setattr__(self, "__doc__", f"{self.description[:1].upper()}{self.description[1:]}.")

    @property
    def labels_only(self) -> bool:
        """Whether it compares predictions of classes."""
        return self.climbs is not None or self.learns is not None

    @property
    def keeps_clean(self) -> bool:
        """Whether all clean views are learnt from too, in a pass of their own."""
        return self.learns is not None or self.combines is not None

    @property
    def may_separate(self) -> bool:
        """Whether clean views may have batch-norm statistics of their own."""
        return not self.labels_only and (self.combines is not None or self.perturbs == "first")


ADVERSARIAL_METHODS: Registry[AdversarialMethod] = Registry(
    "adversarial method",
    "unfool.training.adversarial",
    "unfool.adversarial_methods",
    instance_of=AdversarialMethod,
)


def dynamic_mean(clean: Tensor, perturbed: Tensor, strength: float) -> Tensor:
    """The mean of clean and perturbed losses, (B,), reweighted as the augmentation's strength falls from 1.

    The loss on perturbed views takes over a share `REWEIGHTING` · (1 - strength) of the other's weight (DynACL, Luo et
    al., ICLR 2023); at full strength this is the plain mean.
    """
    shift = REWEIGHTING * (1.0 - strength)
    return ((1.0 - shift) * clean + (1.0 + shift) * perturbed) / 2


def _divergence(clean: Tensor, perturbed: Tensor, labels: Tensor, beta: float) -> Tensor:
    return divergence(clean, perturbed)


ADVERSARIAL_METHODS.add("plain")(
    AdversarialMethod(description="the perturbed views alone (of contrast: adversarial-to-adversarial, ACL)")
)
ADVERSARIAL_METHODS.add("one-view")(
    AdversarialMethod(
        description="the first view of an image perturbed beside clean ones (adversarial-to-standard, ACL)",
        perturbs="first",
    )
)
ADVERSARIAL_METHODS.add("dual-stream")(
    AdversarialMethod(description="the mean of the losses on clean and perturbed views (ACL)", combines=dynamic_mean)
)
ADVERSARIAL_METHODS.add("trades")(
    AdversarialMethod(
        description="clean cross-entropy plus beta times the divergence, which crafting climbs (labels tasks)",
        climbs=_divergence,
        learns=trades,
        start_deviation=TRADES_START,
    )
)
ADVERSARIAL_METHODS.add("mart")(
    AdversarialMethod(
        description="boosted cross-entropy plus a weighted divergence (labels tasks)",
        learns=mart,
    )
)
