"""Classifiers that are known to be vulnerable: two-class heads, one per image, each with a known adversarial example.

Legend: B images, N inner points of each, D features, n images in play.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unfool.attacks.engines.projected_gradient import ProjectedGradient
from unfool.attacks.objective import ObjectiveValue
from unfool.attacks.problem import Problem
from unfool.core.errors import SpecError
from unfool.core.geometry import GEOMETRIES
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.models.network import memory_format_of
from unfool.tasks.base import at_least_fp32

INNER_SHARE = 0.95
"""Radius of the ball that inner points are drawn from, as a share of eps: the paper's."""

RIDGE = 1.0
"""Added to the inner points' scatter, in units of its mean eigenvalue. A quarter of it makes heads on few features so
rugged that PGD's random start decides; three times as much, so smooth that FGSM comes near PGD on robust networks."""

CLIMB_STEPS, CLIMB_STEP = 50, 0.25
"""How the known adversarial example climbs its head's score: steps, and their size as a share of eps; PGD-50's own."""

CLOSENESS = 0.92
"""Where the boundary lies between the highest inner point (0) and the level to reach (1). On networks for CIFAR-10 and
digits, robust or not, in the three norms, PGD-50 gets there on 98 to 100 % of the images, and FGSM on 0 to 56 %."""


def representation(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model's ``features`` as vectors: images (n, C, H, W) → (n, D), float32 or wider; SpecError if it has none."""
    features: Callable[[Tensor], Tensor] | None = getattr(model, "features", None)
    if features is None or not callable(features):
        raise SpecError(
            f"{type(model).__name__} names no representation, and the binarization test puts its heads on one; "
            "name it with --features MODULE.PATH, or give the model a method features(images)"
        )
    memory = memory_format_of(model)
    return lambda images: at_least_fp32(features(images.to(memory_format=memory))).flatten(1)


@dataclass(frozen=True, kw_only=True)
class BinarizationHeads:
    """Two-class linear heads on frozen features: class 0 for ``images`` and their neighbours, class 1 for ``points``.

    ``images`` and ``points`` are (B, C, H, W), the points in ball ∩ box; ``centres`` and ``weights`` (B, D) and
    ``offsets`` (B,) are float32. Called with images (n, C, H, W) and the rows (n,) of their heads, they give logits
    (n, 2): ∓1/2 · ((features - centre)·weight - offset).
    """

    features: Callable[[Tensor], Tensor]
    images: Tensor
    ids: Tensor
    points: Tensor
    centres: Tensor
    weights: Tensor
    offsets: Tensor

    def __call__(self, images: Tensor, rows: Tensor) -> Tensor:
        margins = self._margins(images, rows)
        return torch.stack([-margins, margins], 1) / 2

    def margin_objective(self, images: Tensor, rows: Tensor) -> ObjectiveValue:
        """The margins as an objective to maximise, without labels or successes."""
        return ObjectiveValue(losses=self._margins(images, rows))

    def _margins(self, images: Tensor, rows: Tensor) -> Tensor:
        # Centred before the product: weights are large where features vary little, and so is what would cancel.
        return ((self.features(images) - self.centres[rows]) * self.weights[rows]).sum(1) - self.offsets[rows]

    def fooled(self, images: Tensor) -> Tensor:
        """Whether each head predicts class 1 for its image (B, C, H, W), (B,) bool."""
        with torch.no_grad():
            return self(images, torch.arange(len(images), device=images.device)).argmax(1) == 1

    def on(self, rows: Tensor) -> BinarizationHeads:
        """The heads of some rows, which count from 0."""
        return replace(self, **{name: value[rows] for name, value in vars(self).items() if isinstance(value, Tensor)})


def fit_heads(
    features: Callable[[Tensor], Tensor],
    threat: ThreatModel,
    images: Tensor,
    ids: Tensor,
    streams: Streams,
    inner: int,
) -> tuple[BinarizationHeads, int]:
    """Fit heads that separate each image, and ``inner`` points near it, from one point on the edge of its ball.

    A head's direction is the ridge discriminant of the inner points against a random point of the sphere. Projected
    gradient then climbs the head's score from that point, and once more from another start. The boundary lies close
    below the lower of the two scores, so that success needs no lucky start; but not below the random point's own score,
    so that where gradients mislead an adversarial example still exists. Images whose head does not separate the two
    in float32 are left out. Returns the heads of the others, and how many images went through the features.

    Departs from the paper, which fits a logistic regression, draws inner points from the inside of the ball alone, and
    leaves the point where it was drawn: FGSM finds such a point on every network that is locally linear.
    """
    with torch.no_grad():
        near = _features_near(features, threat, images, ids, streams.named("inner"), inner)
        start = on_sphere(threat, images, ids, streams.named("sphere"))
        centres, weights = _discriminants(near, features(start).double())
        top = ((near - centres[:, None]) * weights[:, None]).sum(2).amax(1)
    heads = BinarizationHeads(
        features=features,
        images=images,
        ids=ids,
        points=start,
        centres=centres.float(),
        weights=weights.float(),
        offsets=torch.zeros_like(top, dtype=torch.float32),
    )
    climb = ProjectedGradient(threat=threat, steps=CLIMB_STEPS, step_size=CLIMB_STEP * threat.eps)
    problem = Problem(
        objective=heads.margin_objective, images=images, ids=ids, streams=streams.named("climb"), starts=start
    )
    known = climb.run(problem)
    again = replace(climb, random_start=True).run(replace(problem, streams=streams.named("again"), starts=None))
    # The start has the score 1: where no gradient leads up it is the known example, and the level to reach.
    level = torch.minimum(known.losses, again.losses.clamp(min=1.0))
    gap = level - top.float()
    # No gap, no scale: a margin of 0 is class 0, so the head separates nothing and is left out.
    scale = torch.where(gap > 0, 1 / gap, 0.0)
    heads = replace(
        heads,
        points=known.images,
        weights=heads.weights * scale[:, None],
        offsets=(top.float() + CLOSENESS * gap) * scale,
    )
    separated = heads.fooled(known.images) & ~heads.fooled(images)
    passes = known.model_images + again.model_images + (inner + 4) * len(images)
    return heads.on(separated.nonzero().squeeze(1)), passes


def _features_near(
    features: Callable[[Tensor], Tensor],
    threat: ThreatModel,
    images: Tensor,
    ids: Tensor,
    streams: Streams,
    inner: int,
) -> Tensor:
    """Features of each image and of points drawn in the smaller ball around it, (B, 1 + N, D) float64.

    Every other point lies on the ball's edge, in linf in its corners: if a head were fitted to the weaker noise inside
    alone, random search would find class 1 by noise.
    """
    ball = ThreatModel(threat.norm_name, INNER_SHARE * threat.eps)
    kinds = (on_sphere, ThreatModel.sample)
    drawn = (kinds[draw % 2](ball, images, ids, streams.at(draw)) for draw in range(inner))
    return torch.stack([features(images), *(features(points) for points in drawn)], 1).double()


def _discriminants(near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge discriminants of (B, N, D) against (B, D): centres and weights (B, D), which give ``far`` the score 1.

    w ∝ (S + r·I)⁻¹ (far - mean), S the scatter of the inner points; by Woodbury's identity an N x N system.
    """
    centres = near.mean(1)
    spread, away = near - centres[:, None], far - centres
    gram = spread @ spread.mT
    size = gram.diagonal(dim1=1, dim2=2).sum(1)
    mean = size / min(near.shape[1] - 1, near.shape[2])
    # Where no feature varies any ridge will do.
    ridge = torch.where(size > 0, RIDGE * mean, 1.0)[:, None]
    inner = gram + torch.diag_embed(ridge.expand(-1, gram.shape[1]))
    weights = away - (spread.mT @ torch.linalg.solve(inner, spread @ away[:, :, None])).squeeze(2)
    score = (weights * away).sum(1, keepdim=True)
    return centres, torch.where(score > 0, weights / score, 0.0)


def on_sphere(threat: ThreatModel, images: Tensor, ids: Tensor, streams: Streams) -> Tensor:
    """One random image per id at distance eps, then brought into the box; in linf a corner of the ball."""
    moves = GEOMETRIES[threat.norm_name].sample(ids, tuple(images.shape[1:]), streams).double()
    unit = moves.sign() if threat.norm_name == "linf" else moves / threat.norm(moves).view(-1, 1, 1, 1)
    return threat.project(unit * threat.eps + images, images)
