"""APGD: projected gradient that sets its own step sizes (Croce & Hein, ICML 2020; in L1: Croce & Hein, ICML 2021).

The attack is free of step sizes and, in its targeted form on the DLR loss, the strongest single part of AutoAttack.

Legend: B images of the batch, n of them in play, k steps between two checks of the step size.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from unfool.attacks.apgd_step_schedule import Halving, Pace, Sparsifying
from unfool.attacks.base import ATTACKS, Attack
from unfool.attacks.best_so_far import BestSoFar, Perturbed
from unfool.attacks.ensemble import Part
from unfool.attacks.objective import LabelLoss
from unfool.attacks.projected_gradient import AGAIN
from unfool.core.config import build, configured
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel

WIDE = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
"""Radii in eps, and their shares of the steps, of the L1 attack that starts in a larger ball (2021, section 3.3)."""


@dataclass(frozen=True, kw_only=True)
class AutoPgd:
    """Settings of the engine.

    ``targets`` 0 climbs the loss as it is; otherwise that many classes, the likeliest first, are aimed at one by one.
    ``wide`` starts in a ball of 3 eps, goes on in one of 2 eps, and ends in the threat model. ``goal`` is ``success``
    (a fooled image leaves the batch) or ``best`` (the highest loss).
    """

    threat: ThreatModel
    steps: int = 100
    restarts: int = 1
    targets: int = 0
    wide: bool = False
    goal: Literal["success", "best"] = "success"

    def run(
        self,
        objective: LabelLoss,
        images: Tensor,
        ids: Tensor,
        streams: Streams,
        search: LabelLoss | None = None,
        finish: float = 0.1,
        starts: Tensor | None = None,
    ) -> Perturbed:
        """Attack images (B, C, H, W); as every engine's ``run``. A search's successes are confirmed where they occur.

        Raises NonFiniteError for a NaN loss or gradient.
        """
        course = BestSoFar(images, self.goal, gradients=self.steps > 0)
        order = self._order(course, objective, images) if self.targets else None
        for run in range(self.restarts * (order.shape[1] if order is not None else 1)):
            rows = course.standing()
            if not len(rows):
                break
            aim, twin = objective, search
            if order is not None:
                targets = order[:, run // self.restarts]
                aim = objective.with_loss(objective.loss, targets)
                twin = search.with_loss(search.loss, targets) if search is not None else None
            self._run(course, aim, twin, rows, images[rows], ids[rows], streams.named("start").at(run), finish, starts)
        return course.result()

    def _order(self, course: BestSoFar, objective: LabelLoss, images: Tensor) -> Tensor:
        """The classes to aim at, (B, targets), the likeliest on the clean images first, the labels' own left out."""
        rows = torch.arange(len(images), device=images.device)
        with torch.no_grad():
            logits = objective.logits(images, rows)
        course.model_images += len(images) * objective.draws
        others = logits.scatter(1, objective.labels[:, None], -math.inf).argsort(dim=1, descending=True, stable=True)
        return others[:, : min(self.targets, logits.shape[1] - 1)]

    def _run(
        self,
        course: BestSoFar,
        objective: LabelLoss,
        search: LabelLoss | None,
        rows: Tensor,
        origins: Tensor,
        ids: Tensor,
        draws: Streams,
        finish: float,
        starts: Tensor | None,
    ) -> None:
        phases = [(self.threat, self.steps)]
        if self.wide and starts is None:
            steps = [math.ceil(share * self.steps) for _, share in WIDE[:-1]]
            steps.append(max(0, self.steps - sum(steps)))
            wider = [ThreatModel(self.threat.norm_name, self._radius(times)) for times, _ in WIDE[:-1]]
            phases = list(zip([*wider, self.threat], steps, strict=True))
        points = self._pace.start(phases[0][0], origins, ids, draws) if starts is None else starts[rows]
        for threat, steps in phases[:-1]:
            climb = self._climb(course, search or objective, None, rows, origins, points, threat, steps)
            points = climb.best
        threat, steps = phases[-1]
        points = threat.project(points, origins)
        own = math.ceil(steps * finish) if search is not None else steps
        if search is not None and own < steps:
            climb = self._climb(course, search, objective, rows, origins, points, threat, steps - own)
            rows, origins, points = climb.rows, climb.origins, climb.best
        if len(rows) and (own or self.goal == "best"):
            self._climb(course, objective, objective, rows, origins, points, threat, own)

    @property
    def _pace(self) -> type[Pace]:
        return Sparsifying if self.threat.norm_name == "l1" else Halving

    def _radius(self, times: float) -> float:
        """A larger ball's eps, which for linf must not exceed the box."""
        return min(times * self.threat.eps, 1.0) if self.threat.norm_name == "linf" else times * self.threat.eps

    def _climb(
        self,
        course: BestSoFar,
        use: LabelLoss,
        judge: LabelLoss | None,
        rows: Tensor,
        origins: Tensor,
        points: Tensor,
        threat: ThreatModel,
        steps: int,
    ) -> Pace:
        """Climb ``use`` for some steps; ``judge`` confirms successes, None where they do not count (a wider ball)."""
        pace = self._pace(threat, steps, rows, origins, points)
        for step in range(steps + 1):
            if not len(pace.rows):
                break
            self._look(course, use, judge, pace, last=step == steps)
            if step < steps and len(pace.rows):
                pace.check(step)
                pace.move()
        return pace

    def _look(self, course: BestSoFar, use: LabelLoss, judge: LabelLoss | None, pace: Pace, last: bool) -> None:
        """Loss and gradient where the images are; those that are fooled leave."""
        if last:
            with torch.no_grad():
                moving, reading = pace.points, course.read(use, pace.points, pace.rows)
        else:
            moving, reading = course.look(use, pace.points, pace.rows)
        keep = None
        if judge is use:
            keep = course.record(pace.rows, pace.points, reading)
        elif judge is not None and self.goal == "success" and reading.fooled is not None and reading.fooled.any():
            claimed = reading.fooled.nonzero().squeeze(1)
            rows, points = pace.rows[claimed], pace.points[claimed]
            with torch.no_grad():
                kept = course.record(rows, points, course.read(judge, points, rows))
            if kept is not None:
                keep = torch.ones_like(reading.fooled)
                keep[claimed] = kept
        losses = reading.losses.detach()
        if keep is not None:
            pace.leave(keep)
            losses = losses[keep]
            if not len(pace.rows):
                return
            if not last and len(losses) < AGAIN * len(keep):
                keep = None
                moving, reading = course.look(use, pace.points, pace.rows)
        pace.seen(losses, None if last else course.gradient(moving, reading, keep, pace.rows))


@configured
class _Apgd:
    """``steps`` in each of ``restarts`` runs; ``wide`` (default: in l1) starts in a larger ball."""

    steps: int = Field(default=100, ge=1)
    restarts: int = Field(default=1, ge=1)
    wide: bool | None = None
    goal: Literal["success", "best"] = "success"


@configured
class _Targeted(_Apgd):
    """As before, for each of the ``targets`` likeliest other classes."""

    targets: int = Field(default=9, ge=1)


def _attack(name: str, threat: ThreatModel, settings: Any, loss: str) -> Attack:
    values = dataclasses.asdict(settings)
    if values["wide"] is None:
        values["wide"] = threat.norm_name == "l1"
    part = Part(name=name, engine=AutoPgd(threat=threat, **values), loss=loss)
    return Attack(name=name, parts=(part,), settings=values)


@ATTACKS.add("apgd-ce")
def apgd_ce(name: str, threat: ThreatModel, values: Mapping[str, Any]) -> Attack:
    """APGD on the cross-entropy."""
    return _attack(name, threat, build(_Apgd, values, f"attack {name!r}"), "ce")


@ATTACKS.add("apgd-dlr")
def apgd_dlr(name: str, threat: ThreatModel, values: Mapping[str, Any]) -> Attack:
    """APGD on the difference of logits ratio."""
    return _attack(name, threat, build(_Apgd, values, f"attack {name!r}"), "dlr")


@ATTACKS.add("apgd-t")
def apgd_t(name: str, threat: ThreatModel, values: Mapping[str, Any]) -> Attack:
    """APGD on the targeted difference of logits ratio, one target class after another."""
    return _attack(name, threat, build(_Targeted, values, f"attack {name!r}"), "dlr-targeted")
