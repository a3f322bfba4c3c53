"""APGD's steps and step sizes: halved where they no longer help in linf and l2, ever sparser in l1.

Legend: n images still attacked, all tensors in their order; N values in an image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel

MOMENTUM = 0.75
"""Weight of the new step; the last step has the rest (2020, section 3.1: alpha)."""
RISES = 0.75
"""Least share of steps that must have raised the loss since the last check (2020, section 3.1: rho)."""
SPARSER = 1.5
"""Divides the share of values that a step changes, and the step size, at a check in L1 (2021, algorithm 1)."""


class StepSchedule(ABC):
    """The images of a run: ``rows`` (n,) in the batch, ``origins``, current ``points``, the ``best`` points so far."""

    initial_size: float
    """First step size, in eps."""

    def __init__(self, threat: ThreatModel, steps: int, rows: Tensor, origins: Tensor, points: Tensor):
        self.threat = threat
        self.steps = steps
        self.rows, self.origins, self.points = rows, origins, points
        self.best, self.best_gradient = points, torch.zeros_like(points)
        self.gradient = self.best_gradient
        self.best_losses = torch.full((len(rows),), -torch.inf, device=points.device)
        self.losses = self.best_losses
        self.step_size = torch.full_like(self.best_losses, self.initial_size * threat.eps)
        self.steps_since_check = 0
        self.per_image = [
            "rows",
            "origins",
            "points",
            "best",
            "best_gradient",
            "gradient",
            "best_losses",
            "losses",
            "step_size",
        ]

    @staticmethod
    def start(threat: ThreatModel, origins: Tensor, ids: Tensor, draws: Streams) -> Tensor:
        """The first points (n, C, H, W): drawn in the ball."""
        return threat.sample(origins, ids, draws)

    def keep(self, mask: Tensor) -> None:
        """Keep the images of the mask (n,) alone."""
        for name in self.per_image:
            setattr(self, name, getattr(self, name)[mask])

    def record(self, losses: Tensor, gradient: Tensor | None) -> None:
        """Record the losses (n,) and the gradient at the points; no gradient after the last step."""
        losses = losses.to(self.best_losses.dtype)
        better = losses > self.best_losses
        better_4d = better.view(-1, *[1] * (self.points.ndim - 1))
        self.best = torch.where(better_4d, self.points, self.best)
        self.best_losses = torch.where(better, losses, self.best_losses)
        if gradient is not None:
            self.gradient = gradient
            self.best_gradient = torch.where(better_4d, gradient, self.best_gradient)
        self._count_rises((losses > self.losses) & torch.isfinite(self.losses))
        self.losses = losses

    @abstractmethod
    def _count_rises(self, rose: Tensor) -> None:
        """Count the losses that are higher than a step ago; ``rose`` (n,) says which."""

    def check(self, step: int) -> None:
        """After ``step`` steps: adapt the step sizes where a check is due."""
        if step == 0:
            return
        self.steps_since_check += 1
        if self.steps_since_check == self._period():
            self.steps_since_check = 0
            self._adapt()

    def _return_to_best(self, mask: Tensor) -> None:
        """Return the images of a mask (n,) to their best points."""
        mask_4d = mask.view(-1, *[1] * (self.points.ndim - 1))
        self.points = torch.where(mask_4d, self.best, self.points)
        self.gradient = torch.where(mask_4d, self.best_gradient, self.gradient)

    @abstractmethod
    def _period(self) -> int:
        """Steps between the last check and the next."""

    @abstractmethod
    def _adapt(self) -> None:
        """Adapt the step sizes."""

    @abstractmethod
    def step(self) -> None:
        """One step along the gradient."""


class HalvedSteps(StepSchedule):
    """Steps with momentum, halved where they no longer help (2020, algorithm 1)."""

    initial_size = 2.0

    def __init__(self, threat: ThreatModel, steps: int, rows: Tensor, origins: Tensor, points: Tensor):
        super().__init__(threat, steps, rows, origins, points)
        self.period = max(int(0.22 * steps), 1)
        self.previous = points
        self.rises = torch.zeros_like(self.step_size)
        self.halved = torch.ones_like(self.step_size, dtype=torch.bool)
        self.best_at_check = self.best_losses
        self.weight = 1.0
        self.per_image += ["previous", "rises", "halved", "best_at_check"]

    def _count_rises(self, rose: Tensor) -> None:
        self.rises = self.rises + rose

    def _period(self) -> int:
        return self.period

    def _adapt(self) -> None:
        slow = self.rises <= RISES * self.period
        stuck = ~self.halved & (self.best_at_check >= self.best_losses)
        self.halved = slow | stuck
        self.step_size = torch.where(self.halved, self.step_size / 2, self.step_size)
        self._return_to_best(self.halved)
        self.best_at_check = self.best_losses
        self.rises = torch.zeros_like(self.rises)
        self.period = max(self.period - max(int(0.03 * self.steps), 1), max(int(0.06 * self.steps), 1))

    def step(self) -> None:
        """A projected step, averaged with the last one and projected again (2020, equation 3)."""
        ahead = self.points + self.threat.steepest(self.gradient, self.points, self.origins, self.step_size)
        ahead = self.threat.project(ahead, self.origins)
        last_step = self.points - self.previous
        self.previous = self.points
        if self.weight == 1.0:
            self.weight, self.points = MOMENTUM, ahead
            return
        mixed = self.points + (ahead - self.points) * self.weight + last_step * (1 - self.weight)
        self.points = self.threat.project(mixed, self.origins)


class SparseSteps(StepSchedule):
    """Steps on the steepest values, fewer of them as the perturbation grows sparse (2021, algorithm 1)."""

    initial_size = 1.0

    def __init__(self, threat: ThreatModel, steps: int, rows: Tensor, origins: Tensor, points: Tensor):
        super().__init__(threat, steps, rows, origins, points)
        self.period = max(int(0.04 * steps), 1)
        self.values = points[0].numel() if len(points) else 1
        self.nonzero = self._count(points)
        self.share = self.nonzero / self.values / SPARSER
        self.per_image += ["nonzero", "share"]

    @staticmethod
    def start(threat: ThreatModel, origins: Tensor, ids: Tensor, draws: Streams) -> Tensor:
        """Normal noise projected onto the ball, which leaves few values changed: a sparse start."""
        noise = draws.normal(ids, tuple(origins.shape[1:])).to(origins.dtype)
        return threat.project(origins + noise, origins)

    def _count_rises(self, rose: Tensor) -> None:
        pass

    def _count(self, points: Tensor) -> Tensor:
        return (points != self.origins).flatten(1).sum(1).to(self.step_size.dtype)

    def _period(self) -> int:
        return self.period

    def _adapt(self) -> None:
        nonzero = self._count(self.best)
        sparser = nonzero < 0.95 * self.nonzero
        self.share = nonzero / self.values / SPARSER
        initial = self.initial_size * self.threat.eps
        self.step_size = torch.where(
            sparser, torch.full_like(self.step_size, initial), (self.step_size / SPARSER).clamp(min=initial / 10)
        )
        self.nonzero = nonzero
        self._return_to_best(sparser)

    def step(self) -> None:
        """A step on a share of the values, projected onto ball and box at once."""
        ahead = self.points + self.threat.steepest(self.gradient, self.points, self.origins, self.step_size, self.share)
        self.points = self.threat.project(ahead, self.origins)
