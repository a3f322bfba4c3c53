"""What an evaluation leaves: the rows of its tables, the records behind them, and every reason for doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from unfool.evaluation.claims import ClaimResult
from unfool.evaluation.corruptions import mean_corruption_accuracy
from unfool.evaluation.records import Records
from unfool.evaluation.reliability.binarization_test import Strength
from unfool.evaluation.reliability.flags import NOT_CHECKED, too_many
from unfool.evaluation.reliability.report import Reliability
from unfool.evaluation.rows import Row
from unfool.evaluation.statistics.comparison import ClassAccuracy
from unfool.evaluation.statistics.sequential import SequentialResult
from unfool.evaluation.study_result import StudyResult


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What came out: ``rows`` for tables, the ``records`` behind them, and the reasons for doubt.

    ``corrupted`` are records under each corruption and severity, ``strengths`` tests by attack, ``classes`` accuracies
    by class and attack; ``reliability`` is None where it was not asked for.
    """

    name: str
    rows: list[Row]
    records: list[Records]
    classes: dict[str, list[ClassAccuracy]] = field(default_factory=dict)
    corrupted: list[Records] = field(default_factory=list)
    strengths: dict[str, Strength] = field(default_factory=dict)
    claim: SequentialResult | None = None
    reliability: Reliability | None = None

    @property
    def doubts(self) -> list[str]:
        """Why the figures are not to be believed, one sentence each; empty if nothing speaks against them."""
        flat = [
            f"{row.attack}: the attacked network gave no gradient on {row.zero_gradient} of {row.n} images"
            for row in self.rows
            if too_many(row.zero_gradient or 0, row.n)
        ]
        raised = self.reliability.flags if self.reliability is not None else []
        flags = [flag.text if flag.name == NOT_CHECKED else f"{flag.name}: {flag.text}" for flag in raised]
        return [*flat, *flags, *(one.text for one in self.strengths.values() if not one.passed)]

    def result(self) -> StudyResult:
        """Everything as the results that `unfool report` shows as a page."""
        details: dict[str, Any] = {}
        if self.classes:
            details["classes"] = {attack: [vars(each) for each in classes] for attack, classes in self.classes.items()}
        if self.corrupted:
            details["corruptions"] = _corruptions(self.corrupted)
        if self.strengths:
            details["strength"] = {attack: test.to_json() for attack, test in self.strengths.items()}
        if self.reliability is not None:
            details["reliability"] = self.reliability.to_json()
        return StudyResult(
            system=self.name, rows=self.rows, claims=self._claims(), details={**details, "doubts": self.doubts}
        )

    def to_json(self) -> dict[str, Any]:
        """A results file, which `unfool report` shows as a page."""
        return self.result().to_json()

    def _claims(self) -> list[ClaimResult]:
        if self.claim is None:
            return []
        attack = f"{self.claim.records.attack} at {self.claim.records.threat}"
        text = f"Robust accuracy of {self.name} under {attack} is {self.claim.claim}"
        return [ClaimResult(text=text, verdict=self.claim.verdict, evidence=self.claim.words())]


def _corruptions(records: Sequence[Records]) -> dict[str, Any]:
    """Mean corruption accuracy with its interval, and the accuracy under each corruption and severity."""
    accuracy, low, high = (round(value, 6) for value in mean_corruption_accuracy(records))
    under = [{**one.settings, "accuracy": round(one.accuracy, 6)} for one in records]
    return {"accuracy": accuracy, "low": low, "high": high, "n": records[0].count, "under": under}
