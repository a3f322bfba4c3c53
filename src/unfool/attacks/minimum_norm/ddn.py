# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""DDN: the direction of a change follows the gradient, its length rises and falls by itself.

Rony et al., "Decoupling direction and norm for efficient gradient-based L2 adversarial attacks and defenses",
CVPR 2019, algorithm 1.

Legend: n images on their way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.attacks.minimum_norm.search import Look, Path, PathSearch, annealed, column, unit
from unfool.core.errors import SpecError

LAST_STEP = 0.01
"""Length of the last step (as published); the first has length 1."""


@dataclass(frozen=True, kw_only=True)
class DecoupledNorm(PathSearch):
    """DDN, in l2.

    Args:
        radius: The first length of a change.
        gamma: By which share the length changes with each step.
    """

    radius: float = 1.0
    gamma: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threat.norm_name != "l2":
            raise SpecError(f"DDN has no form for {self.threat}; give it an l2 threat model")
        if not (0 < self.radius < math.inf and 0 < self.gamma < 1):
            raise SpecError(
                f"radius {self.radius}, gamma {self.gamma} are not allowed; give a finite radius above 0, and a gamma "
                "between 0 and 1"
            )

    def path(self, origins: Tensor, points: Tensor) -> Path:
        """Paths on spheres, the first of the settings' radius."""
        return _Spheres(self, origins, points)


class _Spheres(Path):
    """Points on spheres of ``radius`` (n,), or nearer where the box clips them."""

    def __init__(self, settings: DecoupledNorm, origins: Tensor, points: Tensor):
        super().__init__(origins, points)
        self.gamma = settings.gamma
        self.farthest = settings.geometry.norm(torch.maximum(origins, 1 - origins))
        self.radius = torch.full_like(self.farthest, settings.radius)

    def move(self, look: Look) -> None:
        """A step along the gradient, whose end is scaled to the new radius and clipped to the box."""
        self.radius = self.radius * torch.where(look.fooled, 1 - self.gamma, 1 + self.gamma)
        self.radius = torch.minimum(self.radius, self.farthest)
        delta = self.points - self.origins + annealed(1.0, LAST_STEP, look.share) * unit(look.gradient)
        length = torch.linalg.vector_norm(delta.flatten(1).double(), dim=1)
        scale = torch.where(length > 0, self.radius / length.clamp(min=1e-30), 0.0)
        self.points = (self.origins + delta * column(scale, delta)).clamp(0.0, 1.0)
