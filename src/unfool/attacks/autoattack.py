"""AutoAttack: the ensemble of Croce & Hein (ICML 2020), with its order, restarts and budgets; in L1 of 2021.

``standard``: APGD-CE, targeted APGD-DLR, targeted FAB, Square. ``plus``: APGD-CE, APGD-DLR and FAB with five restarts,
Square, then the targeted ones. ``rand``, for systems that draw: APGD-CE and APGD-DLR on gradients averaged over 20
draws. Each part is given only what the ones before it left standing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from unfool.attacks.apgd import AutoPgd
from unfool.attacks.base import ATTACKS, Attack
from unfool.attacks.ensemble import FINISH, Part
from unfool.attacks.fab import Fab
from unfool.attacks.square import Square
from unfool.core.config import build, configured
from unfool.core.threat import ThreatModel

FINISH_STEPS, FINISH_TARGETS = 20, 3
"""What the model itself adds to a bf16 search from its best points; the search's own strength is left as published."""


@configured
class _AutoAttack:
    """``steps`` of each gradient attack, ``queries`` of Square; the defaults are the published ones."""

    version: Literal["standard", "plus", "rand"] = "standard"
    steps: int = Field(default=100, ge=1)
    queries: int = Field(default=5000, ge=1)
    draws: int = Field(default=20, ge=1)


@ATTACKS.add("autoattack")
def autoattack(name: str, threat: ThreatModel, values: Mapping[str, Any]) -> Attack:
    """The AutoAttack ensemble: APGD, FAB and Square; ``version=plus`` or ``version=rand`` names another of its sets."""
    settings = build(_AutoAttack, values, f"attack {name!r}")
    sparse = threat.norm_name == "l1"

    def apgd(name: str, loss: str, restarts: int = 1, targets: int = 0) -> Part:
        engine = AutoPgd(threat=threat, steps=settings.steps, restarts=restarts, targets=targets, wide=sparse)
        return Part(name=name, engine=engine, loss=loss)

    def fab(name: str, targets: int, restarts: int = 1) -> Part:
        engine = Fab(threat=threat, steps=settings.steps, targets=targets, restarts=restarts)
        return Part(name=name, engine=engine, loss="difference" if targets else "margin")

    square = Part(name="square", engine=Square(threat=threat, steps=settings.queries), loss="margin", gradients=False)
    targeted = apgd("apgd-t", "dlr-targeted", targets=5 if sparse and settings.version == "standard" else 9)
    if settings.version == "standard":
        parts = (apgd("apgd-ce", "ce", restarts=5 if sparse else 1), targeted, fab("fab-t", 9), square)
    elif settings.version == "plus":
        first = (apgd("apgd-ce", "ce", restarts=5), apgd("apgd-dlr", "dlr", restarts=5), fab("fab", 0, restarts=5))
        parts = (*first, square, targeted, fab("fab-t", 9))
    else:
        parts = (apgd("apgd-ce", "ce"), apgd("apgd-dlr", "dlr"))
    finish = AutoPgd(threat=threat, steps=FINISH_STEPS, targets=FINISH_TARGETS)
    return Attack(
        name=name,
        parts=parts,
        settings=dataclasses.asdict(settings),
        finisher=Part(name=FINISH, engine=finish, loss="dlr-targeted"),
        draws=settings.draws if settings.version == "rand" else 1,
    )
