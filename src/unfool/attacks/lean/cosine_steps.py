"""Short runs of projected gradient whose steps shrink along a cosine, and whose loss changes on the way.

A run begins with steps of 2 eps, which cross the ball, and ends with steps of next to nothing: twenty of them reach
what APGD reaches in a hundred. The first steps lower the label's logit beside all others, the later ones raise one
class above it, so that a run does not commit itself to the class that is likeliest at the start.

Legend: B images of the batch, n of them attacked; P trials.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.attacks.engines.near_misses import lacking
from unfool.attacks.engines.projected_gradient import RECOMPUTE_BELOW
from unfool.attacks.engines.trials import BestOfTrials, of_trials, trials_at_once
from unfool.attacks.lean.nearest_classes import nearest_classes
from unfool.attacks.objective import LabelLoss
from unfool.attacks.problem import Perturbed, Problem
from unfool.core.threat import ThreatModel

CANDIDATES = 9
"""Likeliest classes of which targets are the nearest."""
FIRST_STEP = 2.0
"""Length of the first step, in eps."""
FALL = "fall"
"""The loss of a run's first steps."""


@dataclass(frozen=True, kw_only=True)
class CosineSteps:
    """Runs of a fixed number of steps, from the image itself and then from random points of the ball.

    Args:
        threat: The allowed perturbations.
        steps: Gradient steps of each run.
        targets: 0: climb the objective's loss as it is; else that many target classes in turn, the nearest first.
        restarts: Runs; with targets, for each of them.
        random_start: Begin the first run at a random point too.
        fall: Share of the steps, the first ones, that lower the label's logit only.
        near: Attack only images that lack at most this share of the rise in margin that the problem's ``starts``
            reached; None: attack all.
    """

    threat: ThreatModel
    steps: int = 20
    targets: int = 0
    restarts: int = 1
    random_start: bool = False
    fall: float = 0.3
    near: float | None = None

    def run(self, problem: Problem[LabelLoss]) -> Perturbed:
        """Perturb the problem's images; a proxy's successes are confirmed by the objective where they occur.

        Raises NonFiniteError for a NaN loss or gradient.
        """
        best_so_far = BestSoFar(problem.images, "success", gradients=self.steps > 0)
        chosen = self._chosen(best_so_far, problem)
        if len(chosen):
            subset = of_trials(problem, chosen, None)
            own = BestSoFar(subset.images, "success", gradients=self.steps > 0)
            self._run(own, subset)
            for name in ("images", "losses", "best_losses", "fooled", "zero_gradient", "has_gradient"):
                getattr(best_so_far, name)[chosen] = getattr(own, name)
            best_so_far.model_images += own.model_images
        return best_so_far.result()

    def _chosen(self, best_so_far: BestSoFar, problem: Problem[LabelLoss]) -> Tensor:
        """The rows of the images that are attacked: all, or those that were nearly fooled."""
        rows = torch.arange(len(problem.images), device=problem.images.device)
        if self.near is None or problem.starts is None:
            return rows
        share, evaluated = lacking(problem.objective, problem.images, problem.starts, rows)
        best_so_far.model_images += evaluated
        # An image that is left alone is not known to have a gradient.
        best_so_far.has_gradient[:] = True
        return rows[share <= self.near]

    def _run(self, best_so_far: BestSoFar, problem: Problem[LabelLoss]) -> None:
        """All runs for all images of a problem."""
        every = torch.arange(len(problem.images), device=problem.images.device)
        classes = None
        if self.targets:
            driver = problem.proxy_objective or problem.objective
            classes = nearest_classes(best_so_far, driver, problem.images, every, self.threat, CANDIDATES)
            classes = classes[:, : self.targets]
        runs = self.restarts * (classes.shape[1] if classes is not None else 1)
        for rows, group in trials_at_once(best_so_far, runs):
            trials = rows.repeat(len(group))
            targets = None if classes is None else torch.cat([classes[rows, run // self.restarts] for run in group])
            points = torch.cat([self._start(problem, rows, run) for run in group])
            best_of_trials = BestOfTrials(problem.images[trials], len(group), "success", gradients=self.steps > 0)
            self._climb(best_of_trials, of_trials(problem, trials, targets), points)
            best_of_trials.merge_into(best_so_far, rows)

    def _start(self, problem: Problem[LabelLoss], rows: Tensor, run: int) -> Tensor:
        """The first points (n, C, H, W) of a run."""
        images = problem.images[rows]
        if run % self.restarts == 0 and not self.random_start:
            return images
        return self.threat.sample(images, problem.ids[rows], problem.streams.named("start").at(run))

    def _climb(self, best_of_trials: BestOfTrials, problem: Problem[LabelLoss], points: Tensor) -> None:
        """All steps of the trials from ``points`` (P, C, H, W)."""
        objective, proxy, origins = problem.objective, problem.proxy_objective, problem.images
        proxy_steps, falling = problem.proxy_steps(self.steps), int(self.fall * self.steps)
        proxy_best = None if proxy is None else BestSoFar(origins, "best")
        rows = torch.arange(len(points), device=points.device)
        for step in range(self.steps + 1):
            driver = proxy if proxy is not None and step < proxy_steps + (proxy_steps == self.steps) else objective
            driver = driver.with_loss(FALL, driver.targets) if step < falling else driver
            last = step == self.steps
            if last:
                with torch.no_grad():
                    leaves, value = points, best_of_trials.evaluate(driver, points, rows)
            else:
                leaves, value = best_of_trials.evaluate_with_graph(driver, points, rows)
            fooled = value.fooled if value.fooled is not None else torch.zeros_like(rows, dtype=torch.bool)
            if step < falling or driver is not objective:
                if proxy_best is not None and step >= falling:
                    proxy_best.record(rows, points, value)
                self._confirm(best_of_trials, objective, points[fooled], rows[fooled])
            else:
                best_of_trials.record(rows, points, value)
            keep = best_of_trials.stays(rows)
            if last or not keep.any():
                rows = rows[keep]
                break
            if keep.all():
                keep = None
            else:
                rows, points = rows[keep], points[keep]
                if len(rows) < RECOMPUTE_BELOW * len(keep):
                    leaves, value = best_of_trials.evaluate_with_graph(driver, points, rows)
                    keep = None
            gradient = best_of_trials.gradient(leaves, value, keep, rows)
            points = self._step(points, gradient, origins[rows], step)
        if proxy_best is not None and len(rows):
            self._confirm(best_of_trials, objective, proxy_best.images[rows], rows)

    def _step(self, points: Tensor, gradient: Tensor, origins: Tensor, step: int) -> Tensor:
        size = FIRST_STEP * self.threat.eps * (1 + math.cos(math.pi * step / self.steps)) / 2
        return self.threat.project(points + self.threat.steepest(gradient, points, origins, size), origins)

    @staticmethod
    def _confirm(best_of_trials: BestOfTrials, objective: LabelLoss, points: Tensor, rows: Tensor) -> None:
        """Evaluate points by the objective itself, and record them."""
        if len(rows):
            with torch.no_grad():
                best_of_trials.record(rows, points, best_of_trials.evaluate(objective, points, rows))
