"""Claims as data: what is compared, and the rule that makes both the verdict and the sentence that explains it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from unfool.evaluation.results.claims import FAILS, HOLDS, UNDECIDED, ClaimResult
from unfool.evaluation.statistics.gains import Estimate, difference, gain

if TYPE_CHECKING:
    from unfool.studies.framework.results import Results

Evidence = Callable[["Results"], Estimate | None]
"""What a claim rests on; None where it was not measured."""


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


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim: ``evidence`` gives an estimate from the results, and ``rule`` makes verdict and sentence from it.

    ``id`` names the claim within its study and stays when its words change.
    """

    id: str
    text: str
    evidence: Evidence
    rule: Rule

    def judge(self, results: Results) -> ClaimResult | None:
        """The claim with its verdict; None where its evidence was not measured."""
        estimate = self.evidence(results)
        if estimate is None:
            return None
        words = f"{estimate.evidence} {self.rule.sentence(estimate)}"
        return ClaimResult(id=self.id, text=self.text, verdict=self.rule.verdict(estimate), evidence=words)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The accuracy of rows ``a`` minus that of rows ``b``, both ``under`` the same words, paired by training seed.

    The words are those of `Results.select`. ``detail`` says what is compared (default: both models, and the words they
    share), ``pair`` and ``over`` are those of `Estimate`.
    """

    a: Mapping[str, Any]
    b: Mapping[str, Any]
    under: Mapping[str, Any] = field(default_factory=dict)
    detail: str = ""
    pair: str = "between these two networks"
    over: str = ""

    def __call__(self, results: Results) -> Estimate | None:
        ours, theirs = (results.by_seed(**{**self.under, **side}) for side in (self.a, self.b))
        seeds = sorted(set(ours) & set(theirs))
        if not seeds:
            return None
        estimate = gain([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])
        return replace(estimate, detail=self.detail or self._described(), pair=self.pair, over=self.over)

    def _described(self) -> str:
        ours, theirs = (
            ", ".join(str(value) for key, value in side.items() if value is not None and key not in self.under)
            for side in (self.a, self.b)
        )
        return f"{ours} minus {theirs} under {', '.join(map(str, self.under.values()))}"


@dataclass(frozen=True, kw_only=True)
class Beyond:
    """One difference minus another one, their errors taken as independent."""

    first: Difference
    second: Difference
    detail: str

    def __call__(self, results: Results) -> Estimate | None:
        first, second = self.first(results), self.second(results)
        return None if first is None or second is None else replace(difference(first, second), detail=self.detail)
