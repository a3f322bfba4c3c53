"""FGSM and PGD in any norm, as settings of the projected-gradient engine.

FGSM: Goodfellow et al., ICLR 2015. PGD: Madry et al., ICLR 2018. FGSM with a random start and a longer step:
Wong et al., "Fast is better than free", ICLR 2020. The margin loss under PGD: Carlini & Wagner, S&P 2017.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from unfool.attacks.base import ATTACKS, Attack
from unfool.attacks.best_so_far import Goal
from unfool.attacks.ensemble import Part
from unfool.attacks.projected_gradient import ProjectedGradient
from unfool.core.config import build, configured
from unfool.core.spec import parse_number
from unfool.core.threat import ThreatModel


def _number(value: Any) -> Any:
    return parse_number(value, "number") if isinstance(value, str) else value


Length = Annotated[float, BeforeValidator(_number), Field(ge=0, allow_inf_nan=False)]


@configured
class _Fgsm:
    """One step of ``step_size`` (default: eps, so that the step reaches the ball's edge)."""

    step_size: Length | None = None
    random_start: bool = False
    goal: Goal = "last"


@configured
class _Pgd:
    """``steps`` of ``step_size`` (default: a quarter of eps, 2/255 for 8/255), from a random start unless told."""

    steps: int = Field(default=10, ge=0)
    step_size: Length | None = None
    random_start: bool = True
    restarts: int = Field(default=1, ge=1)
    goal: Goal = "success"


def _attack(name: str, threat: ThreatModel, settings: Any, share: float, loss: str = "ce", **fixed: Any) -> Attack:
    values = dataclasses.asdict(settings)
    if values["step_size"] is None:
        values["step_size"] = threat.eps * share
    engine = ProjectedGradient(threat=threat, **values, **fixed)
    return Attack(name=name, parts=(Part(name=name, engine=engine, loss=loss),), settings={**values, **fixed})


@ATTACKS.add("fgsm")
def fgsm(name: str, threat: ThreatModel, values: Mapping[str, Any]) -> Attack:
    """The fast gradient method: one step."""
    return _attack(name, threat, build(_Fgsm, values, f"attack {name!r}"), 1.0, steps=1)


@ATTACKS.add("pgd")
def pgd(name: str, threat: ThreatModel, values: Mapping[str, Any]) -> Attack:
    """Projected gradient descent: ``pgd-20`` takes 20 steps, ``pgd-20:restarts=5`` from five random starts."""
    return _attack(name, threat, build(_Pgd, values, f"attack {name!r}"), 0.25)


@ATTACKS.add("cw-pgd")
def cw_pgd(name: str, threat: ThreatModel, values: Mapping[str, Any]) -> Attack:
    """PGD on the margin of the logits, which saturated probabilities do not hide."""
    return _attack(name, threat, build(_Pgd, values, f"attack {name!r}"), 0.25, loss="margin")
