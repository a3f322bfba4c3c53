"""How estimates are tested: for each kind of figure the p-value that its true value is a given one.

All p-values are two-sided. A verdict that needs one below a level, on whichever side, is wrong with at most that
probability where the compared value is the true one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from unfool.evaluation.intervals import auroc_error
from unfool.evaluation.statistics.paired import PairedCounts, p_value

_LEAST_LOG = math.log(1e-120)
"""P-values below this are all given as this."""


class Inference(Protocol):
    """The p-value that a value is the true one."""

    def p_value(self, value: float) -> float: ...


@dataclass(frozen=True)
class PairedInference:
    """Two classifiers on the same images: McNemar's exact test, and Tango's score test of margins."""

    counts: PairedCounts

    def p_value(self, value: float) -> float:
        return p_value(self.counts, value)


@dataclass(frozen=True, kw_only=True)
class MeanInference:
    """A mean whose error is a sum of independent ones, each with an estimated variance and its degrees of freedom.

    The interval at a level is the mean ± √(Σ t² variance), each t at that level and those degrees: at least as wide as
    needed (Banerjee, "Approximate confidence interval for linear functions of means of k populations when the
    population variances are not equal", Sankhyā 1960). The p-value is the level at which the interval reaches a value.

    ``images`` add an error of their own, of values in [-1, 1] whose mean square is ``squared``. Were another mean the
    true one, the mean square would be at least as large as that: values of -1, 0 and 1 cannot be fewer.
    """

    mean: float
    errors: tuple[tuple[float, float], ...] = ()
    squared: float = 0.0
    images: int = 0

    def errors_at(self, value: float) -> tuple[tuple[float, float], ...]:
        """All errors, were ``value`` the true mean."""
        if not self.images:
            return self.errors
        variance = max(max(self.squared, abs(value)) - value * value, 0.0) / self.images
        return (*self.errors, (variance, max(self.images - 1.0, 1.0)))

    def half(self, level: float = 0.05, value: float | None = None) -> float:
        """Half of the interval's width at a level."""
        from scipy.special import stdtrit  # here, because it takes long to import

        errors = self.errors_at(self.mean if value is None else value)
        return math.sqrt(sum(variance * float(stdtrit(df, level / 2)) ** 2 for variance, df in errors))

    def p_value(self, value: float) -> float:
        from scipy.optimize import brentq  # here, because it takes long to import

        excess = abs(self.mean - value)
        if excess == 0 or not any(variance > 0 for variance, _ in self.errors_at(value)):
            return 1.0  # Of a mean without any known error nothing is shown.
        beyond = lambda log: self.half(math.exp(log), value) - excess  # noqa: E731
        return math.exp(float(brentq(beyond, _LEAST_LOG, 0.0))) if beyond(_LEAST_LOG) > 0 else math.exp(_LEAST_LOG)  # pyright: ignore


def of_differences(values: Sequence[Sequence[float] | np.ndarray]) -> MeanInference:
    """The mean of differences of images, ``values[s][i]`` of training seed s and image i.

    Two errors: that of the seeds, by the spread of their means, and that of the images, which all seeds share. For a
    single seed there is the latter alone. So that images that do not differ leave room for those that were not seen,
    one more in each direction counts (as in Bonett & Price, Journal of Educational and Behavioral Statistics 2012).
    """
    rows = [np.asarray(row, dtype=float) for row in values]
    means = [float(row.mean()) for row in rows]
    aligned = len({len(row) for row in rows}) == 1
    # Images of several seeds are averaged: what differs by seed alone is in the spread of the seeds.
    pooled = np.mean(rows, axis=0) if aligned else max(rows, key=lambda row: float((row**2).mean()) / len(row))
    count, largest = len(pooled), max(1.0, float(np.abs(pooled).max()))
    squared = (float((pooled**2).sum()) + 2 * largest**2) / (count + 2)
    return MeanInference(mean=sum(means) / len(means), errors=spread_of_seeds(means), squared=squared, images=count)


def spread_of_seeds(means: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """The error of the mean of one value a seed; none for a single seed, of which none is known."""
    return ((float(np.var(means, ddof=1)) / len(means), len(means) - 1.0),) if len(means) > 1 else ()


@dataclass(frozen=True, kw_only=True)
class ShareInference:
    """``count`` of ``n`` images: the exact binomial test."""

    count: int
    n: int

    def p_value(self, value: float) -> float:
        from scipy.stats import binomtest  # takes as long to import as all else here

        if not 0 < value < 1:
            return float(self.count == self.n * value)
        return float(binomtest(self.count, self.n, value).pvalue)


@dataclass(frozen=True, kw_only=True)
class AreaInference:
    """The area under a ROC curve of ``n`` images of each kind, against the error that another area would have."""

    area: float
    n: int

    def p_value(self, value: float) -> float:
        error = auroc_error(value, self.n, self.n) if 0 <= value <= 1 else 0.0
        return math.erfc(abs(self.area - value) / error / math.sqrt(2)) if error else float(self.area == value)


@dataclass(frozen=True, kw_only=True)
class RankInference:
    """Spearman's rank correlation of ``n`` pairs: Student's t at 0, Fisher's transformation elsewhere, and never less
    than the probability of one order among all."""

    rank: float
    n: int

    def p_value(self, value: float) -> float:
        from scipy.special import stdtr

        rank = min(max(self.rank, -1 + 1e-12), 1 - 1e-12)
        if value == 0:
            t = abs(rank) * math.sqrt((self.n - 2) / (1 - rank**2))
            tails = 2 * float(stdtr(self.n - 2, -t))
        else:
            other = min(max(value, -1 + 1e-12), 1 - 1e-12)
            error = math.sqrt((1 + other**2 / 2) / (self.n - 3))
            tails = math.erfc(abs(math.atanh(rank) - math.atanh(other)) / error / math.sqrt(2))
        return min(1.0, max(tails, 2 / math.factorial(self.n)))


@dataclass(frozen=True)
class StatedInference:
    """A p-value of 0 that was computed where the images were at hand; of other values nothing is known."""

    p_value_of_zero: float

    def p_value(self, value: float) -> float:
        return self.p_value_of_zero if value == 0 else 1.0


@dataclass(frozen=True)
class LeastInference:
    """The least of several figures, each with its inference: of a claim that all of them are above a value.

    That all are is shown where each is (so the largest p-value counts; Berger, Technometrics 1982). That not all are is
    shown where one is below, corrected for how many could have been.
    """

    parts: tuple[tuple[float, Inference], ...]

    def p_value(self, value: float) -> float:
        p_values = [inference.p_value(value) for _, inference in self.parts]
        below = [p for (mean, _), p in zip(self.parts, p_values, strict=True) if mean < value]
        return min(1.0, len(self.parts) * min(below)) if below else max(p_values)
