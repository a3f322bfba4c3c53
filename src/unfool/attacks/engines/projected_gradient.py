"""Projected gradient: the engine of every perturbation that takes steps of one size along a gradient, up or down.

x ← project(x ± step · steepest(∇ objective(x)))  (Madry et al., ICLR 2018; in each norm the threat model's geometry).

Legend: B images, n of them still attacked at a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.attacks.objective import Objective, ObjectiveValue
from unfool.attacks.problem import Goal, Perturbed, Problem
from unfool.core.errors import SpecError
from unfool.core.threat import ThreatModel

RECOMPUTE_BELOW = 0.5
"""Share of a step's images that stay, below which a new pass for them alone costs less than a backward pass for all."""

_Points = tuple[Tensor, Tensor, Tensor]
"""Rows (n,) in the batch, and the origins and points (n, C, H, W) of these images."""


@dataclass(frozen=True, kw_only=True)
class ProjectedGradient:
    """Projected gradient, uphill or downhill. For the goals best and success, more steps never lower ``losses``.

    Args:
        threat: The allowed perturbations.
        steps: Gradient steps of each run.
        step_size: Length of a step in the threat model's norm, in pixel units.
        random_start: Start from a uniform draw in the ball, not from the image itself.
        start_ball: The ball of the random start; default: the threat model's.
        restarts: Runs, each from a start of its own.
        uphill: False descends, as a reversal does; "best" is then the lowest.
        goal: Which point to return, see `Goal`.
    """

    threat: ThreatModel
    steps: int
    step_size: float
    random_start: bool = False
    start_ball: ThreatModel | None = None
    restarts: int = 1
    uphill: bool = True
    goal: Goal = "best"

    def __post_init__(self) -> None:
        if self.steps < 0 or self.restarts < 1:
            raise SpecError(
                f"steps {self.steps}, restarts {self.restarts} are not allowed; give steps ≥ 0, restarts ≥ 1"
            )
        if not (math.isfinite(self.step_size) and self.step_size >= 0):
            raise SpecError(f"step size {self.step_size} is not allowed; give a finite number of 0 or more")
        if self.restarts > 1 and not self.random_start:
            raise SpecError(f"{self.restarts} restarts without a random start repeat one run; set random_start")

    def run(self, problem: Problem[Objective]) -> Perturbed:
        """Perturb the problem's images.

        A proxy objective drives all steps but the last share. Every success that it reports is confirmed by the
        objective; images that it did not fool, or claimed wrongly, get the objective's own gradient in the last steps.
        For the goal "best", the point that the proxy likes best is evaluated by the objective at the end. Raises
        NonFiniteError for a loss or gradient that is NaN or infinite.
        """
        best_so_far = BestSoFar(problem.images, self.goal, uphill=self.uphill, gradients=self.steps > 0)
        for restart in range(self.restarts):
            rows = best_so_far.remaining_rows()
            if not len(rows):
                break
            origins, points = problem.images[rows], problem.first_points[rows]
            if self.random_start and problem.starts is None:
                ball = self.start_ball or self.threat
                points = ball.sample(origins, problem.ids[rows], problem.streams.named("start").at(restart))
            self._climb(best_so_far, problem, rows, origins, points)
        return best_so_far.result()

    def _climb(
        self, best_so_far: BestSoFar, problem: Problem[Objective], rows: Tensor, origins: Tensor, points: Tensor
    ) -> None:
        """One restart: all steps from ``points`` (n, C, H, W)."""
        objective, proxy = problem.objective, problem.proxy_objective
        proxy_steps = problem.proxy_steps(self.steps)
        claimed: list[_Points] = []
        proxy_best = (
            BestSoFar(best_so_far.images, "best", uphill=self.uphill) if proxy_steps and self.goal == "best" else None
        )
        for step in range(self.steps):
            if step == proxy_steps and claimed:
                rows, origins, points = self._confirm(best_so_far, objective, claimed, rows, origins, points)
            if not len(rows):
                continue
            driver = proxy if proxy is not None and step < proxy_steps else objective
            leaves, value = best_so_far.evaluate_with_graph(driver, points, rows)
            if driver is objective:
                keep = best_so_far.record(rows, points, value)
            elif proxy_best is not None:
                keep = proxy_best.record(rows, points, value)
            else:
                keep = self._set_aside(value, claimed, rows, origins, points)
            if keep is not None:
                rows, origins, points = rows[keep], origins[keep], points[keep]
                if len(rows) < RECOMPUTE_BELOW * len(keep):
                    keep = None
                    if len(rows):
                        leaves, value = best_so_far.evaluate_with_graph(driver, points, rows)
            if len(rows):
                points = self._step(points, best_so_far.gradient(leaves, value, keep, rows), origins)
        if claimed:
            rows, origins, points = self._confirm(best_so_far, objective, claimed, rows, origins, points)
        if self.goal == "last_unchecked":
            best_so_far.images[rows] = points
        elif len(rows):
            with torch.no_grad():
                best_so_far.record(rows, points, best_so_far.evaluate(objective, points, rows))
                if proxy_best is not None:
                    points = proxy_best.images[rows]
                    best_so_far.record(rows, points, best_so_far.evaluate(objective, points, rows))

    def _step(self, points: Tensor, gradient: Tensor, origins: Tensor) -> Tensor:
        direction = gradient if self.uphill else -gradient
        ahead = points + self.threat.steepest(direction, points, origins, self.step_size)
        return self.threat.project(ahead, origins)

    def _set_aside(
        self, value: ObjectiveValue, claimed: list[_Points], rows: Tensor, origins: Tensor, points: Tensor
    ) -> Tensor | None:
        """Append the images that the proxy calls fooled to ``claimed``; return the mask of the others, None if all."""
        if self.goal != "success" or value.fooled is None or not value.fooled.any():
            return None
        claimed.append((rows[value.fooled], origins[value.fooled], points[value.fooled]))
        return ~value.fooled

    def _confirm(
        self,
        best_so_far: BestSoFar,
        objective: Objective,
        claimed: list[_Points],
        rows: Tensor,
        origins: Tensor,
        points: Tensor,
    ) -> _Points:
        """Evaluate the proxy's successes by the objective; those that do not fool it join the remaining images."""
        back, back_origins, back_points = (torch.cat(parts) for parts in zip(*claimed, strict=True))
        claimed.clear()
        with torch.no_grad():
            keep = best_so_far.record(back, back_points, best_so_far.evaluate(objective, back_points, back))
        if keep is not None:
            back, back_origins, back_points = back[keep], back_origins[keep], back_points[keep]
        return torch.cat([rows, back]), torch.cat([origins, back_origins]), torch.cat([points, back_points])
