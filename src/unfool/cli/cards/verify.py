"""``unfool verify``: does a model card hold?"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from unfool.cli.options.from_settings import explicit, options_from
from unfool.cli.options.shared import Json

if TYPE_CHECKING:
    from unfool.evaluation.cards.verification import Verification


@options_from("unfool.evaluation.cards.verification:VerificationSettings")
class SampleOptions:
    """The images that the accuracies are measured on again."""


@dataclass(frozen=True, kw_only=True)
class VerifyCommand:
    """Check a model card: hashes, architecture and stored predictions, then both accuracies on a fresh random sample.

    The sample is attacked image by image until a sequential test settles each figure: it holds, it does not, or nobody
    can say with so many images. Where the data set is missing all else is checked, and a line says that accuracies were
    not. Exit codes: 0 the card holds as far as it was checked; 10 it does not; 11 nobody can say yet, since the images
    were too few or nothing supports a figure, or with --strict something was not checked; 3 there is no card, or a
    malformed one.
    """

    card: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CARD")]
    """zoo:NAME, hf:OWNER/NAME, a network's folder, or its card.json."""
    sample: SampleOptions = field(default_factory=SampleOptions)
    strict: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """End with exit code 11 if anything could not be checked."""
    json: Json = False

    examples: ClassVar[str] = """
  unfool verify zoo:digits-robust
  unfool verify zoo:cifar10-robust --images 500 --tolerance 0.1
  unfool verify published/card.json --strict
  unfool verify hf:owner/name --json
"""

    def run(self) -> None:
        from unfool.cli.printing import print_json, print_lines, shared, stderr
        from unfool.core.config import build
        from unfool.core.progress_display import progress_bar
        from unfool.evaluation.cards.verification import VerificationSettings
        from unfool.evaluation.cards.verifying import verify
        from unfool.models.zoo.model_card import CARD

        settings = build(VerificationSettings, explicit(self.sample), "the verification")
        with shared():
            folder = self.card.parent if self.card.name == CARD else self.card
            with progress_bar(stderr(), str(self.card)) as progress:
                verification = verify(folder, settings=settings, progress=progress)
            if self.json:
                print_json(verification.to_json())
            else:
                print_lines(_lines(verification))
            verification.raise_for_verdict(strict=self.strict)


def _lines(verification: Verification) -> list[str]:
    width = max(len(check.name) for check in verification.checks)
    lines = [f"{check.name:<{width}}  {check.verdict}: {check.text}" for check in verification.checks]
    left = [check.name for check in verification.unchecked]
    more = f"; not checked: {', '.join(left)}" if left else ""
    return [*lines, f"card of {verification.card.name}: {verification.verdict}{more}"]
