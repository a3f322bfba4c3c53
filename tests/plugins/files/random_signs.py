"""A black-box attack: random signs of eps for every pixel, a few times; it asks for the model's answers alone."""

from dataclasses import dataclass

import torch

from unfool.attacks.base import ATTACKS, Attack
from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.attacks.ensemble import Part
from unfool.core.config import configured
from unfool.core.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class RandomSigns:
    """The engine: ``tries`` random corners of the ball, of which the worst is kept."""

    threat: ThreatModel
    tries: int = 10

    @torch.no_grad()
    def run(self, problem):
        best = BestSoFar(problem.images, "success", gradients=False)
        rows = best.remaining_rows()
        best.record(rows, problem.images, best.evaluate(problem.objective, problem.images, rows))
        for number in range(self.tries):
            rows = best.remaining_rows()
            if not len(rows):
                break
            images = problem.images[rows]
            signs = problem.streams.at(number).integers(problem.ids[rows], 2, tuple(images.shape[1:])) * 2 - 1
            points = self.threat.project(images + signs.to(images.dtype) * self.threat.eps, images)
            best.record(rows, points, best.evaluate(problem.objective, points, rows))
        return best.result()


@ATTACKS.add("random-signs")
@configured
class RandomSignsAttack(Attack):
    """Random corners of the ball: ``random-signs-10`` tries ten."""

    steps: int = 10

    @property
    def parts(self):
        engine = RandomSigns(threat=self.threat, tries=self.steps)
        return (Part(name=self.name, engine=engine, learns_from="scores"),)
