"""What an engine is given, images and the objective to climb, and what it returns.

Legend: B images of the batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from unfool.attacks.objective import LabelLoss, Objective
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel

Climbed = TypeVar("Climbed", bound=Objective, covariant=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem(Generic[Climbed]):
    """One batch to perturb, and the objective to perturb it against.

    Args:
        objective: Gives one value per image; an engine maximises it (a descending engine minimises it). A model in it
            is in eval mode, and its parameters are frozen.
        images: The clean images (B, C, H, W) in [0,1].
        ids: The images' ids (B,), int64. A random draw depends on the id, never on the position in the batch.
        streams: Source of the random draws.
        starts: First points (B, C, H, W), in place of the engine's own start.
        proxy_objective: A cheaper approximation of the objective. It drives the steps; the objective confirms every
            success.
        exact_share: Share of the steps, the last ones, that use the objective itself although there is a proxy.
        near: Of a bf16 proxy: the share of its rise that a trial of FAB or targeted APGD may lack, to run again on the
            proxy's fp32 copy; 0: none does, and in l1 FAB looks at all points.
        reached: The highest margins (B,) that attacks by gradients have reached before; next to -inf where there were
            none.
        others: Other images of the set (M, C, H, W) and their labels (M,), the same for all batches: where a search by
            decisions may begin.
        at_once: The most images that an attack gives an engine together; None: all.

    Example:
        >>> from unfool.attacks.objective import LabelLoss
        >>> images = torch.tensor([[0.6, 0.5, 0.4, 0.3]]).view(1, 1, 2, 2)
        >>> problem = attacks.Problem(
        ...     objective=LabelLoss(torch.nn.Flatten(), torch.tensor([0])),
        ...     images=images,
        ...     ids=torch.tensor([7]),
        ...     streams=Streams(0),
        ... )
        >>> attacks.PGD(Linf(0.1), steps=5).run(problem).fooled
        tensor([True])
    """

    objective: Climbed
    images: Tensor
    ids: Tensor
    streams: Streams
    starts: Tensor | None = None
    proxy_objective: Climbed | None = None
    exact_share: float = 0.1
    near: float = 0.0
    reached: Tensor | None = None
    others: tuple[Tensor, Tensor] | None = None
    at_once: int | None = None

    @property
    def first_points(self) -> Tensor:
        """Where a run without a random start begins: ``starts``, or the clean images."""
        return self.images if self.starts is None else self.starts

    def proxy_steps(self, steps: int) -> int:
        """How many of ``steps`` the proxy drives: none without one, otherwise all but the last ``exact_share``."""
        return 0 if self.proxy_objective is None else steps - math.ceil(steps * self.exact_share)


def of_rows(problem: Problem[LabelLoss], rows: Tensor) -> Problem[LabelLoss]:
    """The problem of the images ``rows`` (n,) alone."""
    proxy = problem.proxy_objective
    return dataclasses.replace(
        problem,
        objective=problem.objective.subset(rows),
        images=problem.images[rows],
        ids=problem.ids[rows],
        starts=None if problem.starts is None else problem.starts[rows],
        proxy_objective=None if proxy is None else proxy.subset(rows),
        reached=None if problem.reached is None else problem.reached[rows],
    )


def in_turns(rows: Tensor, at_once: int | None) -> tuple[Tensor, ...]:
    """Row numbers (n,) in groups of about the same size, ``at_once`` at most; one group if that is None."""
    return rows.tensor_split(max(1, -(-len(rows) // (at_once or max(1, len(rows))))))


Goal = Literal["last", "best", "success", "last_unchecked"]
"""What to return: the ``last`` iterate, the ``best`` (a fooled one before any other, then the highest loss),
``success``: as best, but an image that is fooled leaves the batch at once, or ``last_unchecked``: the last iterate
without the forward pass that would check it, for training; its losses and successes are those before the last step."""

CheckedGoal = Literal["last", "best", "success"]
"""The goals of an attack, which says whether the images that it returns fool the model."""


@dataclass(frozen=True, kw_only=True)
class Perturbed:
    """What an engine returns.

    Args:
        images: Perturbed images (B, C, H, W), inside ball and box.
        losses: The highest loss (B,) seen for each image; for the goal "last" the loss at the image returned; for a
            descending engine the lowest.
        fooled: Whether any confirmed point of the image fooled the objective (B,); for "last" whether the image
            returned does.
        zero_gradient: Not fooled, and the gradient was zero at every step (B,).
        model_images: How many images went through the objective.

    Example:
        >>> images = torch.full((1, 1, 2, 2), 0.5)
        >>> no = torch.zeros(1, dtype=torch.bool)
        >>> attacks.Perturbed(images=images, losses=torch.zeros(1), fooled=no, zero_gradient=no, model_images=1).fooled
        tensor([False])
    """

    images: Tensor
    losses: Tensor
    fooled: Tensor
    zero_gradient: Tensor
    model_images: int

    @classmethod
    def joined(cls, pieces: Sequence[Perturbed]) -> Perturbed:
        """What several runs returned, for the images of all of them in order."""
        names = ("images", "losses", "fooled", "zero_gradient")
        return cls(
            **{name: torch.cat([getattr(piece, name) for piece in pieces]) for name in names},
            model_images=sum(piece.model_images for piece in pieces),
        )


class Engine(Protocol):
    """An optimisation loop that perturbs images within its ``threat`` model.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Brighter:
        ...     threat: ThreatModel
        ...
        ...     def run(self, problem):
        ...         images = self.threat.project(problem.images + self.threat.eps, problem.images)
        ...         value = problem.objective(images, torch.arange(len(images)))
        ...         never = torch.zeros_like(value.fooled)
        ...         return attacks.Perturbed(
        ...             images=images,
        ...             losses=value.losses,
        ...             fooled=value.fooled,
        ...             zero_gradient=never,
        ...             model_images=len(images),
        ...         )
        >>> part = attacks.Part(name="brighter", engine=Brighter(Linf(0.1)), learns_from="nothing")
        >>> attack = attacks.CustomAttack(Linf(0.1), label="brighter", components=(part,))
        >>> attack(torch.nn.Flatten(), torch.tensor([[[[0.6, 0.5]]]]), torch.tensor([0])).images
        tensor([[[[0.7000, 0.6000]]]])
    """

    @property
    def threat(self) -> ThreatModel:
        """The allowed perturbations."""
        ...

    def run(self, problem: Problem[LabelLoss]) -> Perturbed:
        """Perturb the problem's images; the result for an image does not depend on the others in the batch."""
        ...
