"""APGD: projected gradient that sets its own step sizes (Croce & Hein, ICML 2020; in l1: Croce & Hein, ICML 2021).

Legend: B images of the batch, n of them still attacked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.attacks.engines.projected_gradient import RECOMPUTE_BELOW
from unfool.attacks.engines.step_schedule import HalvedSteps, SparseSteps, StepSchedule
from unfool.attacks.engines.trials import BestOfTrials, of_trials, trials_at_once
from unfool.attacks.objective import LabelLoss
from unfool.attacks.problem import Perturbed, Problem
from unfool.core.threat import ThreatModel

WIDE = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
"""Radii in eps and shares of the steps, for ``wide`` (2021, section 3.3)."""


@dataclass(frozen=True, kw_only=True)
class AutoProjectedGradient:
    """APGD in several runs, each from a start of its own.

    Args:
        threat: The allowed perturbations.
        steps: Gradient steps of each run.
        restarts: Runs; with targets, for each of them.
        targets: 0: climb the objective's loss as it is; else that many target classes in turn, the likeliest first.
        wide: Run in a ball of 3 eps first, then in one of 2 eps, then in the threat model.
        goal: ``success``: a fooled image leaves the batch. ``best``: go on for the highest loss.
    """

    threat: ThreatModel
    steps: int = 100
    restarts: int = 1
    targets: int = 0
    wide: bool = False
    goal: Literal["success", "best"] = "success"

    @property
    def repeats_trials(self) -> bool:
        """Targeted trials that a bf16 proxy nearly brought to success run once more, on the proxy's fp32 copy."""
        return self.targets > 0

    def run(self, problem: Problem[LabelLoss]) -> Perturbed:
        """Perturb the problem's images; a proxy's successes are confirmed by the objective where they occur.

        Of a search in bf16 whose near misses run again (the problem's ``near``), the first run towards a target is in
        fp32: it decides on most images. Raises NonFiniteError for a NaN loss or gradient.
        """
        best_so_far = BestSoFar(problem.images, self.goal, gradients=self.steps > 0)
        classes = self._target_classes(best_so_far, problem.objective, problem.images) if self.targets else None
        runs = self.restarts * (classes.shape[1] if classes is not None else 1)
        phases = self._phases(problem)
        for rows, group in trials_at_once(best_so_far, runs):
            trials = rows.repeat(len(group))
            targets = None if classes is None else torch.cat([classes[rows, run // self.restarts] for run in group])
            points = torch.cat([self._start(problem, rows, run, phases[0][0]) for run in group])
            exact = problem.near > 0 and targets is not None and group[0] == 0
            own = of_trials(_exact(problem) if exact else problem, trials, targets)
            best_of_trials = BestOfTrials(own.images, len(group), self.goal, gradients=self.steps > 0)
            self._run(best_of_trials, own, points, phases)
            if problem.near and targets is not None and not exact:
                self._repeat_near_misses(best_of_trials, own, points, phases)
            best_of_trials.merge_into(best_so_far, rows)
        return best_so_far.result()

    def _repeat_near_misses(
        self,
        best_of_trials: BestOfTrials,
        problem: Problem[LabelLoss],
        points: Tensor,
        phases: list[tuple[ThreatModel, int]],
    ) -> None:
        """Run targeted trials that a bf16 proxy brought near success once more, on its fp32 copy."""
        rows = torch.arange(len(points), device=points.device)
        rows = rows[best_of_trials.stays(rows)]
        if not len(rows):
            return
        clean = torch.zeros_like(best_of_trials.best_losses)
        with torch.no_grad():
            clean[rows] = best_of_trials.evaluate(problem.objective, problem.images[rows], rows).losses.to(clean.dtype)
        near = best_of_trials.near_misses(clean, problem.near)
        if len(near):
            exact = of_trials(_exact(problem), near, None)
            again = BestOfTrials(exact.images, 1, self.goal, gradients=self.steps > 0)
            self._run(again, exact, points[near], phases)
            best_of_trials.take(near, again)

    def _target_classes(self, best_so_far: BestSoFar, objective: LabelLoss, images: Tensor) -> Tensor:
        """Target classes (B, targets): on the clean images the likeliest first, without the label's own."""
        rows = torch.arange(len(images), device=images.device)
        with torch.no_grad():
            logits = objective.logits(images, rows)
        best_so_far.model_images += len(images) * objective.draws
        others = logits.scatter(1, objective.labels[:, None], -math.inf).argsort(dim=1, descending=True, stable=True)
        return others[:, : min(self.targets, logits.shape[1] - 1)]

    def _phases(self, problem: Problem[LabelLoss]) -> list[tuple[ThreatModel, int]]:
        """The balls of a run and the steps in each: the larger ones first if ``wide``."""
        if not self.wide or problem.starts is not None:
            return [(self.threat, self.steps)]
        steps = [math.ceil(share * self.steps) for _, share in WIDE[:-1]]
        steps.append(max(0, self.steps - sum(steps)))
        wider = [ThreatModel(self.threat.norm_name, self._radius(times)) for times, _ in WIDE[:-1]]
        return list(zip([*wider, self.threat], steps, strict=True))

    def _start(self, problem: Problem[LabelLoss], rows: Tensor, run: int, ball: ThreatModel) -> Tensor:
        """The first points (n, C, H, W) of a run."""
        if problem.starts is not None:
            return problem.starts[rows]
        streams = problem.streams.named("start").at(run)
        return self._schedule.start(ball, problem.images[rows], problem.ids[rows], streams)

    def _run(
        self,
        best_so_far: BestOfTrials,
        problem: Problem[LabelLoss],
        points: Tensor,
        phases: list[tuple[ThreatModel, int]],
    ) -> None:
        """Trials from ``points`` (P, C, H, W) through all phases."""
        objective, proxy, origins = problem.objective, problem.proxy_objective, problem.images
        rows = torch.arange(len(points), device=points.device)
        for threat, steps in phases[:-1]:
            points = self._climb(best_so_far, proxy or objective, None, rows, origins, points, threat, steps).best
        threat, steps = phases[-1]
        points = threat.project(points, origins)
        proxy_steps = problem.proxy_steps(steps)
        exact_steps = steps - proxy_steps
        if proxy is not None and proxy_steps:
            run = self._climb(best_so_far, proxy, objective, rows, origins, points, threat, proxy_steps)
            rows, origins, points = run.rows, run.origins, run.best
        # Where trials may run again, what the model itself says of their best points decides.
        if len(rows) and (exact_steps or self.goal == "best" or problem.near):
            self._climb(best_so_far, objective, objective, rows, origins, points, threat, exact_steps)

    @property
    def _schedule(self) -> type[StepSchedule]:
        return SparseSteps if self.threat.norm_name == "l1" else HalvedSteps

    def _radius(self, times: float) -> float:
        """A larger ball's eps, which for linf must not exceed the box."""
        return min(times * self.threat.eps, 1.0) if self.threat.norm_name == "linf" else times * self.threat.eps

    def _climb(
        self,
        best_so_far: BestSoFar,
        driver: LabelLoss,
        confirmer: LabelLoss | None,
        rows: Tensor,
        origins: Tensor,
        points: Tensor,
        threat: ThreatModel,
        steps: int,
    ) -> StepSchedule:
        """Climb ``driver``; ``confirmer`` confirms successes, None where they do not count (a larger ball)."""
        schedule = self._schedule(threat, steps, rows, origins, points)
        for step in range(steps + 1):
            if not len(schedule.rows):
                break
            self._evaluate(best_so_far, driver, confirmer, schedule, last=step == steps)
            if step < steps and len(schedule.rows):
                schedule.check(step)
                schedule.step()
        return schedule

    def _evaluate(
        self,
        best_so_far: BestSoFar,
        driver: LabelLoss,
        confirmer: LabelLoss | None,
        schedule: StepSchedule,
        last: bool,
    ) -> None:
        """Loss and gradient at the current points; fooled images leave. No gradient after the last step."""
        if last:
            with torch.no_grad():
                leaves = schedule.points
                value = best_so_far.evaluate(driver, schedule.points, schedule.rows)
        else:
            leaves, value = best_so_far.evaluate_with_graph(driver, schedule.points, schedule.rows)
        keep = None
        if confirmer is driver:
            keep = best_so_far.record(schedule.rows, schedule.points, value)
        elif confirmer is not None and self.goal == "success" and value.fooled is not None and value.fooled.any():
            claimed = value.fooled.nonzero().squeeze(1)
            rows, points = schedule.rows[claimed], schedule.points[claimed]
            with torch.no_grad():
                if best_so_far.record(rows, points, best_so_far.evaluate(confirmer, points, rows)) is not None:
                    keep = best_so_far.stays(schedule.rows)
        losses = value.losses.detach()
        if keep is not None:
            schedule.keep(keep)
            losses = losses[keep]
            if not len(schedule.rows):
                return
            if not last and len(losses) < RECOMPUTE_BELOW * len(keep):
                keep = None
                leaves, value = best_so_far.evaluate_with_graph(driver, schedule.points, schedule.rows)
        schedule.record(losses, None if last else best_so_far.gradient(leaves, value, keep, schedule.rows))


def _exact(problem: Problem[LabelLoss]) -> Problem[LabelLoss]:
    """The same search on the fp32 copy of a bf16 proxy."""
    proxy = problem.proxy_objective
    return replace(problem, proxy_objective=None if proxy is None else proxy.exact())
