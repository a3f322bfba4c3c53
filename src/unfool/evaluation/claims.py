"""Claims as a results file holds them: what was claimed, the verdict on it, and the evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

HOLDS, FAILS, UNDECIDED, NOT_REPRODUCED = "holds", "fails", "undecided", "not reproduced"
VERDICTS = (HOLDS, FAILS, UNDECIDED, NOT_REPRODUCED)
"""``fails``: shown wrong. ``not reproduced``: the study's own control is too far from the source's to say anything."""


@dataclass(frozen=True, kw_only=True)
class ClaimResult:
    """One claim with its verdict: ``text`` is the claim in a sentence, ``evidence`` the figures and the rule applied.

    ``id`` names the claim within its study, and stays when its words change.
    """

    text: str
    verdict: str
    evidence: str
    id: str = ""

    def to_json(self) -> dict[str, Any]:
        """The claim as a results file holds it."""
        named = {"id": self.id} if self.id else {}
        return {**named, "text": self.text, "verdict": self.verdict, "evidence": self.evidence}
