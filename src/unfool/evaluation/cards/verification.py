"""What is found out about a card: each check with its verdict, the card's own, and how strictly it is checked."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from unfool.core.config import configured
from unfool.core.errors import ClaimError, UnsettledClaimError
from unfool.core.files import JsonObject
from unfool.models.zoo.model_card import Card

HOLDS, FAILS, UNDECIDED, NOT_CHECKED = "holds", "does not hold", "cannot say", "not checked"


@configured
class VerificationSettings:
    """How a card is checked.

    Raises:
        SpecError: An unknown key, or a value that is not allowed.

    Example:
        >>> from unfool import VerificationSettings
        >>> VerificationSettings(images=500).tolerance
        0.08
    """

    images: int = Field(
        default=2000, ge=0, description="Most test images that are attacked; 0: no accuracy is measured again."
    )
    tolerance: float = Field(
        default=0.08, gt=0, lt=1, description="A figure holds once it is known to be as close to the accuracy as this."
    )
    alpha: float = Field(default=0.05, gt=0, lt=1, description="Error rate of each accuracy's verdict.")
    seed: int = Field(default=1, ge=0, description="Seed of the sample, and of the attack on it.")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at, with its verdict and a sentence."""

    name: str
    verdict: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was checked of a card."""

    card: Card
    checks: list[Check]

    @property
    def verdict(self) -> str:
        """``does not hold`` if anything does not; ``cannot say`` if an accuracy stayed open; else ``holds``."""
        verdicts = {check.verdict for check in self.checks}
        return next((verdict for verdict in (FAILS, UNDECIDED) if verdict in verdicts), HOLDS)

    def to_json(self) -> JsonObject:
        """The JSON object that --json prints."""
        checks = [{"name": each.name, "verdict": each.verdict, "text": each.text} for each in self.checks]
        return {"card": self.card.name, "verdict": self.verdict, "checks": checks}

    @property
    def unchecked(self) -> list[Check]:
        """What could not be checked here."""
        return [check for check in self.checks if check.verdict == NOT_CHECKED]

    def raise_for_verdict(self, *, strict: bool = False) -> None:
        """ClaimError if the card does not hold, UnsettledClaimError if that stayed open.

        ``strict``: what could not be checked counts as open too.
        """
        errors = {FAILS: ClaimError, UNDECIDED: UnsettledClaimError}
        for verdict, error in {**errors, **({NOT_CHECKED: UnsettledClaimError} if strict else {})}.items():
            for check in self.checks:
                if check.verdict == verdict:
                    raise error(f"card of {self.card.name}, {check.name}: {verdict}: {check.text}")
