"""What an evaluation leaves: the rows of its tables, the records behind them, and every reason for doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from unfool.evaluation.corruptions import mean_corruption_accuracy
from unfool.evaluation.records import Records
from unfool.evaluation.reliability.binarization_test import Strength
from unfool.evaluation.reliability.flags import NOT_CHECKED, too_many
from unfool.evaluation.reliability.report import Reliability
from unfool.evaluation.statistics.sequential import SequentialResult


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What came out: ``rows`` for tables, the ``records`` behind them, and the reasons for doubt.

    ``corrupted`` are records under each corruption and severity, ``strengths`` tests by attack, ``classes`` accuracies
    by class and attack; ``reliability`` is None where it was not asked for.
    """

    name: str
    rows: list[dict[str, Any]]
    records: list[Records]
    classes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    corrupted: list[Records] = field(default_factory=list)
    strengths: dict[str, Strength] = field(default_factory=dict)
    claim: SequentialResult | None = None
    reliability: Reliability | None = None

    @property
    def doubts(self) -> list[str]:
        """Why the figures are not to be believed, one sentence each; empty if nothing speaks against them."""
        flat = [
            f"{row['attack']}: the attacked network gave no gradient on {row['flat']} of {row['n']} images"
            for row in self.rows
            if too_many(row["flat"], row["n"])
        ]
        raised = self.reliability.flags if self.reliability is not None else []
        flags = [flag.text if flag.name == NOT_CHECKED else f"{flag.name}: {flag.text}" for flag in raised]
        return [*flat, *flags, *(one.text for one in self.strengths.values() if not one.passed)]

    def to_json(self) -> dict[str, Any]:
        """A results file, which `unfool report` shows as a page."""
        found: dict[str, Any] = {"schema_version": 1, "system": self.name, "rows": self.rows, "claims": []}
        if self.claim is not None:
            attack = f"{self.claim.records.attack} at {self.claim.records.threat}"
            text = f"Robust accuracy of {self.name} under {attack} is {self.claim.claim}"
            found["claims"] = [{"text": text, "verdict": self.claim.verdict, "evidence": self.claim.words()}]
        if self.classes:
            found["classes"] = self.classes
        if self.corrupted:
            found["corruptions"] = _corruptions(self.corrupted)
        if self.strengths:
            found["strength"] = {attack: one.to_json() for attack, one in self.strengths.items()}
        if self.reliability is not None:
            found["reliability"] = self.reliability.to_json()
        return {**found, "doubts": self.doubts}


def _corruptions(records: Sequence[Records]) -> dict[str, Any]:
    """Mean corruption accuracy with its interval, and the accuracy under each corruption and severity."""
    accuracy, low, high = (round(value, 6) for value in mean_corruption_accuracy(records))
    under = [{**one.settings, "accuracy": round(one.accuracy, 6)} for one in records]
    return {"accuracy": accuracy, "low": low, "high": high, "n": records[0].count, "under": under}
