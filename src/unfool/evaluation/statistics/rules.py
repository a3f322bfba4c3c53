"""Rules of claims: each makes the verdict and the sentence that states it from the same bound."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from unfool.evaluation.results.claims import FAILS, HOLDS, UNDECIDED
from unfool.evaluation.statistics.gains import Estimate


class Rule(Protocol):
    """From an estimate to a verdict, and to the sentence that states the rule."""

    def verdict(self, estimate: Estimate) -> str: ...

    def sentence(self, estimate: Estimate) -> str: ...


@dataclass(frozen=True)
class Bound:
    """Holds if the whole interval is on the right side of a bound, fails if none of it is; counted numbers have none.

    ``holds`` says of a number whether it is on that side, ``words`` and ``verb`` say so in the sentence.
    """

    bound: float
    holds: ClassVar[Callable[[float, float], bool]]
    words: ClassVar[str]
    verb: ClassVar[str] = "is"

    def verdict(self, estimate: Estimate) -> str:
        low, high = (self.holds(end, self.bound) for end in (estimate.low, estimate.high))
        return HOLDS if low and high else UNDECIDED if low or high else FAILS

    def sentence(self, estimate: Estimate) -> str:
        amount = "0" if self.bound == 0 else estimate.amount(self.bound)
        return self.words_for(amount, "" if estimate.exact else estimate.interval)

    def words_for(self, amount: str, interval: str) -> str:
        """The sentence for a bound in words; a figure without an ``interval`` is compared itself."""
        if not interval:
            return f"Rule: holds if it {self.words} {amount}."
        return f"Rule: holds if the whole {interval} {self.words} {amount}, fails if none of it {self.verb}."


class Above(Bound):
    """Holds if the whole interval is above the bound, fails if none of it is."""

    holds, words = staticmethod(operator.gt), "is above"


class AtLeast(Bound):
    """Holds if the whole interval reaches the bound, fails if none of it does."""

    holds, words, verb = staticmethod(operator.ge), "reaches", "does"


class Below(Bound):
    """Holds if the whole interval is below the bound, fails if none of it is."""

    holds, words = staticmethod(operator.lt), "is below"


class AtMost(Bound):
    """Holds if no part of the interval is above the bound, fails if all of it is."""

    holds, words = staticmethod(operator.le), "is at most"


@dataclass(frozen=True)
class HalfOf:
    """Holds if the whole interval reaches half of what a source claims, fails if none of it does; a claimed loss is
    reached downwards."""

    claimed: float

    def verdict(self, estimate: Estimate) -> str:
        return (AtLeast if self.claimed > 0 else AtMost)(self.claimed / 2).verdict(estimate)

    def sentence(self, estimate: Estimate) -> str:
        return AtLeast(0).words_for(f"half of the claimed {estimate.amount(self.claimed)}", estimate.interval)


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """A rule on the figures of an estimate, for what no bound of one interval decides; ``words`` say what the two
    conditions are."""

    holds: Callable[[Mapping[str, float]], bool]
    fails: Callable[[Mapping[str, float]], bool]
    words: str

    def verdict(self, estimate: Estimate) -> str:
        figures = estimate.figures
        return HOLDS if self.holds(figures) else FAILS if self.fails(figures) else UNDECIDED

    def sentence(self, estimate: Estimate) -> str:
        return f"Rule: {self.words}."
