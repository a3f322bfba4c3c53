# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportMissingTypeStubs=false
"""Intervals for accuracies, means, areas under the ROC curve and rank correlations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from unfool.core.errors import SpecError


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for an accuracy (Wilson, JASA 1927).

    It holds for a number of images fixed beforehand, not for one that the outcomes decided (see `AccuracyClaim`).

    Args:
        correct: How many images are classified correctly.
        total: How many images there are.
        confidence: Probability, in (0,1), that the interval covers the true accuracy.

    Returns:
        The lowest and the highest accuracy, in [0,1].

    Raises:
        SpecError: ``correct`` is not between 0 and ``total``, or ``confidence`` is not between 0 and 1.

    Example:
        >>> from unfool.evaluation import wilson
        >>> low, high = wilson(90, 100)
        >>> f"{low:.3f} to {high:.3f}"
        '0.826 to 0.945'
    """
    if not 0 <= correct <= total or total < 1:
        raise SpecError(f"{correct} correct of {total} images is no share; give 0 ≤ correct ≤ total and total ≥ 1")
    check_confidence(confidence)
    from scipy.stats import binomtest  # takes as long to import as all else here

    low, high = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    # Rounding must not leave an end point a hair inside what was observed.
    return min(float(low), correct / total), max(float(high), correct / total)


def check_confidence(confidence: float) -> None:
    """Refuse a confidence outside (0,1); raises SpecError."""
    if not 0 < confidence < 1:
        raise SpecError(f"confidence {confidence} is not allowed; give a number between 0 and 1, such as 0.95")


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """The mean of values (N,) in [-1, 1] with its 95 % normal interval; that of a single value reaches 1 each way."""
    array = np.asarray(values, dtype=float)
    mean = float(array.mean())
    half = 1.96 * float(array.std(ddof=1)) / math.sqrt(len(array)) if len(array) > 1 else 1.0
    return mean, mean - half, mean + half


def auroc_interval(area: float, positives: int, negatives: int) -> tuple[float, float]:
    """The 95 % interval of an area under the ROC curve: every area from which it is within 1.96 standard errors.

    The error is that of the area compared with (Hanley & McNeil, Radiology 1982, equation 1), not of the one observed,
    which is 0 where all images are told apart.
    """
    if min(positives, negatives) < 1 or not 0 <= area <= 1:
        raise SpecError(f"an area of {area} over {positives} and {negatives} images is none; give an area in [0,1]")
    from scipy.optimize import brentq  # here, because it takes long to import

    excess = lambda other: abs(other - area) - 1.96 * auroc_error(other, positives, negatives)  # noqa: E731

    def end(side: float) -> float:
        # Begun a hair away, since at 0 and 1 themselves there is no error.
        start = area + math.copysign(1e-9, side - area)
        return area if abs(side - area) < 1e-8 else float(brentq(excess, start, side))  # pyright: ignore

    return end(0.0), end(1.0)


def auroc_error(area: float, positives: int, negatives: int) -> float:
    """The standard error of an area under the ROC curve that is ``area`` in truth (Hanley & McNeil 1982)."""
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positives - 1) * (first - area**2) + (negatives - 1) * (second - area**2)
    return math.sqrt(max(variance, 0.0) / (positives * negatives))


def spearman_interval(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """Spearman's rank correlation of two rows of values with its 95 % interval.

    The interval is Fisher's, with the standard error of Bonett & Wright (Psychometrika 2000). Raises SpecError for
    fewer than four pairs.
    """
    if len(first) != len(second) or len(first) < 4:
        raise SpecError(f"{len(first)} and {len(second)} values have no rank correlation; give four pairs or more")
    from scipy.stats import spearmanr  # as above

    correlation: Any = spearmanr(first, second)
    rank = float(correlation.statistic)
    spread = 1.96 * math.sqrt((1 + rank**2 / 2) / (len(first) - 3))
    centre = math.atanh(min(max(rank, -0.999), 0.999))
    return rank, math.tanh(centre - spread), math.tanh(centre + spread)
