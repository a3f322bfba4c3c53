"""Published results judged by the claims of today, without the run: from their rows, intervals and p-values."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from unfool.core.errors import DataError
from unfool.evaluation.results.claims import ClaimResult
from unfool.evaluation.results.study_result import StudyResult
from unfool.evaluation.statistics.estimate import Estimate
from unfool.evaluation.statistics.verdicts import Case, judge_cases
from unfool.studies.framework.claims import Claim
from unfool.studies.framework.pieces import Measured
from unfool.studies.framework.results import Results
from unfool.studies.framework.study import Study
from unfool.studies.framework.workspace import Workspace

_LEFT = re.compile(r"Out of reach here: at most ([+-]?[\d.e-]+)( points)? are left\.$")
_ROUNDING = 0.01
"""Share by which a corrected p-value may differ from the one that was computed before p-values were rounded."""


def judged_anew(study: Study[Any], result: StudyResult, folder: Path) -> StudyResult:
    """A study's results with the verdicts, sources' figures and texts that the study gives them today.

    Texts, controls and the correction for the number of claims may have changed since; what was measured has not. Notes
    tell how that was done, and the evidence of a claim what was compared: only the run writes these.

    Args:
        study: The study that the results are of.
        result: Its published results.
        folder: Where they lie. Nothing is written.

    Returns:
        The results; equal to those given where nothing has changed.

    Raises:
        DataError: A claim has changed in a way that only the run can judge: its rule has another bound, nothing is
            claimed any more under its id, or it was not tested and would be now.
    """
    settings = study.settings(result.scale)
    published = study.published
    rows = [
        row if published is None else replace(row, source_value=published.of(row), source_loss=published.loss_of(row))
        for row in result.rows
    ]
    claims = {claim.id: claim for claim in study.claims(settings)}
    if gone := [each.id for each in result.claims if each.id not in claims]:
        raise DataError(f"nothing is claimed as {gone[0]!r} in {study.name}; run its scale {result.scale} again")
    cases = [_case(claims[each.id], each, result, rows) for each in result.claims]
    judged = [_as_published(*each) for each in zip(judge_cases(cases), result.claims, strict=True)]
    work = Workspace(folder, None, "cpu", Console(quiet=True))
    results = Results(scale=result.scale, work=work, measured=[Measured(row=row) for row in rows])
    summary = study.summary(settings, results, {claim.id: claim for claim in judged})
    return replace(result, rows=rows, claims=judged, summary=summary, cuts=list(study.cuts(result.scale)))


@dataclass(frozen=True, kw_only=True)
class _Held(Estimate):
    """An estimate as results tell it: in words, and with the p-value of one bound alone."""

    text: str
    held_figure: str
    known_p_value: float | None

    def p_value(self, value: float) -> float:
        return 1.0 if self.known_p_value is None else self.known_p_value

    @property
    def evidence(self) -> str:
        return self.text

    @property
    def figure(self) -> str:
        return self.held_figure


def _case(claim: Claim, before: ClaimResult, result: StudyResult, rows: list[Any]) -> Case:
    """A claim of today on the estimate that results hold."""
    evidence = before.evidence if isinstance(before.evidence, str) else " ".join(before.evidence)
    text, _, after = evidence.partition("Rule: ")
    estimate = _held(before, text.strip(), after)
    case = Case(
        id=claim.id,
        text=claim.text,
        estimate=estimate,
        rule=claim.rule,
        not_reproduced=claim.not_reproduced(rows),
    )
    bound = before.numbers.bound if before.numbers is not None else None
    # Words give a bound with three digits.
    tolerance = 1e-6 if before.estimate is not None else 0.0051 * abs(claim.rule.limit) + 1e-9
    if bound is not None and abs(bound - claim.rule.limit) > tolerance:
        problem = f"was judged at {bound:g} and is at {claim.rule.limit:g} now"
    elif case.is_tested and before.p_value is None:
        problem = f"was {before.verdict} and would be tested now"
    else:
        return case
    raise DataError(f"the claim {claim.id!r} of {result.study} {problem}; run its scale {result.scale} again")


def _held(before: ClaimResult, text: str, after: str) -> _Held:
    """The estimate of a claim: ``text`` is its evidence before the rule's sentence, ``after`` what follows."""
    numbers, exact = before.numbers, "[" not in before.figure
    if numbers is not None:
        mean, low, high, points = numbers.mean, numbers.low, numbers.high, numbers.points
    else:
        mean = low = high = float(before.figure.partition(" ")[0])
        points = " points" in before.figure
    reach = _Held.reach
    if left := _LEFT.search(after):
        most = float(left[1]) * (0.01 if left[2] else 1.0)
        reach = (most, most)
    return _Held(
        mean=mean,
        low=low,
        high=high,
        points=points,
        exact=exact,
        reach=reach,
        text=text,
        held_figure=before.figure,
        known_p_value=before.p_value,
    )


def _as_published(judged: ClaimResult, before: ClaimResult) -> ClaimResult:
    """What was rounded when it was written stays as it was."""
    judged = replace(judged, estimate=before.estimate)
    new, old = judged.corrected_p_value, before.corrected_p_value
    if new is not None and old is not None and abs(new - old) <= _ROUNDING * old:
        judged = replace(judged, corrected_p_value=old)
    return judged
