"""Two classifiers on the same images: the score interval of their difference, tests against any margin, and Holm.

Legend: of n images ``only_first`` (b) are classified correctly by the first classifier alone and ``only_second`` (c) by
the second alone; the difference of accuracies is (b - c) / n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unfool.core.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class PairedCounts:
    """How many of ``n`` images one of two classifiers alone gets right."""

    only_first: int
    only_second: int
    n: int

    def __post_init__(self) -> None:
        if min(self.only_first, self.only_second) < 0 or not 1 <= self.n >= self.only_first + self.only_second:
            raise SpecError(
                f"{self.only_first} and {self.only_second} of {self.n} are no counts of differing images; "
                "give two whole numbers of 0 or more whose sum is at most n, and n of 1 or more"
            )

    @classmethod
    def of(cls, first: Sequence[bool] | np.ndarray, second: Sequence[bool] | np.ndarray) -> PairedCounts:
        """The counts of two lists of outcomes (N,), correct or not on the same images; SpecError if unpaired."""
        ours, theirs = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
        if ours.ndim != 1 or ours.shape != theirs.shape or not len(ours):
            raise SpecError(
                f"outcomes of {ours.shape} and {theirs.shape} cannot be paired; give one per image, (N,), N ≥ 1"
            )
        return cls(only_first=int((ours & ~theirs).sum()), only_second=int((theirs & ~ours).sum()), n=len(ours))

    @property
    def difference(self) -> float:
        """Accuracy of the first classifier minus that of the second, a share in [-1, 1]."""
        return (self.only_first - self.only_second) / self.n


def score(counts: PairedCounts, margin: float = 0.0) -> float:
    """Tango's score: how many standard errors the difference lies above ``margin``, were ``margin`` the true one.

    The error is that of the restricted maximum-likelihood estimate (Tango, "Equivalence test and confidence interval
    for the difference in proportions for the paired-sample design", Statistics in Medicine 1998, equation 5). It is 0
    where all images agree and the margin is 0.
    """
    b, c, n = counts.only_first, counts.only_second, counts.n
    variance = n * (2 * _behind(counts, margin) + margin * (1 - margin))
    excess = b - c - n * margin
    if variance <= 0:
        return 0.0 if excess == 0 else math.copysign(math.inf, excess)
    return excess / math.sqrt(variance)


def _behind(counts: PairedCounts, margin: float) -> float:
    """The maximum-likelihood share of images that the second classifier alone gets right, were ``margin`` true."""
    b, c, n = counts.only_first, counts.only_second, counts.n
    linear = -b - c + (2 * n - b + c) * margin
    root = math.sqrt(max(linear * linear + 8 * n * c * margin * (1 - margin), 0.0))
    return min(max((root - linear) / (4 * n), 0.0, -margin), (1 - margin) / 2)


def score_interval(counts: PairedCounts, confidence: float = 0.95) -> tuple[float, float]:
    """Tango's score interval of the difference: every margin that the score test does not reject.

    Unlike a bootstrap's it has a width where all images agree, and covers at its nominal rate with few that do not.
    """
    if not 0 < confidence < 1:
        raise SpecError(f"confidence {confidence} is not allowed; give a number between 0 and 1, such as 0.95")
    from scipy.optimize import brentq  # here, because it takes long to import
    from scipy.special import ndtri

    bound = float(ndtri(0.5 + confidence / 2))
    centre, edge = counts.difference, 1 - 1e-12

    def end(side: float, sign: float) -> float:
        # Near ±1 the score still does not reject where hardly any image agrees, or where the difference is ±1 itself.
        if (abs(centre) >= edge and centre * side > 0) or sign * score(counts, side) > -bound:
            return math.copysign(1.0, side)
        return float(brentq(lambda margin: sign * score(counts, margin) + bound, centre, side, xtol=1e-12))  # pyright: ignore

    low, high = end(-edge, -1.0), end(edge, 1.0)
    return max(-1.0, low), min(1.0, high)


def p_value(counts: PairedCounts, margin: float = 0.0) -> float:
    """Two-sided p-value that ``margin`` is the true difference: McNemar's exact test at 0, the score test elsewhere.

    Where few images differ the normal law of the score rejects too often (up to 6.4 % at a level of 5 %), so the larger
    of two p-values counts: the score's, and the exact one of the difference under the score's restricted estimate.
    """
    if margin == 0:
        return mcnemar(counts.only_first, counts.only_second)
    return max(math.erfc(abs(score(counts, margin)) / math.sqrt(2)), _exact_p_value(counts, margin))


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's two-sided p-value that two models are equally accurate, from the images that one alone gets right.

    McNemar 1947 in its exact form: of the images on which the two disagree, each is the first's with probability 1/2,
    so that the count is binomial. Raises SpecError for negative counts.
    """
    if min(only_first, only_second) < 0:
        raise SpecError(f"{only_first} and {only_second} are no counts of images; give whole numbers of 0 or more")
    from scipy.special import bdtr  # here, because it takes long to import

    return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))


def _exact_p_value(counts: PairedCounts, margin: float) -> float:
    """Twice the smaller tail of b - c, were the restricted estimate of `score` the truth.

    The law of b - c has the characteristic function of n independent images; its Fourier transform is the law.
    """
    n, behind = counts.n, _behind(counts, margin)
    size = 1 << (2 * n + 1).bit_length()
    turn = np.exp(-2j * np.pi * np.arange(size) / size)
    law = np.fft.ifft((1 + (behind + margin) * (turn - 1) + behind * (1 / turn - 1)) ** n).real
    # Place k of the transform is the difference k, and from the end on backwards -1, -2, …
    law = np.concatenate([law[-n:], law[: n + 1]])
    place = counts.only_first - counts.only_second + n
    return float(min(1.0, 2 * max(0.0, min(law[: place + 1].sum(), law[place:].sum()))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: reject those below a level, and no true one is rejected more often
    than at that level, over all of them together (Holm, Scandinavian Journal of Statistics 1979)."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted
