"""FAB: the nearest adversarial example, by steps onto the decision boundary as it looks from where one stands.

Croce & Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020, Algorithm 1.
The class of the network changes where the logit of another class overtakes the label's. A step goes to that boundary,
linearised, with a pull towards the clean image; once across, the point is brought a tenth of its way back.

Legend: B images of the batch, n of them standing, K classes. A *trial* is one image on its way to one boundary from
one start; P of them are in play.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.attacks.engines.projected_gradient import RECOMPUTE_BELOW
from unfool.attacks.objective import LabelLoss, Objective, ObjectiveValue
from unfool.attacks.problem import Perturbed, Problem
from unfool.core.errors import SpecError
from unfool.core.hyperplane import plane_distances, to_hyperplane
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.tasks.base import at_least_fp32

PULL = 0.1
"""Largest weight of the step that starts from the clean image (the paper's alpha_max)."""

OVERSHOOT = 1.05
"""Length of a step, in distances to the linearised boundary (eta)."""

BACK = 0.9
"""What is left of the way from the clean image when a point has crossed the boundary (beta)."""

STACK = 24 * 3 * 32 * 32
"""Pixel values of the trials that run at once: more would save little time, and take more memory than APGD does."""


@dataclass
class _Front:
    """Trials in play: ``rows`` (P,) their numbers, ``points`` and ``origins`` (P, C, H, W), the ``nearest`` point
    seen across the boundary, and its ``lengths`` (P,), infinite where there is none yet."""

    rows: Tensor
    origins: Tensor
    points: Tensor
    nearest: Tensor
    lengths: Tensor

    def kept(self, stays: Tensor) -> _Front:
        return self if bool(stays.all()) else _Front(**{name: value[stays] for name, value in vars(self).items()})


class _EveryBoundary:
    """The margin; after each call ``each`` (n, K - 1) holds the differences of which it is the highest, the logits of
    the other classes minus the label's, counted upwards from the label's class and around."""

    each: Tensor

    def __init__(self, objective: LabelLoss):
        self.objective = objective
        self.draws = objective.draws

    def __call__(self, images: Tensor, rows: Tensor) -> ObjectiveValue:
        vars(self).pop("each", None)  # its graph goes before another is made
        logits = self.objective.logits(images, rows)
        labels = self.objective.labels[rows][:, None]
        others = (labels + torch.arange(1, logits.shape[1], device=labels.device)) % logits.shape[1]
        self.each = logits.gather(1, others) - logits.gather(1, labels)
        return ObjectiveValue(losses=self.each.amax(1), fooled=logits.detach().argmax(1) != labels[:, 0])


@dataclass(frozen=True, kw_only=True)
class FastAdaptiveBoundary:
    """Settings of the engine.

    ``targets`` classes are aimed at, one after another, those with the highest logits on the clean image first; with 0
    each step goes to the boundary that seems nearest, whichever class lies behind it. Restarts after the first start
    at a random point half of eps away.

    The order of trials is the published one for one restart; more restarts go through all targets again. An image
    leaves with its first success inside the threat model, as nothing else counts there. Published code ends with the
    nearest point across the boundary; here that point (or, where the boundary was never reached, the last) is also
    brought into the ball and judged. Where several trials run at once, the result is that of running them in turn.
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

        A proxy's successes are confirmed where they occur, and an image that fails the test goes on. ``losses`` are
        the highest differences of a target's logit and the label's seen inside the ball, at least the clean margin.
        Raises NonFiniteError for a NaN loss or gradient.
        """
        objective, proxy, images = problem.objective, problem.proxy_objective, problem.images
        best_so_far = BestSoFar(images, "success", gradients=self.steps > 0)
        rows = torch.arange(len(images), device=images.device)
        every = _EveryBoundary(objective)
        with torch.no_grad():
            best_so_far.record(rows, images, best_so_far.evaluate(every, images, rows))
        count = min(self.targets, every.each.shape[1])
        columns = every.each.argsort(dim=1, descending=True, stable=True)[:, :count]
        targets = (objective.labels[:, None] + 1 + columns) % (every.each.shape[1] + 1)
        proxy_steps = problem.proxy_steps(self.steps)
        # The first trial goes alone: on most networks it ends most images, and the others would run for nothing.
        waiting, at_once = list(range(self.restarts * max(1, count) if self.steps else 0)), 1
        while waiting and len(rows := best_so_far.remaining_rows()):
            group, waiting = waiting[:at_once], waiting[at_once:]
            starts = [
                self._start(images[rows], problem.ids[rows], problem.streams.at(trial), trial // max(1, count))
                for trial in group
            ]
            classes = torch.cat([targets[rows, trial % count] for trial in group]) if count else None
            trials = rows.repeat(len(group))
            judges = [_trial_objective(objective, trials, classes)] * (self.steps + 1)
            if proxy is not None:
                judges[:proxy_steps] = [_trial_objective(proxy, trials, classes)] * proxy_steps
            tried = BestSoFar(images[trials], "success", gradients=self.steps > 0)
            self._run(tried, judges, torch.cat(starts), len(group))
            _merge_trials(best_so_far, rows, tried, len(group))
            at_once = max(1, STACK // max(1, len(rows) * images[0].numel()))
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

    def _run(self, best_so_far: BestSoFar, judges: Sequence[Objective], starts: Tensor, trials: int) -> None:
        """Take every step; ``judges`` are what looks at the starts and at the point after each step, the last of them
        the objective itself. The best_so_far's rows are ``trials`` times the same images."""
        rows = torch.arange(len(starts), device=starts.device)
        lengths = torch.full((len(starts),), math.inf, dtype=torch.float64, device=starts.device)
        front = _Front(rows, best_so_far.images.clone(), starts, starts.clone(), lengths)
        moving, value = best_so_far.evaluate_with_graph(judges[0], starts, rows)
        values, normals = self._plane(best_so_far, judges[0], moving, value, None, rows)
        for step, judge in enumerate(judges[1:], 1):
            points = self._step(front, values, normals)
            looked = [best_so_far.evaluate_with_graph(judge, points, front.rows)]
            value = looked[0][1]
            across = torch.zeros_like(front.rows, dtype=torch.bool) if value.fooled is None else value.fooled
            self._note(best_so_far, judges[-1], judge, front, points, value, across)
            del value
            # A trial is over when it, or an earlier one of its image, has succeeded.
            over = best_so_far.fooled.view(trials, -1).int().cummax(0).values.flatten().bool()
            stays = ~over[front.rows]
            front = front.kept(stays)
            if not len(front.rows) or step == self.steps:
                break
            values, normals = self._planes(best_so_far, judge, looked, stays, across, front)
        if len(front.rows):
            found = front.lengths < math.inf
            front.points[found] = front.nearest[found]
            inside = self.threat.project(front.points, front.origins)
            with torch.no_grad():
                best_so_far.record(front.rows, inside, best_so_far.evaluate(judges[-1], inside, front.rows))

    def _step(self, front: _Front, values: Tensor, normals: Tensor) -> Tensor:
        """From the point and from the clean image past the plane <w, x - point> = -value, and between the two."""
        both = at_least_fp32(torch.stack([front.points, front.origins])).flatten(2)
        normals = at_least_fp32(normals).flatten(1)
        values = values.to(normals.dtype)
        moves = to_hyperplane(both, normals, (both[0] * normals).sum(1) - values, self.threat.norm_name)
        lengths = self.threat.norm(moves.flatten(0, 1)).view(2, -1).clamp_(min=1e-8)
        pull = (lengths[0] / lengths.sum(0)).clamp_(max=PULL).to(both.dtype)
        ahead = both.add_(moves, alpha=OVERSHOOT)
        points = torch.lerp(ahead[0], ahead[1], pull[:, None]).clamp_(0.0, 1.0)
        return points.view_as(front.points).to(front.points.dtype)

    def _note(
        self,
        best_so_far: BestSoFar,
        aim: Objective,
        judge: Objective,
        front: _Front,
        points: Tensor,
        value: ObjectiveValue,
        across: Tensor,
    ) -> None:
        """Record what the objective says of points inside the ball, and bring back those across the boundary."""
        lengths = self.threat.norm(points.double() - front.origins.double())
        inside = lengths <= self.threat.eps
        if judge is not aim:
            inside &= across
        if bool(inside.any()):
            rows, found = front.rows[inside], points[inside]
            with torch.no_grad():
                said = ObjectiveValue(losses=value.losses[inside], fooled=across[inside])
                best_so_far.record(rows, found, said if judge is aim else best_so_far.evaluate(aim, found, rows))
        nearer = across & (lengths < front.lengths)
        front.nearest[nearer] = points[nearer]
        front.lengths[nearer] = lengths[nearer]
        share = 1.0 - (1.0 - BACK) * across.to(points.dtype)
        front.points = torch.lerp(front.origins, points, _column(share, points))

    def _planes(
        self,
        best_so_far: BestSoFar,
        judge: Objective,
        looked: list[tuple[Tensor, ObjectiveValue]],
        stays: Tensor,
        across: Tensor,
        front: _Front,
    ) -> tuple[Tensor, Tensor]:
        """Values (P,) and normals (P, C, H, W) where the trials are now: for those that have not crossed the boundary
        by the graph of the look that told so, for the others, which were brought back, by another look."""
        again = across[stays]
        settled = stays & ~across
        # Taken out of the caller's hands: two graphs at once would be the most memory of the whole attack.
        moving, value = looked.pop()
        # To every boundary there is a backward pass, beside which a forward pass costs little: waste none of them.
        least = 1.0 if isinstance(judge, _EveryBoundary) else RECOMPUTE_BELOW
        if int(settled.sum()) < least * len(settled):
            del moving, value
            moving, value = best_so_far.evaluate_with_graph(judge, front.points, front.rows)
            return self._plane(best_so_far, judge, moving, value, None, front.rows)
        ready = self._plane(best_so_far, judge, moving, value, settled, front.rows[~again])
        del moving, value
        if not bool(again.any()):
            return ready
        values = ready[0].new_empty(len(again))
        normals = ready[1].new_empty(front.points.shape)
        values[~again], normals[~again] = ready
        moving, value = best_so_far.evaluate_with_graph(judge, front.points[again], front.rows[again])
        values[again], normals[again] = self._plane(best_so_far, judge, moving, value, None, front.rows[again])
        return values, normals

    def _plane(
        self,
        best_so_far: BestSoFar,
        judge: Objective,
        moving: Tensor,
        value: ObjectiveValue,
        keep: Tensor | None,
        rows: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Value and gradient of the boundary that a trial aims at, or that seems nearest."""
        values = value.losses.detach()
        if isinstance(judge, _EveryBoundary) and judge.each.requires_grad:
            values, normals = self._nearest(judge.each, moving)
            value = ObjectiveValue(losses=(moving * normals).flatten(1).sum(1))  # whose gradient they are
        normals = best_so_far.gradient(moving, value, keep, rows)
        return (values if keep is None else values[keep]), normals

    def _nearest(self, each: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        """Of the differences (n, K - 1) that whose linearised boundary is nearest, (n,), and its gradient."""
        values, normals = each.detach()[:, 0].clone(), torch.zeros_like(moving)
        least = torch.full_like(values, math.inf)
        for difference in each.unbind(1):
            (gradient,) = torch.autograd.grad(difference.sum(), moving, retain_graph=True)
            distances = plane_distances(difference.detach(), gradient.flatten(1), self.threat.norm_name)
            nearer = (distances < least) | distances.isnan()  # nothing is nearer than NaN, so that it comes to light
            least[nearer], values[nearer] = distances[nearer].to(least.dtype), difference.detach()[nearer]
            normals[nearer] = gradient[nearer]
        return values, normals


def _trial_objective(objective: LabelLoss, trials: Tensor, targets: Tensor | None) -> Objective:
    """What the trials of these rows of the batch climb, by the number of the trial."""
    there = objective.on(trials)
    return _EveryBoundary(there) if targets is None else there.with_loss("difference", targets)


def _merge_trials(best_so_far: BestSoFar, rows: Tensor, tried: BestSoFar, trials: int) -> None:
    """Of each image's trials take the earliest that succeeded, or else the one with the highest loss."""
    fooled = tried.fooled.view(trials, -1)
    earliest = (fooled.int() * torch.arange(trials, 0, -1, device=rows.device)[:, None]).argmax(0)
    best = torch.where(fooled.any(0), earliest, tried.best_losses.view(trials, -1).argmax(0))
    chosen = best * len(rows) + torch.arange(len(rows), device=rows.device)
    said = ObjectiveValue(losses=tried.best_losses[chosen], fooled=tried.fooled[chosen])
    best_so_far.record(rows, tried.images[chosen], said)
    best_so_far.zero_gradient[rows] &= tried.zero_gradient.view(trials, -1).all(0)
    best_so_far.model_images += tried.model_images


def _column(values: Tensor, like: Tensor) -> Tensor:
    """(P,) as (P, 1, 1, 1)."""
    return values.view(-1, *[1] * (like.ndim - 1))
