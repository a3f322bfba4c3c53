"""Claims as a results file holds them: what was claimed, the verdict on it, and the evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unfool.core.files import JsonObject
from unfool.evaluation.results.claim_words import ClaimEstimate, estimate_in_words

HOLDS, FAILS, UNDECIDED, NOT_REPRODUCED = "holds", "fails", "undecided", "not reproduced"
OUT_OF_REACH = "out of reach"
VERDICTS = (HOLDS, FAILS, UNDECIDED, NOT_REPRODUCED, OUT_OF_REACH)
"""``fails``: shown wrong. ``not reproduced``: the study's own control is too far from the source's to say anything.
``out of reach``: no result whatever could make it hold here, as the control leaves less than is claimed."""


@dataclass(frozen=True, kw_only=True)
class ClaimResult:
    """One claim with its verdict: ``text`` is the claim in a sentence, ``evidence`` the figures and the rule applied.

    ``evidence`` is one text or several sentences; ``id`` names the claim within its study, and stays when its words
    change. ``figure`` is what was compared, with its interval, and ``estimate`` the same in numbers, beside the rule's
    bound. ``p_value`` is that of the test (None where nothing was tested), ``corrected_p_value`` the same after Holm's
    correction for the study's ``claims_tested``.
    """

    text: str
    verdict: str
    evidence: str | Sequence[str] = ""
    id: str = ""
    figure: str = ""
    p_value: float | None = None
    corrected_p_value: float | None = None
    claims_tested: int = 0
    estimate: ClaimEstimate | None = None

    @property
    def numbers(self) -> ClaimEstimate | None:
        """The estimate; of a claim that has none in numbers, the one that its evidence names, if it names one."""
        return self.estimate or estimate_in_words(" ".join(self.sentences))

    @property
    def sentences(self) -> list[str]:
        """The evidence as a list of sentences, whether it was written as one text or several; then the p-values."""
        evidence = [self.evidence] if isinstance(self.evidence, str) else list(self.evidence)
        return [text for text in (*evidence, self.significance) if text]

    @property
    def significance(self) -> str:
        """The p-values in words; empty where nothing was tested."""
        if self.p_value is None or self.corrected_p_value is None:
            return ""
        if self.claims_tested == 1:
            return f"p {_written(self.p_value)}."
        corrected = _written(self.corrected_p_value)
        return f"p {_written(self.p_value)}, after Holm's correction for {self.claims_tested} claims p {corrected}."

    def to_json(self) -> JsonObject:
        """The claim as a results file holds it."""
        named = {"id": self.id} if self.id else {}
        evidence = self.evidence if isinstance(self.evidence, str) else list(self.evidence)
        figures: JsonObject = {
            "figure": self.figure,
            "p_value": _rounded(self.p_value),
            "corrected_p_value": _rounded(self.corrected_p_value),
            "claims_tested": self.claims_tested or None,
            "estimate": None if self.estimate is None else self.estimate.to_json(),
        }
        known = {key: value for key, value in figures.items() if value is not None and value != ""}
        return {**named, "text": self.text, "verdict": self.verdict, "evidence": evidence, **known}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ClaimResult:
        """The claim that `to_json` wrote."""
        evidence = values.get("evidence") or ""
        several = evidence if isinstance(evidence, str) else tuple(str(item) for item in evidence)
        estimate = values.get("estimate")
        return cls(
            text=values["text"],
            verdict=values["verdict"],
            evidence=several,
            id=str(values.get("id", "")),
            figure=str(values.get("figure", "")),
            p_value=values.get("p_value"),
            corrected_p_value=values.get("corrected_p_value"),
            claims_tested=int(values.get("claims_tested", 0)),
            estimate=None if estimate is None else ClaimEstimate.from_json(estimate),
        )


def tally(claims: Iterable[ClaimResult]) -> list[tuple[str, int]]:
    """The verdicts that any of the claims has, in the order of `VERDICTS`, and how many have it."""
    verdicts = [claim.verdict for claim in claims]
    return [(verdict, verdicts.count(verdict)) for verdict in VERDICTS if verdict in verdicts]


def _written(p_value: float) -> str:
    return f"= {p_value:.2g}" if p_value >= 0.0001 else "< 0.0001"


def _rounded(p_value: float | None) -> float | None:
    return None if p_value is None else float(f"{p_value:.3g}")
