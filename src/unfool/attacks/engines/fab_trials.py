"""The running trials of FAB: where each is, what it found so far, and what it will probably do next.

Legend: a *trial* is one run for one image, from one start; P trials run at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BETA = 0.9
"""Share of the way from the clean image that a point keeps when it has crossed the boundary (the paper's beta)."""

LOOK_EVERY = 10
"""Steps between two looks at the pace of each trial."""

CAUTION, REACH = 2.0, 1.1
"""How many times the pace of the second half of its steps so far a trial may still take on, and how far from the image,
in eps, it may then still end: what is brought into the ball from there may be across the boundary."""


@dataclass
class FabTrials:
    """Running trials: their numbers ``rows`` (P,), ``origins`` and current ``points`` (P, C, H, W), the ``nearest``
    point so far that is across the boundary, and its distance ``lengths`` (P,), infinite before the first, and at all
    ``looks`` (P, looks) so far; whether the last step, and the one ``before``, ``crossed`` the boundary (P,)."""

    rows: Tensor
    origins: Tensor
    points: Tensor
    nearest: Tensor
    lengths: Tensor
    looks: Tensor
    crossed: Tensor
    before: Tensor

    def likely_to_cross(self) -> Tensor:
        """Which trials will probably cross the boundary with their next step, (P,).

        A step from a point that was brought back rarely reaches across, most others do, once the boundary is near.
        """
        return (self.lengths < math.inf) & ~(self.crossed & ~self.before)

    def step_back(self, places: Tensor, points: Tensor) -> None:
        """Bring the trials at ``places`` (k,), whose ``points`` (k, C, H, W) are across the boundary, nearer again."""
        back = torch.lerp(self.origins[places], points, BETA)
        # Not in place: a graph may hold the points.
        self.points = self.points.index_copy(0, places, back)

    def judge(self, places: Tensor, across: Tensor) -> None:
        """Note which of the trials at ``places`` (k,) are ``across`` (k,) the boundary after this step."""
        self.before = self.before.index_copy(0, places, self.crossed[places])
        self.crossed = self.crossed.index_copy(0, places, across)

    def hopeless(self, eps: float, left: int) -> Tensor:
        """Which trials, with ``left`` steps to go, will not come near the ball, (P,); those that never crossed may."""
        self.looks = torch.cat([self.looks, self.lengths[:, None]], 1)
        count = self.looks.shape[1]
        gains = (self.looks[:, max(0, count // 2 - 1)] - self.lengths) / max(1, count - count // 2)
        return (self.lengths - CAUTION * left / LOOK_EVERY * gains > REACH * eps) & (count > 1)

    def select(self, mask: Tensor) -> FabTrials:
        """The trials of a mask (P,)."""
        return self if bool(mask.all()) else FabTrials(**{name: value[mask] for name, value in vars(self).items()})
