"""The rungs of the adaptive ladder: each an attack on the defended system, from the static examples and from chance.

A rung is an ensemble whose parts differ in where they start (the examples that broke the undefended network, or a draw
in the ball) and, where a weight is swept, in that weight.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field
from torch import nn

from unfool.attacks.base import Attack, Attacked
from unfool.attacks.ensemble import Checkpoint, Part
from unfool.attacks.objective import LabelLoss
from unfool.attacks.problem import Problem
from unfool.core.config import configured
from unfool.core.threat import ThreatModel
from unfool.defenses import as_defense
from unfool.evaluation.adaptive.engines import (
    Aware,
    EotAttack,
    Judged,
    StraightThrough,
    UnrolledAttack,
    WarmStarts,
)

AWARE_STEPS = 4
"""Steps of the defense-aware attack for each one through the defense, which costs as many times more or most of it."""


@configured
class LadderSettings:
    """How hard the rungs try: ``steps`` through the defense (half as many through the unrolled one), ``draws`` of its
    randomness in the average of rung (d), the ``lambdas`` that weigh what the defense sees in (e) and (g), and random
    ``restarts`` beside the static examples."""

    seed: int = Field(default=0, ge=0)
    steps: int = Field(default=20, ge=2)
    draws: int = Field(default=4, ge=2)
    lambdas: tuple[float, ...] = Field(default=(0.1, 1.0, 10.0), min_length=1)
    restarts: int = Field(default=1, ge=1)


@dataclass(frozen=True, kw_only=True)
class Rung(Attack):
    """An attack on a defended system, one prediction of which sends ``price`` images through a network."""

    price: int

    def run(self, problem: Problem[LabelLoss], checkpoint: Checkpoint | None = None) -> Attacked:
        objective = problem.objective
        deployed = Judged([objective.model], objective.labels, price=self.price)
        return super().run(dataclasses.replace(problem, objective=deployed, proxy_objective=None), checkpoint)


NAMES = {"c": "bpda", "d": "bpda-eot", "e": "defense-aware", "f": "unrolled", "g": "gate-aware"}
"""The adaptive rungs, and what their attacks are called in rows."""


def unfit(letter: str, defense: nn.Module) -> str | None:
    """Why a rung does not apply to a defense; None if it does."""
    if letter == "g" and as_defense(defense).gate is None:
        return "the defense has no gate"
    if letter == "e" and as_defense(defense).purifier.pretext is None:
        return "the defense has no pretext loss that an attacker could keep low"
    return None


def remarks(defense: nn.Module, letters: Sequence[str]) -> list[str]:
    """What a reader must know of a defense beside the figures of these rungs, one sentence each."""
    found, declared = [], as_defense(defense)
    if declared.batch_dependent:
        found.append("Predictions depend on batch-mates, so the figures are those of these very batches.")
    if declared.abstains:
        found.append("An abstention counts as an error, on clean images and under attack.")
    if "f" in letters and not declared.exact_gradient:
        found.append("Rung (f) follows the gradient that autograd gives through the purification, if it gives any.")
    return found


def make_rung(letter: str, threat: ThreatModel, examples: WarmStarts, settings: LadderSettings, price: int) -> Rung:
    """The attack of one adaptive rung; ``price`` as in `Rung`, ``examples`` are those of (a)."""
    steps, more = settings.steps, {}
    engines: dict[str, Any] = {}
    if letter in "eg":
        steps, more = AWARE_STEPS * steps, {"lambdas": list(settings.lambdas)}
        for weight in settings.lambdas:
            engines[f"lambda {weight:g}, "] = Aware(threat=threat, steps=steps, gated=letter == "g", weight=weight)
    elif letter == "d":
        more = {"draws": settings.draws}
        engines[""] = EotAttack(threat=threat, steps=steps, draws=settings.draws)
    elif letter == "f":
        steps //= 2
        engines[""] = UnrolledAttack(threat=threat, steps=steps)
    else:
        engines[""] = StraightThrough(threat=threat, steps=steps)
    parts = []
    for prefix, engine in engines.items():
        # Two losses as well as two starts: the margin does not saturate, the cross-entropy minds every class.
        parts.append(Part(name=f"{prefix}from (a)", engine=dataclasses.replace(engine, starts=examples), loss="margin"))
        for restart in range(settings.restarts):
            parts.append(Part(name=f"{prefix}random start {restart + 1}", engine=engine))
    told = {"steps": steps, "restarts": settings.restarts, "starts": examples.seal, **more}
    return Rung(name=NAMES[letter], parts=tuple(parts), settings=told, price=price)
