# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""FMN: a ball around the image that shrinks while the point inside it is adversarial, and grows while it is not.

Pintor et al., "Fast minimum-norm adversarial attacks through adaptive norm constraints", NeurIPS 2021, algorithm 1.

Legend: n images on their way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.attacks.minimum_norm.search import Look, Path, PathSearch, annealed, unit
from unfool.core.errors import SpecError
from unfool.core.geometry import Geometry

LAST_GAMMA = 0.001
"""The last change of a radius (as published)."""

LAST_STEP = 0.01
"""The last step, as a share of the first (as published)."""

DUALS = {"linf": 1.0, "l2": 2.0, "l1": math.inf}
"""The order of the dual norm, in which a gradient's length tells how far a linear boundary is."""


@dataclass(frozen=True, kw_only=True)
class FastMinimumNorm(PathSearch):
    """FMN in linf, l2, l1 and l0, on a loss that is above 0 across the boundary.

    Args:
        step_size: The first step's Euclidean length.
        gamma: By which share the radius changes at first.
    """

    step_size: float = 1.0
    gamma: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.step_size < math.inf and 0 < self.gamma < 1):
            raise SpecError(
                f"step_size {self.step_size}, gamma {self.gamma} are not allowed; give a finite step above 0, and a "
                "gamma between 0 and 1"
            )

    def path(self, origins: Tensor, points: Tensor) -> Path:
        """Paths in balls that are unbounded until the boundary was crossed or estimated."""
        return Balls(self, origins, points)


class Balls(Path):
    """Points in balls of ``radius`` (n,), that of l0 in pixels; ``crossed`` (n,) says which crossed the boundary."""

    def __init__(self, settings: FastMinimumNorm, origins: Tensor, points: Tensor):
        super().__init__(origins, points)
        self.settings = settings
        self.norm_name = settings.threat.norm_name
        self.geometry: Geometry = settings.geometry
        self.farthest = self.geometry.norm(torch.maximum(origins, 1 - origins))
        self.radius = torch.full_like(self.farthest, 1.0 if self.norm_name == "l0" else math.inf)
        self.crossed = torch.zeros_like(self.farthest, dtype=torch.bool)

    def move(self, look: Look) -> None:
        """A step along the gradient, and back into the ball of the new radius."""
        gamma = annealed(self.settings.gamma, LAST_GAMMA, look.share)
        self.crossed = self.crossed | look.fooled
        radius = self._pixels(look, gamma) if self.norm_name == "l0" else self._lengths(look, gamma)
        self.radius = torch.minimum(radius, self.farthest)
        self.points = self.geometry.project(self.points + self._step(look), self.origins, self.radius)

    def _step(self, look: Look) -> Tensor:
        """The displacement along the gradient."""
        size = self.settings.step_size
        return annealed(size, LAST_STEP * size, look.share) * unit(look.gradient)

    def _lengths(self, look: Look, gamma: float) -> Tensor:
        """Radii (n,); before the boundary was crossed they reach a little beyond where it is in the linearisation."""
        slope = torch.linalg.vector_norm(look.gradient.flatten(1).double(), ord=DUALS[self.norm_name], dim=1)
        to_boundary = (look.distances + look.losses.double().abs() / slope.clamp(min=1e-12)) * (1 + gamma)
        outwards = torch.where(self.crossed, self.radius * (1 + gamma), to_boundary)
        return torch.where(look.fooled, torch.minimum(self.radius * (1 - gamma), look.nearest), outwards)

    def _pixels(self, look: Look, gamma: float) -> Tensor:
        """Numbers of pixels (n,), at least 1, that change by one or more."""
        inwards = torch.minimum(self.radius - 1, (self.radius * (1 - gamma)).floor())
        outwards = torch.maximum(self.radius + 1, (self.radius * (1 + gamma)).floor())
        return torch.where(look.fooled, torch.minimum(inwards, look.nearest), outwards).clamp(min=1.0)
