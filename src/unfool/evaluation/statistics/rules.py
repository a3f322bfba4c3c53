"""Rules of claims: each says from the same bound what is shown, and in a sentence what would have to be."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from unfool.evaluation.results.claims import FAILS, HOLDS, UNDECIDED
from unfool.evaluation.statistics.estimate import Estimate

LEVEL = 0.05
"""Below this a p-value, corrected for all claims of a study, shows something."""


class Rule(Protocol):
    """What an estimate is compared with."""

    @property
    def limit(self) -> float:
        """The value on whose one side the claim holds."""
        ...

    def p_value(self, estimate: Estimate) -> float:
        """The two-sided p-value that the estimate is just at the rule's bound."""
        ...

    def verdict(self, estimate: Estimate, p_value: float) -> str:
        """Holds, fails or undecided, by the corrected p-value; a counted number is compared itself."""
        ...

    def out_of_reach(self, estimate: Estimate) -> str:
        """Why no result whatever could make the claim hold; empty where one could."""
        ...

    def sentence(self, estimate: Estimate) -> str:
        """The rule in words."""
        ...

    def worded(self, text: str, estimate: Estimate) -> str:
        """The text of a claim, with the size that the rule asks for where the text leaves that to the rule."""
        ...


@dataclass(frozen=True)
class Bound:
    """Holds if the estimate is shown to be on the right side of a bound, fails if it is shown to be on the other one.

    ``holds`` says of a number whether it is on that side, ``words`` say so, ``upwards`` is the direction.
    """

    bound: float
    holds: ClassVar[Callable[[float, float], bool]]
    words: ClassVar[str]
    upwards: ClassVar[bool]

    @property
    def limit(self) -> float:
        return self.bound

    def p_value(self, estimate: Estimate) -> float:
        return estimate.p_value(self.bound)

    def verdict(self, estimate: Estimate, p_value: float) -> str:
        if estimate.exact:
            return HOLDS if self.holds(estimate.mean, self.bound) else FAILS
        if p_value >= LEVEL:
            return UNDECIDED
        return HOLDS if (estimate.mean > self.bound) == self.upwards else FAILS

    def out_of_reach(self, estimate: Estimate) -> str:
        most = estimate.reach[self.upwards]
        if math.isinf(most) or self.holds(most, self.bound):
            return ""
        return f"Out of reach here: at most {estimate.amount(most, '+')} are left."

    def sentence(self, estimate: Estimate) -> str:
        return self.sentence_of("0" if self.bound == 0 else estimate.amount(self.bound), estimate.exact)

    def worded(self, text: str, estimate: Estimate) -> str:
        return text

    def sentence_of(self, amount: str, exact: bool) -> str:
        """The sentence for a bound in words."""
        if exact:
            return f"Rule: holds if it {self.words} {amount}."
        return f"Rule: holds if the data show that it {self.words} {amount}, fails if they show the opposite."


class Above(Bound):
    """Holds if the estimate is shown to be above the bound, fails if it is shown to be below."""

    holds, words, upwards = staticmethod(operator.gt), "is above", True


class AtLeast(Bound):
    """Holds if the estimate is shown to reach the bound, fails if it is shown not to."""

    holds, words, upwards = staticmethod(operator.ge), "reaches", True


class Below(Bound):
    """Holds if the estimate is shown to be below the bound, fails if it is shown to be above."""

    holds, words, upwards = staticmethod(operator.lt), "is below", False


class AtMost(Bound):
    """Holds if the estimate is shown to be at most the bound, fails if it is shown to be above."""

    holds, words, upwards = staticmethod(operator.le), "is at most", False


@dataclass(frozen=True)
class HalfOf:
    """Holds if the estimate is shown to reach half of what a source claims, fails if it is shown not to; a claimed loss
    is reached downwards. The claim says so: a smaller difference is not the opposite of a difference.

    ``of`` says where the source claims it, as in ``under FGSM``.
    """

    claimed: float
    of: str = ""

    @property
    def half(self) -> Bound:
        """The same as a bound."""
        return (AtLeast if self.claimed > 0 else AtMost)(self.claimed / 2)

    @property
    def limit(self) -> float:
        return self.half.limit

    def p_value(self, estimate: Estimate) -> float:
        return self.half.p_value(estimate)

    def verdict(self, estimate: Estimate, p_value: float) -> str:
        return self.half.verdict(estimate, p_value)

    def out_of_reach(self, estimate: Estimate) -> str:
        return self.half.out_of_reach(estimate)

    def sentence(self, estimate: Estimate) -> str:
        return AtLeast(0).sentence_of(f"half of the claimed {estimate.amount(self.claimed)}", estimate.exact)

    def worded(self, text: str, estimate: Estimate) -> str:
        return f"{text}, by at least half of the {estimate.amount(abs(self.claimed))} claimed {self.of}".rstrip()
