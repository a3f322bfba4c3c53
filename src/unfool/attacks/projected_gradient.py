"""Projected gradient: the one engine for every perturbation that follows a gradient, up or down.

x ← project(x ± step · steepest(∇ objective(x)))  (Madry et al., ICLR 2018; in each norm the threat model's geometry).

Legend: B images, n of them in play at a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.attacks.best_so_far import BestSoFar, Goal, Perturbed
from unfool.attacks.objective import Objective, ObjectiveValue
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel

AGAIN = 0.5
"""Share of a step's images that stay, below which a pass for them alone costs less than a backward pass for all."""


@dataclass(frozen=True, kw_only=True)
class ProjectedGradient:
    """Settings of the engine.

    ``goal`` is what to return. ``uphill`` False descends (a reversal), and then best means lowest. For best and
    success, more steps or restarts never lower ``losses``.
    """

    threat: ThreatModel
    steps: int
    step_size: float
    random_start: bool = False
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

    def run(
        self,
        objective: Objective,
        images: Tensor,
        ids: Tensor,
        streams: Streams,
        search: Objective | None = None,
        finish: float = 0.1,
        starts: Tensor | None = None,
    ) -> Perturbed:
        """Perturb images (B, C, H, W) in [0,1], from ``starts`` instead of themselves if given.

        ``search`` is a cheaper, less precise form of the objective. It then drives all steps but the last share
        ``finish`` of them: every success it reports is confirmed by ``objective``, and what it leaves standing, or
        claimed wrongly, is finished with ``objective``'s own gradient. For ``best``, ``objective`` judges what the
        search likes best beside its own iterates. Raises NonFiniteError for a loss or gradient
        that is NaN or infinite.
        """
        course = BestSoFar(images, self.goal, uphill=self.uphill, gradients=self.steps > 0)
        for restart in range(self.restarts):
            rows = course.standing()
            if not len(rows):
                break
            origins, points = images[rows], (images if starts is None else starts)[rows]
            if self.random_start and starts is None:
                points = self.threat.sample(origins, ids[rows], streams.named("start").at(restart))
            self._climb(course, objective, search, self.steps - math.ceil(self.steps * finish), rows, origins, points)
        return course.result()

    def _climb(
        self,
        course: BestSoFar,
        objective: Objective,
        search: Objective | None,
        rough: int,
        rows: Tensor,
        origins: Tensor,
        points: Tensor,
    ) -> None:
        claimed: list[tuple[Tensor, Tensor, Tensor]] = []
        scout = (
            BestSoFar(course.best, "best", uphill=self.uphill)
            if search is not None and rough > 0 and self.goal == "best"
            else None
        )
        for step in range(self.steps):
            if step == rough and claimed:
                rows, origins, points = self._confirm(course, objective, claimed, rows, origins, points)
            if not len(rows):
                continue
            use = search if search is not None and step < rough else objective
            moving, reading = course.look(use, points, rows)
            if use is objective:
                keep = course.record(rows, points, reading)
            elif scout is not None:
                keep = scout.record(rows, points, reading)
            else:
                keep = self._unclaimed(reading, claimed, rows, origins, points)
            if keep is not None:
                rows, origins, points = rows[keep], origins[keep], points[keep]
                if len(rows) < AGAIN * len(keep):
                    keep = None
                    if len(rows):
                        moving, reading = course.look(use, points, rows)
            if len(rows):
                points = self._move(points, course.gradient(moving, reading, keep, rows), origins)
        if claimed:
            rows, origins, points = self._confirm(course, objective, claimed, rows, origins, points)
        if self.goal == "last_unchecked":
            course.best[rows] = points
        elif len(rows):
            with torch.no_grad():
                course.record(rows, points, course.read(objective, points, rows))
                if scout is not None:
                    course.record(rows, scout.best[rows], course.read(objective, scout.best[rows], rows))

    def _move(self, points: Tensor, gradient: Tensor, origins: Tensor) -> Tensor:
        direction = gradient if self.uphill else -gradient
        moved = points + self.threat.steepest(direction, points, origins, self.step_size)
        return self.threat.project(moved, origins)

    def _unclaimed(
        self,
        reading: ObjectiveValue,
        claimed: list[tuple[Tensor, Tensor, Tensor]],
        rows: Tensor,
        origins: Tensor,
        points: Tensor,
    ) -> Tensor | None:
        """Set aside what the search says is fooled; give the mask of the others, None if nobody leaves."""
        if self.goal != "success" or reading.fooled is None or not reading.fooled.any():
            return None
        claimed.append((rows[reading.fooled], origins[reading.fooled], points[reading.fooled]))
        return ~reading.fooled

    def _confirm(
        self,
        course: BestSoFar,
        objective: Objective,
        claimed: list[tuple[Tensor, Tensor, Tensor]],
        rows: Tensor,
        origins: Tensor,
        points: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Judge the search's successes by the objective; those that fail the test go back among the others."""
        back, back_origins, back_points = (torch.cat(parts) for parts in zip(*claimed, strict=True))
        claimed.clear()
        with torch.no_grad():
            keep = course.record(back, back_points, course.read(objective, back_points, back))
        if keep is not None:
            back, back_origins, back_points = back[keep], back_origins[keep], back_points[keep]
        return torch.cat([rows, back]), torch.cat([origins, back_origins]), torch.cat([points, back_points])
