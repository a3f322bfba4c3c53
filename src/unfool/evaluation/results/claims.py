"""Claims as a results file holds them: what was claimed, the verdict on it, and the evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unfool.core.files import JsonObject

HOLDS, FAILS, UNDECIDED, NOT_REPRODUCED = "holds", "fails", "undecided", "not reproduced"
VERDICTS = (HOLDS, FAILS, UNDECIDED, NOT_REPRODUCED)
"""``fails``: shown wrong. ``not reproduced``: the study's own control is too far from the source's to say anything."""


@dataclass(frozen=True, kw_only=True)
class ClaimResult:
    """One claim with its verdict: ``text`` is the claim in a sentence, ``evidence`` the figures and the rule applied.

    ``evidence`` is one text or several sentences; ``id`` names the claim within its study, and stays when its words
    change.
    """

    text: str
    verdict: str
    evidence: str | Sequence[str] = ""
    id: str = ""

    @property
    def sentences(self) -> list[str]:
        """The evidence as a list of sentences, whether it was written as one text or several."""
        if isinstance(self.evidence, str):
            return [self.evidence] if self.evidence else []
        return list(self.evidence)

    def to_json(self) -> JsonObject:
        """The claim as a results file holds it."""
        named = {"id": self.id} if self.id else {}
        evidence = self.evidence if isinstance(self.evidence, str) else list(self.evidence)
        return {**named, "text": self.text, "verdict": self.verdict, "evidence": evidence}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ClaimResult:
        """The claim that `to_json` wrote."""
        evidence = values.get("evidence") or ""
        several = evidence if isinstance(evidence, str) else tuple(str(item) for item in evidence)
        return cls(text=values["text"], verdict=values["verdict"], evidence=several, id=str(values.get("id", "")))
