# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnnecessaryIsInstance=false
"""Stop attacking as soon as a claim about robust accuracy is settled, at an error rate that survives looking often.

Images come in a random order, so each is correct with the same unknown probability p, the accuracy that the claim is
about. A gambler who believes p > c stakes a share u of the money on the next image being correct, at odds that are
fair for p = c: 1 becomes 1 + u(1 - c)/c, or 1 - u. Spread evenly over all u in (0,1), and with S images correct and F
wrong so far, 1 has become

    M(c) = ∫ (1 + u(1 - c)/c)^S (1 - u)^F du = B(S+1, F+1) · P(Beta(S+1, F+1) > c) / (c^S (1 - c)^(F+1)),

the mixture of the likelihood ratios of q = c + u(1 - c) to c (Robbins 1970, section 2; as bets: Waudby-Smith & Ramdas
2024). Where p ≤ c it is a non-negative supermartingale that starts at 1, and ever reaches 2/α with probability at most
α/2 (Ville 1939). The mirrored bet, on wrong images, speaks against p ≥ c. M falls in c, so the c that neither bet has
refuted form an interval, and all of these intervals together hold p with probability at least 1 - α: it may be looked
at after any image, and one may stop when one likes. The claim is settled once the interval leaves its bound behind.

The usual interval (Wilson's) holds for a number of images fixed beforehand. After stopping where it looked good it is
too narrow, so results of a sequential evaluation show this interval instead.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unfool.core.errors import SpecError
from unfool.core.spec import parse_number
from unfool.evaluation.intervals import check_confidence
from unfool.evaluation.results.claims import FAILS, HOLDS

_CLAIM = re.compile(r"\s*(>=|<=|>|<)(.+)")


@dataclass(frozen=True)
class AccuracyClaim:
    """A claim about a robust accuracy, such as that it is at least 45 %.

    Args:
        relation: ``>=``, ``>``, ``<=`` or ``<``. Both of ``>=`` and ``>`` get the same verdicts.
        bound: A share between 0 and 1.

    Raises:
        SpecError: Another relation, or a bound outside (0,1).

    Example:
        >>> from unfool import AccuracyClaim
        >>> AccuracyClaim.parse(">=0.45") == AccuracyClaim(">=", 0.45)
        True
    """

    relation: str
    bound: float

    def __post_init__(self) -> None:
        if self.relation not in (">=", ">", "<=", "<"):
            raise SpecError(f"relation {self.relation!r} of a claim is unknown; give one of >=, >, <=, <")
        if not 0 < self.bound < 1:
            raise SpecError(
                f"bound {self.bound:g} of a claim is not allowed; give a share between 0 and 1, such as 0.45 for 45 %"
            )

    @classmethod
    def parse(cls, text: str) -> AccuracyClaim:
        """Read ``>=0.45``, ``<1/3`` and the like; raises SpecError."""
        match = _CLAIM.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise SpecError(f"claim {text!r} is not understood; write a relation and a share, such as >=0.45 or <0.1")
        return cls(match[1], parse_number(match[2], f"bound of claim {text!r},"))

    def __str__(self) -> str:
        return f"{self.relation}{self.bound:g}"


def log_evidence(correct: Any, wrong: Any, bound: Any) -> np.ndarray:
    """log M of the module's docstring: the evidence for an accuracy above ``bound``; arrays are broadcast."""
    from scipy.special import betaincc, betaln  # here, because it takes long to import

    with np.errstate(divide="ignore"):
        # Where the tail underflows the images speak against it so strongly that -inf is as good.
        tail = np.log(betaincc(np.add(correct, 1.0), np.add(wrong, 1.0), bound))
    fair = np.multiply(correct, np.log(bound)) + np.multiply(np.add(wrong, 1.0), np.log1p(np.negative(bound)))
    return betaln(np.add(correct, 1.0), np.add(wrong, 1.0)) + tail - fair


def anytime_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of an accuracy after ``correct`` of ``total`` images, valid whenever the evaluation stops.

    One interval of the confidence sequence above; (0, 1) before the first image. It holds the observed share, and the
    whole exact interval (Clopper & Pearson 1934) for a number of images fixed beforehand. Raises SpecError for what is
    no share or no confidence.
    """
    if not 0 <= correct <= total:
        raise SpecError(f"{correct} correct of {total} images is no share; give 0 ≤ correct ≤ total")
    check_confidence(confidence)
    from scipy.optimize import brentq  # here, because it takes long to import

    limit = math.log(2 / (1 - confidence))

    def least(right: int, wrong: int) -> float:
        if not right:
            return 0.0
        # At the observed share M is at most 1, and towards 0 it grows without end.
        observed = right / (right + wrong)
        # Small shares want a small error of their own, so the root is that of the logarithm.
        excess: Callable[[float], Any] = lambda log: log_evidence(right, wrong, math.exp(log)) - limit  # noqa: E731
        root: Any = brentq(excess, math.log(1e-300), math.log(observed * (1 - 1e-9)))
        return math.exp(root)

    return least(correct, total - correct), 1.0 - least(total - correct, correct)


class SequentialTest:
    """Tests a claim on outcomes in random order; its error rate is at most ``alpha`` however often it is updated.

    ``verdict`` is None until the claim is settled, and final from then on: later outcomes are not counted, neither in
    ``correct`` nor in ``count``. Raises SpecError for a claim or an alpha that is not allowed.
    """

    def __init__(self, claim: AccuracyClaim | str, alpha: float = 0.05):
        if not 0 < alpha < 1:
            raise SpecError(f"error rate {alpha} is not allowed; give a number between 0 and 1, such as 0.05")
        self.claim = AccuracyClaim.parse(claim) if isinstance(claim, str) else claim
        self.alpha = alpha
        self.correct = 0
        self.count = 0
        self.verdict: str | None = None

    def update(self, outcomes: Sequence[bool] | np.ndarray) -> str | None:
        """Count outcomes (correct or not), then test the claim; the verdict, None while it is open."""
        if self.verdict is not None:
            return self.verdict
        self.correct += int(np.count_nonzero(np.asarray(outcomes, dtype=bool)))
        self.count += len(outcomes)
        wrong, bound, limit = self.count - self.correct, self.claim.bound, math.log(2 / self.alpha)
        above = log_evidence(self.correct, wrong, bound) >= limit
        below = log_evidence(wrong, self.correct, 1 - bound) >= limit
        if above or below:
            self.verdict = HOLDS if above == self.claim.relation.startswith(">") else FAILS
        return self.verdict

    def out_of_reach(self, right: Sequence[bool] | np.ndarray, look: int) -> str:
        """Why the claim cannot hold on images in this order, looked at ``look`` at a time; empty if it can.

        ``right`` says which of them are classified correctly without an attack: at best all of those stand.
        """
        upwards, total = self.claim.relation.startswith(">"), len(right)
        looks = np.minimum(np.arange(look, total + look, look), total)
        standing = np.cumsum(np.asarray(right, dtype=bool))[looks - 1] if upwards else looks * 0
        bound = self.claim.bound if upwards else 1 - self.claim.bound
        limit = math.log(2 / self.alpha)
        if (log_evidence(standing if upwards else looks, looks - standing if upwards else 0, bound) >= limit).any():
            return ""
        if not (log_evidence(looks, 0, bound) >= limit).any():
            return f"no outcome on {total} images could show it; give at least {_fewest(bound, limit)}"
        return (
            f"only {int(standing[-1])} of {total} images are right without an attack, and even if all of them stood it "
            "would not be shown; give more images, or a lower bound"
        )

    def interval(self) -> tuple[float, float]:
        """The interval of the accuracy, with confidence 1 - alpha whenever the evaluation stops."""
        return anytime_interval(self.correct, self.count, 1 - self.alpha)


def _fewest(bound: float, limit: float) -> int:
    """How many images, every one of them correct, it takes to show an accuracy above ``bound``."""
    most = 1
    while log_evidence(most, 0, bound) < limit:
        most *= 2
    return bisect.bisect_left(range(most), True, key=lambda count: bool(log_evidence(count, 0, bound) >= limit))
