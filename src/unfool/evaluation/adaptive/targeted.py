"""The targeted rung: from where the network inside is surest of each class, through the defense towards the nearest.

An attack that stops where it fools leaves examples that a purification undoes. Croce et al. (ICML 2022) replay examples
of high margin on defenses that move an image at test time.

Legend: B images of the batch, n of them in play; K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unfool.attacks import Attack, CustomAttack
from unfool.attacks.engines.apgd import AutoProjectedGradient
from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.attacks.ensemble import Part
from unfool.attacks.objective import LabelLoss
from unfool.attacks.problem import Perturbed, Problem, of_rows
from unfool.core.threat import ThreatModel
from unfool.defenses import Defense
from unfool.evaluation.adaptive.rung import RUNGS, RungContext
from unfool.evaluation.adaptive.settings import LadderSettings
from unfool.evaluation.adaptive.through_defense import StraightThrough, ThroughDefense

ALONE_STEPS = 2
"""Steps towards each class on the network alone, for each one through the defense, which costs many times more."""


@dataclass(frozen=True, kw_only=True)
class HighestMargins:
    """Points at which the network inside is surest of another class, as an attack on it alone reaches them.

    Args:
        network: The network inside.
        threat: The allowed perturbations.
        steps: Gradient steps towards each class.
        most: How many classes are aimed at, the likeliest first.
    """

    network: nn.Module
    threat: ThreatModel
    steps: int
    most: int = 9

    def classes(self, problem: Problem[LabelLoss]) -> Tensor:
        """The classes (B, most) that are aimed at, the likeliest on the clean images first; fewer if no more exist."""
        objective = self._objective(problem)
        with torch.no_grad():
            logits = objective.logits(problem.images, torch.arange(len(problem.images), device=problem.images.device))
        others = logits.scatter(1, objective.labels[:, None], -math.inf).argsort(dim=1, descending=True, stable=True)
        return others[:, : min(self.most, logits.shape[1] - 1)]

    def towards(self, problem: Problem[LabelLoss], classes: Tensor, rows: Tensor) -> Perturbed:
        """Points of the images ``rows`` (n,), each towards one of the classes (n,)."""
        engine = AutoProjectedGradient(threat=self.threat, steps=self.steps, goal="best")
        own = of_rows(replace(problem, objective=self._objective(problem), starts=problem.images, reached=None), rows)
        return engine.run(replace(own, objective=own.objective.with_loss("difference", classes)))

    def _objective(self, problem: Problem[LabelLoss]) -> LabelLoss:
        return LabelLoss(self.network, problem.objective.labels)


@dataclass(frozen=True, kw_only=True)
class FromHighestMargins:
    """Targeted APGD through the defense, from the points at which its network is surest of each class.

    The defense is shown the point of every class; where none fools it, APGD goes on from those of the ``targets``
    classes that came closest on the defense.
    """

    through: ThroughDefense
    margins: HighestMargins
    targets: int

    @property
    def threat(self) -> ThreatModel:
        """That of APGD."""
        return self.through.threat

    def run(self, problem: Problem[LabelLoss]) -> Perturbed:
        """Perturb the problem's images; the model of its objective is the defense."""
        deployed, images = problem.objective, problem.images
        best_so_far = BestSoFar(images, "success")
        classes = self.margins.classes(problem)
        best_so_far.model_images += len(images)
        points = images.expand(classes.shape[1], *images.shape).clone()
        gaps = torch.full(classes.shape, -math.inf, device=images.device)
        for place in range(classes.shape[1]):
            rows = best_so_far.remaining_rows()
            if not len(rows):
                break
            surest = self.margins.towards(problem, classes[rows, place], rows)
            best_so_far.model_images += surest.model_images
            points[place, rows] = surest.images
            difference = deployed.with_loss("difference", classes[:, place])
            with torch.no_grad():
                value = best_so_far.evaluate(difference, surest.images, rows)
                best_so_far.record(rows, surest.images, value)
            gaps[rows, place] = value.losses
        order = gaps.argsort(dim=1, descending=True, stable=True)
        for number in range(min(self.targets, classes.shape[1])):
            rows = best_so_far.remaining_rows()
            if not len(rows):
                break
            places = order[rows, number]
            own = replace(of_rows(problem, rows), starts=points[places, rows], reached=None)
            aimed = own.objective.with_loss(deployed.loss, classes[rows, places])
            perturbed = self.through.run(replace(own, objective=aimed))
            self._keep(best_so_far, rows, perturbed)
        return best_so_far.result()

    @staticmethod
    def _keep(best_so_far: BestSoFar, rows: Tensor, perturbed: Perturbed) -> None:
        """Keep what a run through the defense left of the images ``rows`` (n,); the defense has confirmed it."""
        best_so_far.images[rows[perturbed.fooled]] = perturbed.images[perturbed.fooled]
        best_so_far.fooled[rows] |= perturbed.fooled
        best_so_far.zero_gradient[rows] &= perturbed.zero_gradient
        best_so_far.has_gradient[rows] = True
        best_so_far.model_images += perturbed.model_images


@RUNGS.add("targeted")
class TargetedAttack(StraightThrough):
    """(h) Targeted APGD (Croce & Hein, ICML 2020, equation 7), its gradient passed straight through as in (c).

    It starts where the network by itself is surest of each class: a purification undoes examples that barely fool, but
    seldom those (Croce et al., ICML 2022, replay such on adaptive defenses). Of a model that wraps no classifier it
    follows the model's own gradient.
    """

    key = "h"
    name = "targeted"
    title = "targeted APGD from highest margins"
    losses = ("dlr-targeted", "dlr-targeted")

    def unfit(self, defense: Defense) -> str | None:
        return None

    def steps(self, settings: LadderSettings) -> int:
        return settings.steps // 2

    def targets(self, settings: LadderSettings) -> int:
        return settings.targets

    def attack(self, context: RungContext) -> Attack:
        settings, threat = context.settings, context.threat
        steps, alone = self.steps(settings), ALONE_STEPS * settings.steps
        through = ThroughDefense(
            engine=AutoProjectedGradient(threat=threat, steps=steps),
            passes=lambda streams: self.passes_in(context, streams),
        )
        engine = FromHighestMargins(
            through=through,
            margins=HighestMargins(network=context.defense.classifier, threat=threat, steps=alone),
            targets=settings.targets,
        )
        part = Part(name="from highest margins", engine=engine, loss=self.losses[0])
        values = {"steps": steps, "targets": settings.targets, "steps_alone": alone, "restarts": settings.restarts}
        others = replace(through, engine=replace(through.engine, targets=settings.targets))
        random = [
            Part(name=f"random start {number}", engine=others, loss=self.losses[1])
            for number in range(1, settings.restarts + 1)
        ]
        return CustomAttack(threat, label=self.name, components=(part, *random), details=values)
