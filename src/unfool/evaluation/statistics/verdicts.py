"""The verdicts on all claims of a study together, corrected for how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unfool.evaluation.results.claim_words import ClaimEstimate
from unfool.evaluation.results.claims import NOT_REPRODUCED, OUT_OF_REACH, ClaimResult
from unfool.evaluation.statistics.estimate import Estimate
from unfool.evaluation.statistics.paired import holm
from unfool.evaluation.statistics.rules import Rule


@dataclass(frozen=True, kw_only=True)
class Case:
    """A claim with its evidence: an estimate, and the rule that it is judged by.

    ``not_reproduced`` says why the study's control is too far from the source's to judge the claim at all.
    """

    id: str
    text: str
    estimate: Estimate
    rule: Rule
    not_reproduced: str = ""

    @property
    def obstacle(self) -> tuple[str, str]:
        """The verdict on a claim that no test can decide, and why; empty where a test can."""
        if self.not_reproduced:
            return NOT_REPRODUCED, self.not_reproduced
        reason = self.rule.out_of_reach(self.estimate)
        return (OUT_OF_REACH, reason) if reason else ("", "")

    @property
    def numbers(self) -> ClaimEstimate:
        """The estimate and the rule's bound as a results file holds them."""
        values = (self.estimate.mean, self.estimate.low, self.estimate.high, self.rule.limit)
        mean, low, high, bound = (round(value, 6) for value in values)
        return ClaimEstimate(mean=mean, low=low, high=high, bound=bound, points=self.estimate.points)

    @property
    def is_tested(self) -> bool:
        """Whether its verdict comes from a test: not where nothing can be said, nor of what was counted."""
        return not (self.estimate.exact or any(self.obstacle))


def judge_cases(cases: Sequence[Case]) -> list[ClaimResult]:
    """The verdict on each case. Those that are tested share Holm's correction: where nothing differs, any of them is
    wrong in at most 5 % of studies."""
    tested = [case.is_tested for case in cases]
    p_values = [case.rule.p_value(case.estimate) for case in cases if case.is_tested]
    results, number = [], 0
    corrected = holm(p_values)
    for case, is_tested in zip(cases, tested, strict=True):
        p_value = corrected_p = None
        if is_tested:
            p_value, corrected_p = p_values[number], corrected[number]
            number += 1
        verdict, reason = case.obstacle
        words = [case.estimate.evidence, case.rule.sentence(case.estimate), reason]
        results.append(
            ClaimResult(
                id=case.id,
                text=case.rule.worded(case.text, case.estimate),
                verdict=verdict or case.rule.verdict(case.estimate, 1.0 if corrected_p is None else corrected_p),
                evidence=" ".join(filter(None, words)),
                figure=case.estimate.figure,
                estimate=case.numbers,
                p_value=p_value,
                corrected_p_value=corrected_p,
                claims_tested=len(p_values) if is_tested else 0,
            )
        )
    return results
