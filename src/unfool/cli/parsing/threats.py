"""Threat models from the options ``--threat``, ``--norm`` and ``--eps``."""

from __future__ import annotations

from unfool.core.errors import SpecError
from unfool.core.threat import ThreatModel

BUDGETS = {"linf": "8/255", "l2": "0.5", "l1": "12", "l0": "10"}
"""The usual eps on 32-pixel images, by norm."""

EVERY = ("linf", "l2", "l1")
"""The norms of --norm all, in which every attack works."""


def read_threat(threat: str | None, norm: str | None, eps: str | None) -> ThreatModel:
    """The threat model of --threat, or of --norm and --eps; linf:8/255 for none of them, SpecError for both."""
    if threat is not None and (norm is not None or eps is not None):
        others = " and ".join(
            f"--{name} {value}" for name, value in (("norm", norm), ("eps", eps)) if value is not None
        )
        raise SpecError(f"--threat {threat} and {others} were given; give --threat, or --norm and --eps")
    norm = norm or "linf"
    return ThreatModel.parse(threat or f"{norm}:{eps or BUDGETS[norm]}")


def read_threats(threat: str | None, norm: str | None, eps: str | None) -> list[ThreatModel]:
    """As `read_threat`, in a list; for --norm all the usual threat model of each norm."""
    if norm != "all":
        return [read_threat(threat, norm, eps)]
    if threat is not None or eps is not None:
        raise SpecError("--norm all takes the usual eps of each norm; leave out --threat and --eps, or give one norm")
    return [read_threat(None, each, None) for each in EVERY]
