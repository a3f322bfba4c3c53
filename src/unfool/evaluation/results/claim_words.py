"""The estimate of a claim in numbers, and how it is read from the sentences of a results file that has only those."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from unfool.core.errors import DataError
from unfool.core.files import JsonObject

_NUMBER = r"[+-]?\d+(?:\.\d+)?"
_INTERVAL = re.compile(rf"({_NUMBER})( points| %)?(?:, at most)? \[({_NUMBER}), ({_NUMBER})\]")
_BOUND = re.compile(rf"(half of the claimed )?({_NUMBER})( points)?")


@dataclass(frozen=True, kw_only=True)
class ClaimEstimate:
    """The figure of a claim with its 95 % interval and the rule's ``bound``; with ``points`` all are differences of
    shares. ``bound`` is None where the sentences do not name it."""

    mean: float
    low: float
    high: float
    bound: float | None
    points: bool

    def to_json(self) -> JsonObject:
        """The same as JSON takes it."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, values: Any) -> ClaimEstimate:
        """The estimate that `to_json` gave; DataError for what is none."""
        try:
            numbers = {key: float(values[key]) for key in ("mean", "low", "high")}
            bound = None if values["bound"] is None else float(values["bound"])
            points = bool(values["points"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the estimate of a claim is not whole ({error!r}); evaluate it again") from error
        if not all(math.isfinite(number) for number in (*numbers.values(), bound or 0.0)):
            raise DataError(f"the estimate of a claim has {numbers}; these must be finite; evaluate it again")
        return cls(**numbers, bound=bound, points=points)


def estimate_in_words(evidence: str) -> ClaimEstimate | None:
    """The first difference that the evidence of a claim names, of a ladder the last; None where it has no interval."""
    figures, _, rule = evidence.partition("Rule: ")
    ladder = "McNemar" in figures
    listed = _INTERVAL.findall(figures.partition("the difference: ")[2] or figures)
    differences = [each for each in listed if each[1] == " points"] or listed
    if not differences:
        return None
    mean, unit, low, high = differences[-1 if ladder else 0]
    scale = 0.01 if unit else 1.0
    numbers = {"mean": mean, "low": low, "high": high}
    return ClaimEstimate(
        **{key: round(scale * float(value), 6) for key, value in numbers.items()},
        bound=0.0 if ladder else _bound_in_words(rule, unit == " points"),
        points=unit == " points",
    )


def _bound_in_words(rule: str, points: bool) -> float | None:
    """The number that a rule names before its first comma; a difference is compared with points, or with 0."""
    match = _BOUND.search(rule.partition(",")[0].replace("95 %", ""))
    if match is None or (points and not match[3] and float(match[2]) != 0):
        return None
    bound = float(match[2]) * (0.01 if match[3] else 1.0)
    return bound / 2 if match[1] else bound
