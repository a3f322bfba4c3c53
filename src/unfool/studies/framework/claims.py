"""Claims as data: what is compared, and the rule that makes both the verdict and the sentence that explains it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from unfool.core.errors import SpecError
from unfool.evaluation import Records
from unfool.evaluation.results.claims import ClaimResult
from unfool.evaluation.results.rows import Row
from unfool.evaluation.statistics.control import Control
from unfool.evaluation.statistics.estimate import Estimate
from unfool.evaluation.statistics.gains import gain, gain_beyond
from unfool.evaluation.statistics.rules import Rule
from unfool.evaluation.statistics.verdicts import Case, judge_cases
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

    ``id`` names the claim within its study and stays when its words change. The ``control``, or each of several, must
    be near the source's.
    """

    id: str
    text: str
    evidence: Evidence
    rule: Rule
    control: Control | tuple[Control, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", slug(self.id))

    def not_reproduced(self, rows: Sequence[Row]) -> str:
        """Why nothing can be said of the source: the first control that is too far from it; empty where none is."""
        controls = self.control if isinstance(self.control, tuple) else [self.control] if self.control else []
        return next(filter(None, (control.not_reproduced(rows) for control in controls)), "")


def judge(claims: Iterable[Claim], results: Results) -> list[ClaimResult]:
    """The verdicts on all claims of a study together, without those whose evidence was not measured."""
    claims = list(claims)
    if twice := {claim.id for claim in claims if sum(claim.id == other.id for other in claims) > 1}:
        raise SpecError(f"two claims have the id {min(twice)!r}; give each an id of its own")
    pairs = [(claim, estimate) for claim in claims if (estimate := claim.evidence(results)) is not None]
    return judge_cases(
        [
            Case(
                id=claim.id,
                text=claim.text,
                estimate=estimate,
                rule=claim.rule,
                not_reproduced=claim.not_reproduced(results.rows) if claim.control else "",
            )
            for claim, estimate in pairs
        ]
    )


@dataclass(frozen=True)
class Difference:
    """The accuracy of rows ``a`` minus that of rows ``b``, both ``under`` the same words, paired by training seed.

    The words are those of `Results.select`. ``detail`` says what is compared (default: both models, and the words they
    share), ``pair`` and ``over`` are those of `Estimate`.
    """

    a: Mapping[str, Any]
    b: Mapping[str, Any]
    under: Mapping[str, Any] = field(default_factory=dict[str, Any])
    detail: str = ""
    pair: str = "between these two networks"
    over: str = ""

    def sides(self, results: Results) -> tuple[dict[int, Records], dict[int, Records]]:
        """The records of both by training seed, of seeds that both have."""
        ours, theirs = (results.by_seed(**{**self.under, **side}) for side in (self.a, self.b))
        seeds = sorted(set(ours) & set(theirs))
        return {seed: ours[seed] for seed in seeds}, {seed: theirs[seed] for seed in seeds}

    def __call__(self, results: Results) -> Estimate | None:
        ours, theirs = self.sides(results)
        if not ours:
            return None
        estimate = gain([*ours.values()], [*theirs.values()])
        return replace(estimate, detail=self.detail or self._described(), pair=self.pair, over=self.over)

    def _described(self) -> str:
        ours, theirs = (
            ", ".join(str(value) for key, value in side.items() if value is not None and key not in self.under)
            for side in (self.a, self.b)
        )
        return f"{ours} minus {theirs} under {', '.join(map(str, self.under.values()))}"


@dataclass(frozen=True, kw_only=True)
class Beyond:
    """One difference minus another one: image by image where both are of the same images and seeds, so that what they
    share cancels; else their errors are taken as independent."""

    first: Difference
    second: Difference
    detail: str

    def __call__(self, results: Results) -> Estimate | None:
        (a, b), (c, d) = self.first.sides(results), self.second.sides(results)
        if not a or not c:
            return None
        return replace(gain_beyond((a, b), (c, d)), detail=self.detail, pair=self.first.pair, over=self.first.over)
