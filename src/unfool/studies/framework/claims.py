"""Claims as data: what is compared, and the rule that makes both the verdict and the sentence that explains it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from unfool.evaluation.results.claims import ClaimResult
from unfool.evaluation.statistics.gains import Estimate, difference, gain
from unfool.evaluation.statistics.rules import Rule
from unfool.studies.framework.measurements import SystemMeasurement
from unfool.studies.framework.pieces import slug

if TYPE_CHECKING:
    from unfool.studies.framework.results import Results

Evidence = Callable[["Results"], Estimate | None]
"""What a claim rests on; None where it was not measured."""


def evidence(function: Callable[..., Estimate | None], *inputs: Any, **words: Any) -> Evidence:
    """What a function makes of the results of measurements, which stand among its ``inputs``.

    ``words`` go over those of the estimate.
    """

    def of(results: Results) -> Estimate | None:
        estimate = function(*(results[each] if isinstance(each, SystemMeasurement) else each for each in inputs))
        return None if estimate is None else replace(estimate, **words)

    return of


@dataclass(frozen=True)
class Claim:
    """One claim: ``evidence`` gives an estimate from the results, and ``rule`` makes verdict and sentence from it.

    ``id`` names the claim within its study and stays when its words change.
    """

    id: str
    text: str
    evidence: Evidence
    rule: Rule

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", slug(self.id))

    def judge(self, results: Results) -> ClaimResult | None:
        """The claim with its verdict; None where its evidence was not measured."""
        estimate = self.evidence(results)
        if estimate is None:
            return None
        words = f"{estimate.evidence} {self.rule.sentence(estimate)}"
        return ClaimResult(id=self.id, text=self.text, verdict=self.rule.verdict(estimate), evidence=words)


@dataclass(frozen=True)
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
