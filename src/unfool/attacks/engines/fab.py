"""FAB: the nearest adversarial example, by steps onto the linearised decision boundary.

Croce & Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020, algorithm 1.
The predicted class changes where the logit of another class exceeds the label's. A step goes onto that boundary,
linearised at the current point, with a weighted step from the clean image mixed in; a point that has crossed the
boundary goes back a tenth of its way to the clean image.

Legend: B images of the batch, n of them not fooled yet, K classes. A *trial* is one run for one image: from one start,
to the boundary of one target class or to the nearest; P trials run at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.attacks.engines.boundaries import AllDifferences, nearest_boundary
from unfool.attacks.engines.hyperplane import to_hyperplane
from unfool.attacks.engines.projected_gradient import RECOMPUTE_BELOW
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

BETA = 0.9
"""Share of the way from the clean image that a point keeps when it has crossed the boundary (the paper's beta)."""


@dataclass
class _Trials:
    """Running trials: their numbers ``rows`` (P,), ``origins`` and current ``points`` (P, C, H, W), the ``nearest``
    point so far that is across the boundary, and its distance ``lengths`` (P,), infinite before the first."""

    rows: Tensor
    origins: Tensor
    points: Tensor
    nearest: Tensor
    lengths: Tensor

    def select(self, mask: Tensor) -> _Trials:
        """The trials of a mask (P,)."""
        return self if bool(mask.all()) else _Trials(**{name: value[mask] for name, value in vars(self).items()})


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
    """

    threat: ThreatModel
    steps: int = 100
    targets: int = 9
    restarts: int = 1

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
        proxy_steps = problem.proxy_steps(self.steps)
        for rows, group in trials_at_once(best_so_far, self.restarts * max(1, count) if self.steps else 0):
            starts = [
                self._start(images[rows], problem.ids[rows], problem.streams.at(trial), trial // max(1, count))
                for trial in group
            ]
            classes = torch.cat([targets[rows, trial % count] for trial in group]) if count else None
            trials = rows.repeat(len(group))
            drivers = [_trial_objective(objective, trials, classes)] * (self.steps + 1)
            if proxy is not None:
                drivers[:proxy_steps] = [_trial_objective(proxy, trials, classes)] * proxy_steps
            best_of_trials = BestOfTrials(images[trials], len(group), "success", gradients=self.steps > 0)
            self._run(best_of_trials, drivers, torch.cat(starts))
            best_of_trials.merge_into(best_so_far, rows)
        return best_so_far.result()

    def _start(self, origins: Tensor, ids: Tensor, streams: Streams, restart: int) -> Tensor:
        """The clean images, or for a restart points half of eps away."""
        if restart == 0:
            return origins
        draws, shape = streams.named("start"), tuple(origins.shape[1:])
        linf = self.threat.norm_name == "linf"
        direction = draws.uniform(ids, shape, -1.0, 1.0) if linf else draws.normal(ids, shape)
        scale = (self.threat.eps / 2 / self.threat.norm(direction)).to(direction.dtype)
        return (origins + _column(scale, origins) * direction).clamp_(0.0, 1.0).to(origins.dtype)

    def _run(self, best_so_far: BestOfTrials, drivers: Sequence[Objective], starts: Tensor) -> None:
        """Run trials from their ``starts`` (P, C, H, W).

        ``drivers`` are evaluated at the start and after each step; the last of them is the objective itself.
        """
        objective = drivers[-1]
        rows = torch.arange(len(starts), device=starts.device)
        lengths = torch.full((len(starts),), math.inf, dtype=torch.float64, device=starts.device)
        trials = _Trials(rows, best_so_far.images.clone(), starts, starts.clone(), lengths)
        leaves, value = best_so_far.evaluate_with_graph(drivers[0], starts, rows)
        differences, normals = self._plane(best_so_far, drivers[0], leaves, value, None, rows)
        for step, driver in enumerate(drivers[1:], 1):
            points = self._step(trials, differences, normals)
            evaluated = [best_so_far.evaluate_with_graph(driver, points, trials.rows)]
            value = evaluated[0][1]
            across = torch.zeros_like(trials.rows, dtype=torch.bool) if value.fooled is None else value.fooled
            self._record(best_so_far, objective, driver, trials, points, value, across)
            del value
            stays = best_so_far.stays(trials.rows)
            trials = trials.select(stays)
            if not len(trials.rows) or step == self.steps:
                break
            differences, normals = self._next_planes(best_so_far, driver, evaluated, stays, across, trials)
        if len(trials.rows):
            crossed = trials.lengths < math.inf
            trials.points[crossed] = trials.nearest[crossed]
            inside = self.threat.project(trials.points, trials.origins)
            with torch.no_grad():
                best_so_far.record(trials.rows, inside, best_so_far.evaluate(objective, inside, trials.rows))

    def _step(self, trials: _Trials, differences: Tensor, normals: Tensor) -> Tensor:
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
        trials: _Trials,
        points: Tensor,
        value: ObjectiveValue,
        across: Tensor,
    ) -> None:
        """Record the points inside the ball; of those across the boundary (P,) keep the nearest, and step back."""
        lengths = self.threat.norm(points.double() - trials.origins.double())
        inside = lengths <= self.threat.eps
        if driver is not objective:
            inside &= across
        if bool(inside.any()):
            rows, inner = trials.rows[inside], points[inside]
            with torch.no_grad():
                if driver is objective:
                    inner_value = ObjectiveValue(losses=value.losses[inside], fooled=across[inside])
                else:
                    inner_value = best_so_far.evaluate(objective, inner, rows)
                best_so_far.record(rows, inner, inner_value)
        nearer = across & (lengths < trials.lengths)
        trials.nearest[nearer] = points[nearer]
        trials.lengths[nearer] = lengths[nearer]
        share = 1.0 - (1.0 - BETA) * across.to(points.dtype)
        trials.points = torch.lerp(trials.origins, points, _column(share, points))

    def _next_planes(
        self,
        best_so_far: BestSoFar,
        driver: Objective,
        evaluated: list[tuple[Tensor, ObjectiveValue]],
        stays: Tensor,
        across: Tensor,
        trials: _Trials,
    ) -> tuple[Tensor, Tensor]:
        """Differences (P,) and their gradients (P, C, H, W) at the trials' current points.

        Trials that have not crossed the boundary are where they were ``evaluated``, so its graph gives theirs; those
        that stepped back need another forward pass.
        """
        stepped_back = across[stays]
        unmoved = stays & ~across
        # Taken out of the caller's list: two graphs at once would be the most memory of the whole attack.
        leaves, value = evaluated.pop()
        # All differences take K - 1 backward passes, beside which a forward pass costs little: compute none in vain.
        least = 1.0 if isinstance(driver, AllDifferences) else RECOMPUTE_BELOW
        if int(unmoved.sum()) < least * len(unmoved):
            del leaves, value
            leaves, value = best_so_far.evaluate_with_graph(driver, trials.points, trials.rows)
            return self._plane(best_so_far, driver, leaves, value, None, trials.rows)
        first = self._plane(best_so_far, driver, leaves, value, unmoved, trials.rows[~stepped_back])
        del leaves, value
        if not bool(stepped_back.any()):
            return first
        differences = first[0].new_empty(len(stepped_back))
        normals = first[1].new_empty(trials.points.shape)
        differences[~stepped_back], normals[~stepped_back] = first
        rows = trials.rows[stepped_back]
        leaves, value = best_so_far.evaluate_with_graph(driver, trials.points[stepped_back], rows)
        second = self._plane(best_so_far, driver, leaves, value, None, rows)
        differences[stepped_back], normals[stepped_back] = second
        return differences, normals

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
