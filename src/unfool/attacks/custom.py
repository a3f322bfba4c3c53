"""Attacks put together from engines, without a class of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unfool.attacks.base import Attack, Settings
from unfool.attacks.ensemble import Part
from unfool.core.geometry import GEOMETRIES


@dataclass(frozen=True, repr=False)
class CustomAttack(Attack):
    """An attack put together from engines, without a class of its own.

    Args:
        threat: The allowed perturbations; those of the engines.
        label: Name in results and of the random draws.
        components: The parts, in order.
        details: What records keep as the attack's settings.
        success_passes: For a random model: passes in a row that must misclassify an image before it counts as fooled.
        eot_draws: Passes of a random model that each loss and gradient is averaged over.

    Example:
        >>> parts = attacks.PGD(Linf(0.1)).parts + attacks.Square(Linf(0.1), steps=50).parts
        >>> both = attacks.CustomAttack(Linf(0.1), label="pgd-then-square", components=parts)
        >>> both.part_names, both.learns_from
        (['pgd-10', 'square-50'], ['gradient', 'scores'])
    """

    components: tuple[Part, ...] = field(default=(), kw_only=True)
    details: Mapping[str, Any] = field(default_factory=dict[str, Any], kw_only=True, hash=False)
    success_passes: int = field(default=1, kw_only=True)  # pyright: ignore[reportIncompatibleMethodOverride] - a field in place of the property

    norms = tuple(GEOMETRIES)

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.components

    @property
    def settings(self) -> Settings:
        return dict(self.details)

    @property
    def unusual_settings(self) -> Settings:
        return dict(self.details)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.threat}, label={self.name!r}, {len(self.components)} parts)"
