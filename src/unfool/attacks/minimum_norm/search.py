# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""What minimum-norm attacks share: paths to the decision boundary, and the nearest point across it so far.

A path begins at the clean image, or for a later restart at a random point, and its method moves it with each gradient:
out while it is on the label's side, in once it has crossed. An attack inside a threat model is over with an image whose
nearest point lies within eps; `MinimumNormSearch.nearest` knows no eps.

Legend: B images of the batch, n of them still on their way.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.attacks.objective import LabelLoss, ObjectiveValue
from unfool.attacks.problem import Perturbed, Problem
from unfool.core.errors import SpecError
from unfool.core.geometry import GEOMETRIES, Geometry
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a method is told at its current points (n, C, H, W), all but ``share`` one per image (n,).

    ``share`` of the steps is done; ``gradient`` (n, C, H, W) leads uphill on ``losses``; ``fooled`` points lie across
    the boundary; ``distances`` are those of the points and ``nearest`` the least across the boundary so far, infinite
    before the first.
    """

    share: float
    gradient: Tensor
    losses: Tensor
    fooled: Tensor
    distances: Tensor
    nearest: Tensor


class Path(ABC):
    """The paths of n images: their ``origins`` and current ``points``, and what else a method keeps, one per image."""

    def __init__(self, origins: Tensor, points: Tensor):
        self.origins = origins
        self.points = points

    @abstractmethod
    def move(self, look: Look) -> None:
        """Set ``points`` to the next ones, inside the box."""

    def keep(self, mask: Tensor) -> None:
        """Leave only the images of a mask (n,)."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value[mask])


@dataclass(frozen=True, kw_only=True)
class MinimumNorms:
    """The nearest adversarial examples: ``images`` (B, C, H, W), and their ``distances`` (B,), infinite for none.

    An image without one comes back as it was; one that is misclassified as it is has the distance 0. ``losses`` (B,)
    are the highest seen; ``zero_gradient`` (B,) says which had no example, and no gradient at any step.
    """

    images: Tensor
    distances: Tensor
    losses: Tensor
    zero_gradient: Tensor
    model_images: int


@dataclass(frozen=True, kw_only=True)
class MinimumNormSearch(ABC):
    """A search for the nearest adversarial example in the norm of ``threat``.

    Args:
        threat: The norm, and the allowed perturbations of `run`.
    """

    threat: ThreatModel

    @property
    def geometry(self) -> Geometry:
        """The operations of the norm."""
        return GEOMETRIES[self.threat.norm_name]

    @abstractmethod
    def look_around(self, problem: Problem[LabelLoss], within: float) -> NearestSoFar:
        """The nearest examples of the problem's images; one that has an example ``within`` so far is done."""

    def nearest(self, problem: Problem[LabelLoss]) -> MinimumNorms:
        """The nearest examples, however far they are; raises NonFiniteError for a NaN loss or gradient."""
        # Nothing is nearer than the image itself, or than one changed pixel.
        best = self.look_around(_beyond_ties(problem), within=1.0 if self.threat.norm_name == "l0" else 0.0)
        return MinimumNorms(
            images=best.nearest,
            distances=best.distances,
            losses=best.losses,
            zero_gradient=best.zero_gradient & best.has_gradient & (best.distances == math.inf),
            model_images=best.model_images,
        )

    def run(self, problem: Problem[LabelLoss]) -> Perturbed:
        """Perturb the problem's images; an image leaves with its first example inside the threat model.

        For an image without one, its nearest example outside is brought into the ball and evaluated too. ``losses`` are
        the highest seen inside the ball. Raises as `nearest`.
        """
        problem = _beyond_ties(problem)
        best = self.look_around(problem, within=self.threat.eps)
        rows = (~best.fooled).nonzero().squeeze(1)
        if len(rows):
            # The nearest example leads the right way, and else the last point may.
            ends = torch.where(column(best.distances < math.inf, best.last) > 0, best.nearest, best.last)[rows]
            inside = self.threat.project(ends, problem.images[rows])
            with torch.no_grad():
                best.record(rows, inside, best.evaluate(problem.objective, inside, rows))
        return best.result()


def _beyond_ties(problem: Problem[LabelLoss]) -> Problem[LabelLoss]:
    """The problem, in which points on the boundary do not count as across it.

    The nearest examples lie so close to it that the two logits may be equal but for rounding, and the same model would
    classify the image rightly in a batch of another size: without this, 1 % of HopSkipJump's examples on digits.
    """
    proxy = problem.proxy_objective
    return dataclasses.replace(
        problem,
        objective=problem.objective.beyond_ties(),
        proxy_objective=None if proxy is None else proxy.beyond_ties(),
    )


@dataclass(frozen=True, kw_only=True)
class PathSearch(MinimumNormSearch):
    """A search along the gradient.

    Args:
        steps: Points of each path; each costs a forward and a backward pass.
        restarts: Paths; those after the first start at a random point, half as far as the nearest example so far.
        losses: Losses of `LOSSES`, on each of which every path is taken; default: that of the problem's objective.
    """

    steps: int = 100
    restarts: int = 1
    losses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise SpecError(
                f"steps {self.steps}, restarts {self.restarts} are not allowed; give steps ≥ 1, restarts ≥ 1"
            )

    @abstractmethod
    def path(self, origins: Tensor, points: Tensor) -> Path:
        """The method's paths from ``points`` (n, C, H, W)."""

    def look_around(self, problem: Problem[LabelLoss], within: float) -> NearestSoFar:
        """All paths; an image is done when its nearest example is ``within`` so far."""
        best = NearestSoFar(problem.images, self.threat)
        objectives = [problem.objective.with_loss(loss) for loss in self.losses] or [problem.objective]
        for number in range(self.restarts * len(objectives)):
            rows = (best.distances > within).nonzero().squeeze(1)
            if not len(rows):
                break
            restart, objective = divmod(number, len(objectives))
            origins = problem.images[rows]
            points = self._start(origins, problem.ids[rows], best.distances[rows], problem.streams.at(restart), restart)
            follow(self.path(origins, points), best, best, objectives[objective], rows, self.steps, within)
        return best

    def _start(self, origins: Tensor, ids: Tensor, nearest: Tensor, streams: Streams, restart: int) -> Tensor:
        """The clean images, or for a restart points drawn half as far as the nearest example so far."""
        if restart == 0:
            return origins
        farthest = self.geometry.norm(torch.maximum(origins, 1 - origins))
        radius = torch.minimum(nearest, farthest) / 2
        drawn = self.geometry.sample_within(ids, tuple(origins.shape[1:]), streams.named("start"), radius)
        return (origins + drawn).clamp_(0.0, 1.0).to(origins.dtype)


def follow(
    path: Path, best: NearestSoFar, own: NearestSoFar, objective: LabelLoss, rows: Tensor, steps: int, within: float
) -> None:
    """Move the paths of the images ``rows`` to so many points; an image is done when its nearest example is ``within``.

    ``best`` keeps what is nearest on all paths, and ``own``, which may be the same, on these alone.
    """
    for step in range(steps):
        leaves, value = best.evaluate_with_graph(objective, path.points, rows)
        distances, fooled = best.look(rows, path.points, path.origins, value)
        if own is not best:
            own.keep(rows, path.points, distances, fooled)
        stays = best.distances[rows] > within
        if step == steps - 1 or not bool(stays.any()):
            break
        gradient = best.gradient(leaves, value, None, rows)
        look = Look(
            share=step / steps,
            gradient=gradient,
            losses=value.losses.detach(),
            fooled=fooled,
            distances=distances,
            nearest=own.distances[rows],
        )
        path.move(look)
        path.points = path.points.to(path.origins.dtype)
        if not bool(stays.all()):
            rows = rows[stays]
            path.keep(stays)


@dataclass(frozen=True, kw_only=True)
class NearestExamples:
    """An engine that returns the nearest examples of a search, in a threat model that holds all images."""

    search: MinimumNormSearch

    @property
    def threat(self) -> ThreatModel:
        """All perturbations of the search's norm."""
        return self.search.threat

    def run(self, problem: Problem[LabelLoss]) -> Perturbed:
        """Perturb the problem's images; one without an example comes back as it was."""
        nearest = self.search.nearest(problem)
        return Perturbed(
            images=nearest.images,
            losses=nearest.losses,
            fooled=nearest.distances < math.inf,
            zero_gradient=nearest.zero_gradient,
            model_images=nearest.model_images,
        )


class NearestSoFar(BestSoFar):
    """The ``nearest`` points across the boundary (B, C, H, W), and their ``distances`` (B,), infinite before the first;
    what an attack inside the threat model returns, and the ``last`` points looked at."""

    def __init__(self, images: Tensor, threat: ThreatModel, *, gradients: bool = True):
        super().__init__(images, "best", gradients=gradients)
        self.threat = threat
        self.nearest = images.clone()
        self.last = images.clone()
        self.distances = torch.full((len(images),), math.inf, dtype=torch.float64, device=images.device)

    def look(self, rows: Tensor, points: Tensor, origins: Tensor, value: ObjectiveValue) -> tuple[Tensor, Tensor]:
        """Keep what is nearer; the distances (n,) of the points, and which lie across the boundary (n,)."""
        fooled = torch.zeros_like(rows, dtype=torch.bool) if value.fooled is None else value.fooled
        distances = self.threat.norm(points.double() - origins.double())
        if value.tied is not None:
            # An image that is misclassified as it is has the distance 0, whatever decides it.
            fooled = fooled | (value.tied & (distances == 0))
        self.keep(rows, points, distances, fooled)
        inside = distances <= self.threat.eps
        if bool(inside.any()):
            seen = ObjectiveValue(losses=value.losses.detach()[inside], fooled=fooled[inside])
            self.record(rows[inside], points[inside], seen)
        return distances, fooled

    def keep(self, rows: Tensor, points: Tensor, distances: Tensor, fooled: Tensor) -> None:
        """Keep the points across the boundary that are nearer, and all as the last."""
        nearer = fooled & (distances < self.distances[rows])
        self.nearest[rows[nearer]] = points[nearer]
        self.distances[rows[nearer]] = distances[nearer]
        self.last[rows] = points


def annealed(start: float, end: float, share: float) -> float:
    """A step size that falls from ``start`` to ``end`` along half a cosine, when ``share`` of the steps is done."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def column(values: Tensor, like: Tensor) -> Tensor:
    """(n,) as (n, 1, 1, 1), in the other's dtype."""
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


def unit(gradient: Tensor, order: float = 2.0) -> Tensor:
    """Each image's gradient divided by its norm, or zero; float32 or wider."""
    slope = gradient if gradient.dtype == torch.float64 else gradient.float()
    # Divided by the largest value first: the squares of a vanishing gradient would underflow to zero.
    largest = slope.flatten(1).abs().amax(1)
    slope = slope / column(torch.where(largest > 0, largest, 1.0), slope)
    return slope / column(torch.linalg.vector_norm(slope.flatten(1), ord=order, dim=1).clamp(min=1.0), slope)
