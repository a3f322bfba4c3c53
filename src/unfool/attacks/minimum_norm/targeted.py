# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Targeted FMN: short paths towards several classes; the nearest of them go on.

A path ends at the minimum that it happens to reach, and which class lies behind the nearest stretch of the boundary
shows only on the way. So many paths are taken a little, few further, and one to the end, as successive halving does
(Jamieson & Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", AISTATS 2016). Steps
are a multiple of the ball's radius, so that they suit near and far boundaries alike.

Legend: B images of the batch, n of them on their way, T target classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.attacks.lean.nearest_classes import nearest_classes
from unfool.attacks.minimum_norm.fmn import LAST_STEP, Balls, FastMinimumNorm
from unfool.attacks.minimum_norm.search import (
    Look,
    MinimumNormSearch,
    NearestSoFar,
    annealed,
    column,
    follow,
    unit,
)
from unfool.attacks.objective import LabelLoss
from unfool.attacks.problem import Problem
from unfool.core.errors import SpecError

SHARES = (0.5, 0.3)
"""Shares of the steps of the first two rounds; the third takes what is left."""

KEPT = 2
"""Paths that go on in the second round."""

GAMMAS = (0.3, 0.2, 0.1)
"""By which share a radius changes at first, by round."""

FIRST_STEPS = {"linf": 12.0, "l2": 3.0, "l1": 6.0}
"""The first step of a round in radii of the ball, by norm; it falls to a hundredth."""

STEEPEST = {"l1": (0.7, 0.7, 1.0)}
"""Of the values that can move uphill, the share of the steepest that do, by norm and round; all where none is given. In
l1 near examples change few values; the last round, which comes to rest, moves all."""

FEWEST = 16
"""Steps that a path needs for its distance to say how near the boundary of its class is."""

ORDERS = {"linf": torch.inf, "l2": 2.0, "l1": 1.0}


@dataclass(frozen=True, kw_only=True)
class TargetedSearch(MinimumNormSearch):
    """Paths towards the classes with the nearest linearised boundaries, in rounds; the last climbs the margin.

    A proxy drives all rounds but the last, and the model itself confirms what it finds within reach.

    Args:
        steps: Points of all paths of an image together; each costs a forward and a backward pass.
        targets: Classes, at most; fewer where there are not enough steps.
    """

    steps: int = 200
    targets: int = 9

    def __post_init__(self) -> None:
        if self.steps < 1 or self.targets < 1:
            raise SpecError(f"steps {self.steps}, targets {self.targets} are not allowed; give 1 or more of each")
        if self.threat.norm_name not in FIRST_STEPS:
            raise SpecError(f"targeted FMN has no form for {self.threat}; give it a linf, l2 or l1 threat model")

    def look_around(self, problem: Problem[LabelLoss], within: float) -> NearestSoFar:
        """Three rounds; an image is done when its nearest example is ``within`` so far."""
        best = NearestSoFar(problem.images, self.threat)
        margin = problem.objective.with_loss("margin")
        rows = torch.arange(len(problem.images), device=problem.images.device)
        with torch.no_grad():
            best.look(rows, problem.images, problem.images, best.evaluate(margin, problem.images, rows))
        rows = (best.distances > within).nonzero().squeeze(1)
        if not len(rows):
            return best
        tried = max(1, min(self.targets, int(SHARES[0] * self.steps) // FEWEST))
        classes = nearest_classes(best, margin, problem.images[rows], rows, self.threat, self.targets)[:, :tried].T
        # The ranking cost as much as some of the steps.
        steps = max(3, self.steps - (self.targets + 3) // 2)
        paths = _Paths(problem, best, self, rows, classes, within)
        paths.go_on(steps=int(SHARES[0] * steps) // len(classes), number=0)
        paths.choose(min(KEPT, len(classes)))
        paths.go_on(steps=int(SHARES[1] * steps) // len(paths.classes), number=1)
        paths.choose(1)
        paths.go_on(steps=steps - int(SHARES[0] * steps) - int(SHARES[1] * steps), number=2)
        return best


class _Paths:
    """Of each image ``rows`` (n,): the ``classes`` (T, n) of its paths, their ``ends`` (T, n, C, H, W), which are their
    nearest examples or last points, and how far those are: ``reached`` (T, n), infinite for no example."""

    def __init__(
        self,
        problem: Problem[LabelLoss],
        best: NearestSoFar,
        settings: TargetedSearch,
        rows: Tensor,
        classes: Tensor,
        within: float,
    ):
        self.problem, self.best, self.settings, self.within = problem, best, settings, within
        self.rows, self.classes = rows, classes
        self.ends = problem.images[rows].expand(len(classes), *problem.images[rows].shape)
        self.reached = torch.full(classes.shape, torch.inf, dtype=torch.float64, device=rows.device)

    def go_on(self, *, steps: int, number: int) -> None:
        """So many points further on every path, in the round of a number; the last round has no target."""
        ends: list[Tensor] = []
        reached: list[Tensor] = []
        for classes, starts, so_far in zip(self.classes, self.ends, self.reached, strict=True):
            end, distance = self._further(classes, starts, so_far, steps, number)
            ends.append(end)
            reached.append(distance)
        self.ends, self.reached = torch.stack(ends), torch.stack(reached)

    def choose(self, count: int) -> None:
        """Leave the ``count`` nearest paths of each image."""
        order = self.reached.argsort(dim=0, stable=True)[:count]
        self.classes, self.reached = self.classes.gather(0, order), self.reached.gather(0, order)
        self.ends = self.ends[order, torch.arange(len(self.rows), device=order.device)]

    def _further(
        self, classes: Tensor, starts: Tensor, so_far: Tensor, steps: int, number: int
    ) -> tuple[Tensor, Tensor]:
        problem, best = self.problem, self.best
        images, proxy = problem.images, None
        objective = problem.objective.with_loss("margin")
        own = NearestSoFar(images, self.settings.threat)
        own.nearest[self.rows], own.last[self.rows], own.distances[self.rows] = starts, starts, so_far
        if number < len(GAMMAS) - 1:
            targets = torch.zeros(len(images), dtype=torch.int64, device=images.device)
            targets[self.rows] = classes
            proxy = problem.proxy_objective
            objective = (proxy or problem.objective).with_loss("difference", targets)
        on = best.distances[self.rows] > self.within
        if bool(on.any()):
            rows = self.rows[on]
            path = _Scaled(self.settings, number, images[rows], starts[on])
            follow(path, own if proxy is not None else best, own, objective, rows, steps, self.within)
        if proxy is not None:
            self._confirm(own)
        crossed = column(own.distances < torch.inf, images) > 0
        return torch.where(crossed, own.nearest, own.last)[self.rows], own.distances[self.rows]

    def _confirm(self, own: NearestSoFar) -> None:
        """Look by the model itself at what a proxy calls an example within reach, and add up the costs."""
        best, images = self.best, self.problem.images
        best.model_images += own.model_images
        best.has_gradient |= own.has_gradient
        best.zero_gradient &= own.zero_gradient
        rows = self.rows[(own.distances <= self.within)[self.rows] & (best.distances > self.within)[self.rows]]
        if len(rows):
            margin = self.problem.objective.with_loss("margin")
            with torch.no_grad():
                best.look(rows, own.nearest[rows], images[rows], best.evaluate(margin, own.nearest[rows], rows))


class _Scaled(Balls):
    """Points in balls, whose steps are so many radii long in the norm of the ball."""

    def __init__(self, settings: TargetedSearch, number: int, origins: Tensor, points: Tensor):
        first = FIRST_STEPS[settings.threat.norm_name]
        balls = FastMinimumNorm(threat=settings.threat, step_size=first, gamma=GAMMAS[number])
        super().__init__(balls, origins, points)
        self.steepest = STEEPEST.get(self.norm_name, (1.0,) * len(GAMMAS))[number]

    def _step(self, look: Look) -> Tensor:
        gradient = look.gradient if self.steepest == 1 else steepest_part(look.gradient, self.points, self.steepest)
        direction = unit(gradient, ORDERS[self.norm_name])
        size = annealed(self.settings.step_size, LAST_STEP * self.settings.step_size, look.share)
        return direction * column(size * self.radius, direction)


def steepest_part(gradient: Tensor, points: Tensor, share: float) -> Tensor:
    """The gradient (n, C, H, W) at the points, without what the box stops and all but a share of the largest values."""
    stopped = ((gradient > 0) & (points >= 1)) | ((gradient < 0) & (points <= 0))
    sizes = gradient.abs().masked_fill(stopped, 0.0).flatten(1)
    kept = max(1, int(share * sizes.shape[1]))
    least = sizes.kthvalue(sizes.shape[1] - kept + 1, dim=1).values
    return gradient.masked_fill(stopped | (gradient.abs() < column(least, gradient)), 0.0)
