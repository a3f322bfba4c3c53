"""FAB: the nearest adversarial example, by steps onto the linearised decision boundary.

Croce & Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020, algorithm 1.
The predicted class changes where the logit of another class exceeds the label's. A step goes onto that boundary,
linearised at the current point, with a weighted step from the clean image mixed in; a point that has crossed the
boundary goes back a tenth of its way to the clean image.

A point that is no success and no nearer than before is not looked at where it probably lies across the boundary: that
saves up to a quarter of the passes and hardly changes where trials end. Those that end near success run once more,
with all points looked at.

Legend: B images of the batch, n of them not fooled yet, K classes. A *trial* is one run for one image: from one start,
to the boundary of one target class or to the nearest; P trials run at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.attacks.engines.boundaries import AllDifferences, nearest_boundary
from unfool.attacks.engines.fab_trials import LOOK_EVERY, FabTrials
from unfool.attacks.engines.hyperplane import to_hyperplane
from unfool.attacks.engines.trials import BestOfTrials, trials_at_once
from unfool.attacks.objective import LabelLoss, Objective, ObjectiveValue
from unfool.attacks.problem import Perturbed, Problem
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.tasks.base import at_least_fp32

ALPHA_MAX = 0.1
"""Largest weight of the step that starts from the clean image (the paper's alpha_max)."""

ETA = 1.05
"""Length of a step, in distances to the linearised boundary (the paper's eta)."""

NEAR_UNSEEN = 0.03
"""Share of its rise that a trial with unseen points may lack to run again, in linf and l2. On a robust network (linf)
rises end within 0.02 % of what they are with all points looked at (`benchmarks/bf16.py`); on narrow ones they differ
more. In l1, where they differ most, points are left unseen in bf16 alone, with `Problem.near`."""

BACKWARD = 1.5
"""About what a gradient by the images costs, in forward passes."""


@dataclass(frozen=True, kw_only=True)
class FastAdaptiveBoundary:
    """FAB for each image and each of its target classes in turn.

    An image leaves with its first success inside the threat model. A trial's nearest point across the boundary, or its
    last point if it never crossed, is brought into the ball and evaluated. Trials that run at once give the same result
    as in turn.

    Args:
        threat: The allowed perturbations.
        steps: Steps of each trial.
        targets: How many target classes, those with the highest logits on the clean image first; 0: each step goes to
            the boundary that is nearest in the linearisation, whichever class lies behind it.
        restarts: Rounds through all targets; those after the first start at a random point half of eps away.
        drop_hopeless: Leave a trial that, at `CAUTION` times its pace, would end outside the ball.
    """

    threat: ThreatModel
    steps: int = 100
    targets: int = 9
    restarts: int = 1
    drop_hopeless: bool = False

    repeats_trials: ClassVar[bool] = True
    """Trials that a bf16 proxy nearly brought to success run once more, on the proxy's fp32 copy."""

    def __post_init__(self) -> None:
        if self.steps < 0 or self.targets < 0 or self.restarts < 1:
            raise SpecError(
                f"steps {self.steps}, targets {self.targets}, restarts {self.restarts} are not allowed; "
                "give steps ≥ 0, targets ≥ 0, restarts ≥ 1"
            )

    def run(self, problem: Problem[LabelLoss]) -> Perturbed:
        """Perturb the problem's images; its ``starts`` are ignored.

        The objective confirms each success of a proxy where it occurs; an image that it does not confirm is attacked
        on. ``losses`` are the highest differences of a target's logit and the label's seen inside the ball, at least
        the clean margin. Raises NonFiniteError for a NaN loss or gradient.
        """
        objective, proxy, images = problem.objective, problem.proxy_objective, problem.images
        best_so_far = BestSoFar(images, "success", gradients=self.steps > 0)
        rows = torch.arange(len(images), device=images.device)
        margin = AllDifferences(objective)
        with torch.no_grad():
            best_so_far.record(rows, images, best_so_far.evaluate(margin, images, rows))
        count = min(self.targets, margin.differences.shape[1])
        columns = margin.differences.argsort(dim=1, descending=True, stable=True)[:, :count]
        targets = (objective.labels[:, None] + 1 + columns) % (margin.differences.shape[1] + 1)
        # Where each trial's rise begins, (B, trials): its target's difference, or of all the highest.
        clean = margin.differences.gather(1, columns) if count else margin.differences.amax(1, keepdim=True)
        near = problem.near or (0.0 if self.threat.norm_name == "l1" else NEAR_UNSEEN)
        closer = proxy.exact() if proxy is not None and problem.near else proxy
        for rows, group in trials_at_once(best_so_far, self.restarts * max(1, count) if self.steps else 0):
            starts = [
                self._start(images[rows], problem.ids[rows], problem.streams.at(trial), trial // max(1, count))
                for trial in group
            ]
            trials, column = rows.repeat(len(group)), torch.tensor(group, device=rows.device) % max(1, count)
            column = column.repeat_interleave(len(rows))
            classes = targets[trials, column] if count else None
            best_of_trials = BestOfTrials(images[trials], len(group), "success", gradients=self.steps > 0)
            self._run(best_of_trials, self._drivers(problem, proxy, trials, classes), torch.cat(starts), near > 0)
            if near and len(again := best_of_trials.near_misses(clean[trials, column], near)):
                drivers = self._drivers(problem, closer, trials[again], None if classes is None else classes[again])
                repeated = BestOfTrials(images[trials[again]], 1, "success", gradients=self.steps > 0)
                self._run(repeated, drivers, torch.cat(starts)[again])
                best_of_trials.take(again, repeated)
            best_of_trials.merge_into(best_so_far, rows)
        return best_so_far.result()

    def _drivers(
        self, problem: Problem[LabelLoss], proxy: LabelLoss | None, rows: Tensor, targets: Tensor | None
    ) -> list[Objective]:
        """What trials of the images ``rows`` (P,) are evaluated by, at their starts and after each step."""
        drivers = [_trial_objective(problem.objective, rows, targets)] * (self.steps + 1)
        if proxy is not None:
            proxy_steps = problem.proxy_steps(self.steps)
            drivers[:proxy_steps] = [_trial_objective(proxy, rows, targets)] * proxy_steps
        return drivers

    def _start(self, origins: Tensor, ids: Tensor, streams: Streams, restart: int) -> Tensor:
        """The clean images, or for a restart points half of eps away."""
        if restart == 0:
            return origins
        draws, shape = streams.named("start"), tuple(origins.shape[1:])
        linf = self.threat.norm_name == "linf"
        direction = draws.uniform(ids, shape, -1.0, 1.0) if linf else draws.normal(ids, shape)
        scale = (self.threat.eps / 2 / self.threat.norm(direction)).to(direction.dtype)
        return (origins + _column(scale, origins) * direction).clamp_(0.0, 1.0).to(origins.dtype)

    def _run(
        self, best_so_far: BestOfTrials, drivers: Sequence[Objective], starts: Tensor, guess: bool = False
    ) -> None:
        """Run trials from their ``starts`` (P, C, H, W).

        ``drivers`` are evaluated at the start and after each step; the last of them is the objective itself. ``guess``:
        take points as across the boundary, unseen, that most likely are, and of which nothing else would be asked.
        """
        objective = drivers[-1]
        rows = torch.arange(len(starts), device=starts.device)
        lengths = torch.full((len(starts),), math.inf, dtype=torch.float64, device=starts.device)
        never = torch.zeros_like(rows, dtype=torch.bool)
        looks = lengths.new_empty(len(rows), 0)
        trials = FabTrials(rows, best_so_far.images.clone(), starts, starts.clone(), lengths, looks, never, never)
        leaves, value = best_so_far.evaluate_with_graph(drivers[0], starts, rows)
        differences, normals = self._plane(best_so_far, drivers[0], leaves, value, None, rows)
        del leaves, value
        for step, driver in enumerate(drivers[1:], 1):
            trials.points = self._step(trials, differences, normals)
            # Points that step back need no gradient where they were.
            likely = trials.likely_to_cross() if step < self.steps else torch.ones_like(trials.crossed)
            looked_at = likely
            if guess and step < self.steps:
                looked_at = likely & ~self._guess_across(trials, likely)
            if bool(looked_at.any()):
                with torch.no_grad():
                    value = best_so_far.evaluate(driver, trials.points[looked_at], trials.rows[looked_at])
                self._record(best_so_far, objective, driver, trials, looked_at, value)
                stays = best_so_far.stays(trials.rows)
                trials, likely = trials.select(stays), likely[stays]
            if self.drop_hopeless and step % LOOK_EVERY == 0 and step < self.steps:
                hopeless = trials.hopeless(self.threat.eps, self.steps - step)
                self._end(best_so_far, objective, trials.select(hopeless))
                trials, likely = trials.select(~hopeless), likely[~hopeless]
            if not len(trials.rows) or step == self.steps:
                break
            trials, differences, normals = self._next_planes(best_so_far, objective, driver, trials, ~likely)
            if not len(trials.rows):
                break
        self._end(best_so_far, objective, trials)

    def _guess_across(self, trials: FabTrials, likely: Tensor) -> Tensor:
        """Of the ``likely`` trials (P,) bring those back that are neither in the ball nor nearer than before, unseen.

        Nearly all of these are across the boundary, and looking would tell nothing else of them.
        """
        lengths = self.threat.norm(trials.points.double() - trials.origins.double())
        sure = likely & (lengths > self.threat.eps) & (lengths >= trials.lengths)
        places = sure.nonzero().squeeze(1)
        trials.step_back(places, trials.points[places])
        trials.judge(places, torch.ones_like(places, dtype=torch.bool))
        return sure

    def _end(self, best_so_far: BestOfTrials, objective: Objective, trials: FabTrials) -> None:
        """Bring the nearest point of each trial into the ball, and evaluate it."""
        if not len(trials.rows):
            return
        points = torch.where(_column(trials.lengths < math.inf, trials.points), trials.nearest, trials.points)
        inside = self.threat.project(points, trials.origins)
        with torch.no_grad():
            best_so_far.record(trials.rows, inside, best_so_far.evaluate(objective, inside, trials.rows))

    def _step(self, trials: FabTrials, differences: Tensor, normals: Tensor) -> Tensor:
        """Steps from the point and from the clean image past the plane <w, x - point> = -difference, then their mean.

        The mean is weighted by the paper's alpha.
        """
        both = at_least_fp32(torch.stack([trials.points, trials.origins])).flatten(2)
        normals = at_least_fp32(normals).flatten(1)
        differences = differences.to(normals.dtype)
        displacements = to_hyperplane(both, normals, (both[0] * normals).sum(1) - differences, self.threat.norm_name)
        lengths = self.threat.norm(displacements.flatten(0, 1)).view(2, -1).clamp_(min=1e-8)
        alpha = (lengths[0] / lengths.sum(0)).clamp_(max=ALPHA_MAX).to(both.dtype)
        ahead = both.add_(displacements, alpha=ETA)
        points = torch.lerp(ahead[0], ahead[1], alpha[:, None]).clamp_(0.0, 1.0)
        return points.view_as(trials.points).to(trials.points.dtype)

    def _record(
        self,
        best_so_far: BestSoFar,
        objective: Objective,
        driver: Objective,
        trials: FabTrials,
        judged: Tensor,
        value: ObjectiveValue,
    ) -> None:
        """Record the points of the ``judged`` trials (P,), of ``value``, that are inside the ball.

        Of those across the boundary keep the nearest, and step back.
        """
        places = judged.nonzero().squeeze(1)
        points, origins = trials.points[places], trials.origins[places]
        across = torch.zeros_like(places, dtype=torch.bool) if value.fooled is None else value.fooled
        lengths = self.threat.norm(points.double() - origins.double())
        inside = lengths <= self.threat.eps
        if driver is not objective:
            inside &= across
        if bool(inside.any()):
            rows, inner = trials.rows[places[inside]], points[inside]
            with torch.no_grad():
                if driver is objective:
                    inner_value = ObjectiveValue(losses=value.losses[inside], fooled=across[inside])
                else:
                    inner_value = best_so_far.evaluate(objective, inner, rows)
                best_so_far.record(rows, inner, inner_value)
        nearer = across & (lengths < trials.lengths[places])
        trials.nearest[places[nearer]] = points[nearer]
        trials.lengths[places[nearer]] = lengths[nearer]
        trials.step_back(places[across], points[across])
        trials.judge(places, across)

    def _next_planes(
        self, best_so_far: BestOfTrials, objective: Objective, driver: Objective, trials: FabTrials, judged: Tensor
    ) -> tuple[FabTrials, Tensor, Tensor]:
        """The trials that stay, their differences (P,), and the gradients of these (P, C, H, W), at their points.

        The ``judged`` ones (P,) are at new points; those that step back need another forward pass.
        """
        leaves, value = best_so_far.evaluate_with_graph(driver, trials.points, trials.rows)
        if bool(judged.any()):
            fooled = None if value.fooled is None else value.fooled[judged]
            losses = value.losses.detach()[judged]
            self._record(best_so_far, objective, driver, trials, judged, ObjectiveValue(losses=losses, fooled=fooled))
        stays = best_so_far.stays(trials.rows)
        usable = stays & ~(judged & trials.crossed)
        moved = (judged & trials.crossed)[stays]
        trials = trials.select(stays)
        gradients = driver.differences.shape[1] if isinstance(driver, AllDifferences) else 1
        # In vain are the gradients of points that are not usable; all forward passes, where all are evaluated anew.
        if float((~usable).sum()) * (1 + gradients * BACKWARD) > len(usable):
            del leaves, value
            if not len(trials.rows):
                return trials, trials.lengths, trials.points
            leaves, value = best_so_far.evaluate_with_graph(driver, trials.points, trials.rows)
            return trials, *self._plane(best_so_far, driver, leaves, value, None, trials.rows)
        keep = None if bool(usable.all()) else usable
        first = self._plane(best_so_far, driver, leaves, value, keep, trials.rows[~moved])
        # Two graphs at once would be the most memory of the whole attack.
        del leaves, value
        if not bool(moved.any()):
            return trials, *first
        differences, normals = first[0].new_empty(len(moved)), first[1].new_empty(trials.points.shape)
        differences[~moved], normals[~moved] = first
        leaves, value = best_so_far.evaluate_with_graph(driver, trials.points[moved], trials.rows[moved])
        differences[moved], normals[moved] = self._plane(best_so_far, driver, leaves, value, None, trials.rows[moved])
        return trials, differences, normals

    def _plane(
        self,
        best_so_far: BestSoFar,
        driver: Objective,
        leaves: Tensor,
        value: ObjectiveValue,
        keep: Tensor | None,
        rows: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Difference and gradient of the target's boundary, or of the one that is nearest in the linearisation."""
        differences = value.losses.detach()
        if isinstance(driver, AllDifferences) and driver.differences.requires_grad:
            differences, normals = nearest_boundary(driver.differences, leaves, self.threat.norm_name)
            # An objective whose gradient is the normals, so that they are checked and counted like any other.
            value = ObjectiveValue(losses=(leaves * normals).flatten(1).sum(1))
        normals = best_so_far.gradient(leaves, value, keep, rows)
        return (differences if keep is None else differences[keep]), normals


def _trial_objective(objective: LabelLoss, rows: Tensor, targets: Tensor | None) -> Objective:
    """The objective of trials for these rows of the batch, called by the number of the trial."""
    of_trials = objective.subset(rows)
    return AllDifferences(of_trials) if targets is None else of_trials.with_loss("difference", targets)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """(P,) as (P, 1, 1, 1)."""
    return values.view(-1, *[1] * (like.ndim - 1))
