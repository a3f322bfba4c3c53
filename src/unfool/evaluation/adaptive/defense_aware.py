"""Rungs of an attacker who minds the defense: fool the network inside, and keep what the defense notices low.

Legend: B images of the batch, n of them in play.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unfool.attacks import Attack, CustomAttack
from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.attacks.engines.projected_gradient import ProjectedGradient
from unfool.attacks.ensemble import Part
from unfool.attacks.objective import LabelLoss, Objective
from unfool.attacks.problem import Perturbed, Problem
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.defenses import Defense, as_defense
from unfool.defenses.aware import DefenseAwareLoss, gate_aware, pretext_aware
from unfool.evaluation.adaptive.ladder_run import WarmStarts
from unfool.evaluation.adaptive.rung import RUNGS, AdaptiveRung, RungContext
from unfool.evaluation.adaptive.through_defense import started_twice

AWARE_STEPS = 4
"""Steps of a defense-aware attack for each one through the defense, which costs as many times more or most of it."""
CHECKPOINTS = 2
"""How often a defense-aware attack evaluates the defense; from one time to the next its step size is halved."""
FIRST_STEP = 0.25
"""Its step size at the start, in eps."""

AwareObjective = Callable[[Defense, Tensor, str, Streams], DefenseAwareLoss]
"""A defense, labels (n,), the name of a label loss and streams → the objective of an attacker who minds it."""


@dataclass(frozen=True, kw_only=True)
class AwareGradient:
    """Projected gradient on an objective of the network and of what the defense notices.

    The defense is evaluated now and then, and confirms who is fooled. ``images_per_notice`` is how many images one look
    at what it notices sends through a network. ``starts`` None draws in the ball.
    """

    objective: AwareObjective
    images_per_notice: int
    threat: ThreatModel
    steps: int
    starts: WarmStarts | None = None

    def run(self, problem: Problem[LabelLoss]) -> Perturbed:
        """Perturb the problem's images; the model of its objective is the defense."""
        deployed, images, ids, streams = problem.objective, problem.images, problem.ids, problem.streams
        module: Any = deployed.model
        defense = as_defense(module)
        best_so_far = BestSoFar(images, "success")
        rows = torch.arange(len(images), device=images.device)
        if self.starts is not None:
            points = self.starts.of(ids, images)
            rows, points = _confirm(best_so_far, deployed, rows, points)
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
            aware = self.objective(defense, deployed.labels[rows], deployed.loss, draws)
            perturbed = engine.run(
                Problem(objective=aware, images=images[rows], ids=ids[rows], streams=streams, starts=points)
            )
            best_so_far.model_images += engine.steps * len(rows) * (1 + self.images_per_notice)
            best_so_far.zero_gradient[rows] &= perturbed.zero_gradient
            rows, points = _confirm(best_so_far, deployed, rows, perturbed.images)
        return best_so_far.result()


def _confirm(best_so_far: BestSoFar, objective: Objective, rows: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluate points by the defense; return the rows and points that do not fool it."""
    with torch.no_grad():
        keep = best_so_far.record(rows, points, best_so_far.evaluate(objective, points, rows))
    return (rows, points) if keep is None else (rows[keep], points[keep])


class AwareRung(AdaptiveRung):
    """A defense-aware attack for each of the ladder's lambdas; a subclass says what is minded."""

    @abstractmethod
    def objective(self, weight: float) -> AwareObjective:
        """The objective with this weight of what the defense notices."""

    @abstractmethod
    def images_per_notice(self, defense: Defense) -> int:
        """Images through a network for one look at what the defense notices of an image."""

    def attack(self, context: RungContext) -> Attack:
        settings, parts = context.settings, list[Part]()
        steps = AWARE_STEPS * settings.steps
        for weight in settings.lambdas:
            engine = AwareGradient(
                objective=self.objective(weight),
                images_per_notice=self.images_per_notice(context.defense),
                threat=context.threat,
                steps=steps,
            )
            parts += started_twice(engine, context.starts, settings, ("margin", "ce"), f"lambda {weight:g}, ")
        values = {"steps": steps, "restarts": settings.restarts, "starts": context.starts.checksum}
        details = values | {"lambdas": list(settings.lambdas)}
        return CustomAttack(context.threat, label=self.name, components=tuple(parts), details=details)


@RUNGS.add("defense-aware")
class DefenseAware(AwareRung):
    """(e) The network's loss and the pretext loss together (Mao et al., ICCV 2021, section 4.4)."""

    key = "e"
    name = "defense-aware"
    title = "aware of the pretext loss"

    def unfit(self, defense: Defense) -> str | None:
        if defense.purifier.pretext is None:
            return "the defense has no pretext loss that an attacker could keep low"
        return None

    def objective(self, weight: float) -> AwareObjective:
        return lambda defense, labels, loss, streams: pretext_aware(
            defense.purifier, labels, weight, loss, streams=streams
        )

    def images_per_notice(self, defense: Defense) -> int:
        pretext = defense.purifier.pretext
        return 0 if pretext is None else pretext.images_per_loss


@RUNGS.add("gate-aware")
class GateAware(AwareRung):
    """(g) The network's loss and the gate's together: fool the one, stay below the other's threshold."""

    key = "g"
    name = "gate-aware"
    title = "the gate, jointly"

    def unfit(self, defense: Defense) -> str | None:
        return "the defense has no gate" if defense.gate is None else None

    def objective(self, weight: float) -> AwareObjective:
        return lambda defense, labels, loss, streams: gate_aware(defense, labels, weight, loss)

    def images_per_notice(self, defense: Defense) -> int:
        return 0 if defense.gate is None else defense.gate.images_per_loss
