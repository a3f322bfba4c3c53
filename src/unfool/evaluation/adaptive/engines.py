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
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.defenses import Defense
from unfool.defenses.backward import Bpda, Unrolled
from unfool.defenses.gate import Gate
from unfool.defenses.reverse import Reverse
from unfool.evaluation.checksum import seal
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.tasks.base import at_least_fp32

CHECKPOINTS = 2
"""How often the defense-aware attack asks the defense; from one to the next its step size is halved."""
FIRST_STEP = 0.25
"""Its step size at the start, in eps."""


class PurifierAdapter(Defense):
    """Any module with a ``network`` and a method ``purify(images, ids, streams)`` as a defense to be attacked; its
    result has ``images``. The module itself stays the judge."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module: Any = module

    @property
    def classifier(self) -> nn.Module:
        return self.module.network

    @property
    def images_per_prediction(self) -> int:
        return int(getattr(self.module, "images_per_prediction", 1))

    def shown(
        self, images: Tensor, ids: Tensor | None = None, streams: Streams | None = None, exact: bool = False
    ) -> Tensor:
        """What the module purifies the images to; ``exact`` with the gradient that autograd gives."""
        with torch.set_grad_enabled(exact and torch.is_grad_enabled()):
            return self.module.purify(images, ids, streams).images


def taken(module: nn.Module) -> Defense:
    """A module as a defense to be attacked; SpecError for one that is none."""
    if isinstance(module, Defense):
        return module
    for part in ("network", "purify"):
        if not hasattr(module, part):
            raise SpecError(
                f"{type(module).__name__} has no {part}, so it cannot be attacked as a defense; "
                "give one with a network and a method purify(images, ids, streams)"
            )
    return PurifierAdapter(module)


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
        ways, price = self.ways(taken(defense), problem.streams.named("redrawn"))
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
        inner = reversal_of(defense)
        # In l2 each step is checkpointed, and its images go through the network once more on the way back.
        times = 2 if isinstance(inner, Reverse) and inner.threat.norm_name == "l2" else 1
        return [Unrolled(defense)], times * defense.images_per_prediction


@dataclass(frozen=True, kw_only=True)
class Aware:
    """Projected gradient on the static network's loss less ``weight`` times what the defense notices.

    The defense judges now and then. ``minding`` says who notices: the reversal's task, or the gate.
    """

    minding: Callable[[Defense], Defense]
    weight: float
    threat: ThreatModel
    steps: int
    starts: WarmStarts | None = None

    def run(self, problem: Problem[LabelLoss]) -> Perturbed:
        """Perturb the problem's images; its objective is a `Judged`."""
        objective, images, ids, streams = problem.objective, problem.images, problem.ids, problem.streams
        defense: Any = objective.model
        noticing = self.minding(taken(defense))
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
            aware = noticing.aware(objective.labels[rows], self.weight, objective.loss, streams=draws)
            perturbed = engine.run(
                Problem(objective=aware, images=images[rows], ids=ids[rows], streams=streams, starts=points)
            )
            best_so_far.model_images += engine.steps * len(rows) * (1 + _noticed(noticing))
            best_so_far.zero_gradient[rows] &= perturbed.zero_gradient
            rows, points = _confirm(best_so_far, objective, rows, perturbed.images)
        return best_so_far.result()


def _confirm(best_so_far: BestSoFar, objective: Objective, rows: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluate points by the defense; return the rows and points that do not fool it."""
    with torch.no_grad():
        keep = best_so_far.record(rows, points, best_so_far.evaluate(objective, points, rows))
    return (rows, points) if keep is None else (rows[keep], points[keep])


def itself(defense: Defense) -> Defense:
    return defense


def reversal_of(defense: Any) -> Any:
    """What a gate stands before; any other defense itself."""
    return defense.defense if isinstance(defense, Gate) else defense


def _noticed(defense: Defense) -> int:
    """Images through a network for one look at what a reversal or a gate notices of an image."""
    times = defense.draws if isinstance(defense, Gate) else 1
    return times * getattr(reversal_of(defense).task.settings, "views", 1)
