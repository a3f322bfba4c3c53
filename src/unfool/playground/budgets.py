"""How far an attack may go: for each norm the range of a slider, and the threat model of a place on it."""

from __future__ import annotations

from dataclasses import dataclass

from unfool.core.errors import SpecError
from unfool.core.spec import unknown, write_number
from unfool.core.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The slider of a norm: up to ``most`` in ``step``s, in units of 1/``divisor`` of a pixel value's range."""

    norm: str
    words: str
    most: float
    step: float
    start: float
    divisor: int = 1

    def threat(self, place: float) -> ThreatModel:
        """The threat model of a place on the slider; SpecError beyond its ends."""
        if not 0 <= place <= self.most:
            raise SpecError(f"eps {place:g} is not allowed here; give 0 to {self.most:g}")
        text = write_number(round(float(place), 6))
        return ThreatModel.parse(f"{self.norm}:{text}/{self.divisor}" if self.divisor > 1 else f"{self.norm}:{text}")


BUDGETS = {
    budget.norm: budget
    for budget in (
        Budget(
            norm="linf", words="eps: the most that a value changes, in 255ths", most=32, step=1, start=8, divisor=255
        ),
        Budget(norm="l2", words="eps: the length of the change", most=5, step=0.1, start=1.0),
        Budget(norm="l1", words="eps: the sum of all changes", most=60, step=1, start=20),
    )
}


def budget_of(norm: str) -> Budget:
    """The slider of a norm; SpecError for an unknown one."""
    if norm not in BUDGETS:
        raise unknown("norm", str(norm), BUDGETS)
    return BUDGETS[norm]
