"""How the rungs of the adaptive ladder attack: engines that follow some gradient, and leave judging to the defense.

Whatever an engine follows, only the deployed defense says whether an image is fooled; a fooled image leaves at once.

Legend: B images of the batch, n of them in play.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unfool.attacks.apgd import AutoPgd
from unfool.attacks.best_so_far import BestSoFar, Perturbed
from unfool.attacks.objective import LOSSES, LabelLoss, Objective, ObjectiveValue
from unfool.attacks.problem import Problem
from unfool.attacks.projected_gradient import ProjectedGradient
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.defenses import Defense, as_defense
from unfool.defenses.aware import DefenseAwareLoss, gate_aware, pretext_aware
from unfool.defenses.backward import Bpda, Unrolled
from unfool.evaluation.checksum import seal
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.tasks.base import at_least_fp32

CHECKPOINTS = 2
"""How often the defense-aware attack asks the defense; from one to the next its step size is halved."""
FIRST_STEP = 0.25
"""Its step size at the start, in eps."""


class WarmStarts:
    """The examples of an adversarial set, found again by the ids of their images; those must be in it."""

    def __init__(self, examples: AdversarialSet):
        order = examples.ids.argsort()
        self.ids = examples.ids[order]
        self.images = examples.images[order]
        self.seal = seal({"attack": examples.attack}, {"ids": self.ids, "images": self.images})

    def of(self, ids: Tensor, images: Tensor) -> Tensor:
        """The examples of ``ids`` (n,) where ``images`` live, and of their dtype."""
        return self.images[torch.searchsorted(self.ids, ids.cpu())].to(images)


class Judged(LabelLoss):
    """A label loss averaged over several ways through one defense, of which the first says who is fooled.

    ``price`` is how many images go through a network for each one given; it is counted as draws.
    """

    def __init__(self, ways: Sequence[Callable[..., Tensor]], labels: Tensor, loss: str = "ce", *, price: int):
        super().__init__(ways[0], labels, loss, draws=price)
        self.ways = ways

    def __call__(self, images: Tensor, rows: Tensor) -> ObjectiveValue:
        labels = self.labels[rows]
        passes = [at_least_fp32(way(images)) for way in self.ways]
        losses = torch.stack([LOSSES[self.loss](logits, labels, None) for logits in passes]).mean(0)
        return ObjectiveValue(losses=losses, fooled=passes[0].detach().argmax(1) != labels)


@dataclass(frozen=True, kw_only=True)
class StraightThrough:
    """APGD with the gradient that some way through the defense gives; what it claims, the defense itself confirms.

    ``starts`` None draws in the ball.
    """

    threat: ThreatModel
    steps: int
    starts: WarmStarts | None = None

    def run(self, problem: Problem[LabelLoss]) -> Perturbed:
        """Perturb the problem's images; its objective is a `Judged`."""
        objective, starts = problem.objective, problem.starts
        if self.starts is not None:
            starts = self.starts.of(problem.ids, problem.images)
        defense: Any = objective.model
        ways, price = self.ways(as_defense(defense), problem.streams.named("redrawn"))
        proxy = Judged(ways, objective.labels, objective.loss, price=price)
        engine = AutoPgd(threat=self.threat, steps=self.steps)
        return engine.run(dataclasses.replace(problem, starts=starts, proxy_objective=proxy, exact_share=0.0))

    def ways(self, defense: Defense, streams: Streams) -> tuple[list[nn.Module], int]:
        """The ways through the defense, and how many images they send through a network for each one given."""
        return [Bpda(defense)], defense.images_per_prediction


@dataclass(frozen=True, kw_only=True)
class EotAttack(StraightThrough):
    """The gradient averaged over the deployed draws and ``draws`` - 1 fresh ones at each step."""

    draws: int

    def ways(self, defense: Defense, streams: Streams) -> tuple[list[nn.Module], int]:
        fresh = Bpda(defense, redrawn=streams)
        return [Bpda(defense), *[fresh] * (self.draws - 1)], self.draws * defense.images_per_prediction


@dataclass(frozen=True, kw_only=True)
class UnrolledAttack(StraightThrough):
    """The exact gradient: through every step of a reversal, through anything else as autograd takes it."""

    def ways(self, defense: Defense, streams: Streams) -> tuple[list[nn.Module], int]:
        times = 2 if defense.recomputes else 1
        return [Unrolled(defense)], times * defense.images_per_prediction


@dataclass(frozen=True, kw_only=True)
class Aware:
    """Projected gradient on the static network's loss less ``weight`` times what the defense notices.

    The defense judges now and then. With ``gated`` the gate notices, else the pretext loss.
    """

    gated: bool = False
    weight: float
    threat: ThreatModel
    steps: int
    starts: WarmStarts | None = None

    def run(self, problem: Problem[LabelLoss]) -> Perturbed:
        """Perturb the problem's images; its objective is a `Judged`."""
        objective, images, ids, streams = problem.objective, problem.images, problem.ids, problem.streams
        defense: Any = objective.model
        defended = as_defense(defense)
        best_so_far = BestSoFar(images, "success")
        rows = torch.arange(len(images), device=images.device)
        if self.starts is not None:
            points = self.starts.of(ids, images)
            rows, points = _confirm(best_so_far, objective, rows, points)
        else:
            points = self.threat.sample(images, ids, streams.named("start"))
        for checkpoint in range(CHECKPOINTS):
            if not len(rows):
                break
            engine = ProjectedGradient(
                threat=self.threat,
                steps=-(-self.steps // CHECKPOINTS),
                step_size=self.threat.eps * FIRST_STEP / 2**checkpoint,
                goal="last_unchecked",
            )
            draws = streams.named("noticed").at(checkpoint)
            aware = self._objective(defended, objective.labels[rows], objective.loss, draws)
            perturbed = engine.run(
                Problem(objective=aware, images=images[rows], ids=ids[rows], streams=streams, starts=points)
            )
            best_so_far.model_images += engine.steps * len(rows) * (1 + self._images_per_notice(defended))
            best_so_far.zero_gradient[rows] &= perturbed.zero_gradient
            rows, points = _confirm(best_so_far, objective, rows, perturbed.images)
        return best_so_far.result()

    def _objective(self, defense: Defense, labels: Tensor, loss: str, streams: Streams) -> DefenseAwareLoss:
        if self.gated:
            return gate_aware(defense, labels, self.weight, loss)
        return pretext_aware(defense.purifier, labels, self.weight, loss, streams=streams)

    def _images_per_notice(self, defense: Defense) -> int:
        """Images through a network for one look at what a reversal or a gate notices of an image."""
        noticing = defense.gate if self.gated else defense.purifier.pretext
        return 0 if noticing is None else noticing.images_per_loss


def _confirm(best_so_far: BestSoFar, objective: Objective, rows: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluate points by the defense; return the rows and points that do not fool it."""
    with torch.no_grad():
        keep = best_so_far.record(rows, points, best_so_far.evaluate(objective, points, rows))
    return (rows, points) if keep is None else (rows[keep], points[keep])
