"""What the lean attack left out, what that may have cost, and why it went on where it did."""

from __future__ import annotations

import math
from dataclasses import dataclass

CONFIDENCE = 0.95
"""Of the bound on what was left out."""


def most_missed(standing: int, sampled: int, confidence: float = CONFIDENCE) -> int:
    """How many of the images outside a sample could be fooled, at most, where none in it was.

    ``sampled`` of ``standing`` images were attacked in vain. The bound is exact: of the numbers d for which such a
    sample misses all with a probability of at least 1 - ``confidence``, C(N - d, m) / C(N, m), it is the largest.

    Example:
        >>> from unfool.evaluation.lean.outcome import most_missed
        >>> most_missed(100, 10), most_missed(100, 100), most_missed(100, 0)
        (24, 0, 100)
    """
    rest = standing - sampled
    whole = math.comb(standing, sampled)
    # The probability falls as d grows: bisection, as sets have 50,000 images.
    low, high = 0, rest
    while low < high:
        middle = (low + high + 1) // 2
        if math.comb(standing - middle, sampled) / whole >= 1 - confidence:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of an escalation.

    Args:
        attack: What attacked, in words.
        attacked: How many images, all of which stood.
        fell: How many of them fell.
        reasons: Why it was done, one phrase each.
        random: Whether the model is random, so that an image fell if it is wrong in every draw.
    """

    attack: str
    attacked: int
    fell: int
    reasons: tuple[str, ...]
    random: bool = False

    def sentence(self) -> str:
        """What was done and why."""
        often = " in every draw" if self.random else ""
        fooled = f"it fooled {self.fell} of the {self.attacked} images that stood{often}"
        return f"escalated to {self.attack} ({fooled}), because {'; '.join(self.reasons)}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What followed the lean attack's gradient runs.

    Args:
        images: Images in all.
        standing: Images that the gradient runs left right.
        fell_to_checks: How many of them an attack of the checks had fooled.
        sampled: Those of the others that FAB-T and Square attacked first.
        fell_in_sample: How many of these fell.
        fell: How many images of all fell to anything that followed the gradient runs.
        steps: What was escalated to; none where nothing was.
        complete: Whether AutoAttack was among the steps, so that nothing was skipped.
        harmless: Whether eps is 0, so that there was nothing to try.
    """

    images: int
    standing: int
    fell_to_checks: int = 0
    sampled: int = 0
    fell_in_sample: int = 0
    fell: int = 0
    steps: tuple[Step, ...] = ()
    complete: bool = False
    harmless: bool = False

    @property
    def left(self) -> int:
        """Images that stood when FAB-T and Square began."""
        return self.standing - self.fell_to_checks - sum(step.fell for step in self.steps)

    @property
    def skipped(self) -> int:
        """Images that FAB-T and Square did not attack although they stand."""
        if self.complete or self.fell_in_sample or self.harmless:
            return 0
        return self.left - self.sampled

    @property
    def missed_at_most(self) -> int:
        """Upper bound on the images that what was skipped would have fooled, at `CONFIDENCE`."""
        return most_missed(self.skipped + self.sampled, self.sampled) if self.skipped else 0

    def sentence(self) -> str:
        """What was done and left out, one phrase a step, for a table."""
        phrases = [step.sentence() for step in self.steps]
        if self.fell_to_checks:
            phrases = [f"the checks fooled {self.fell_to_checks} of the {self.standing} images that stood", *phrases]
        return "; ".join(phrases if self.complete else [*phrases, self._of_sample()])

    def _of_sample(self) -> str:
        standing, fell = self.left, self.fell - (self.standing - self.left)
        if self.harmless:
            return "eps is 0, so that nothing was left to try"
        if not standing:
            return "no image stood, so that nothing was left to attack"
        if self.sampled == standing:
            return f"FAB-T and Square attacked all {standing} images that stood, and fooled {fell or 'none'}"
        if self.fell_in_sample:
            return (
                f"FAB-T and Square fooled {self.fell_in_sample} of {self.sampled} images that stood, and so attacked "
                f"all {standing}, of which they fooled {fell}"
            )
        most, share = self.missed_at_most, self.missed_at_most / self.images
        return (
            f"FAB-T and Square attacked {self.sampled} of the {standing} images that stood, drawn at random, and "
            f"fooled none; of the other {self.skipped} they would have fooled at most {most} (with {CONFIDENCE:.0%} "
            f"confidence), which is {100 * share:.1f} points of robust accuracy"
        )
