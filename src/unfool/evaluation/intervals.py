"""Intervals for accuracies, and tests for the difference of two on the same images."""

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


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's two-sided p-value that two models are equally accurate, from the images that one alone gets right.

    McNemar 1947 in its exact form: of the images on which the two disagree, each is the first's with probability 1/2,
    so that the count is binomial. Raises SpecError for negative counts.
    """
    if min(only_first, only_second) < 0:
        raise SpecError(f"{only_first} and {only_second} are no counts of images; give whole numbers of 0 or more")
    from scipy.stats import binomtest  # as above

    disagreements = only_first + only_second
    return float(binomtest(only_first, disagreements).pvalue) if disagreements else 1.0


def paired_bootstrap(
    first: Sequence[bool] | np.ndarray,
    second: Sequence[bool] | np.ndarray,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Accuracy of ``first`` minus that of ``second`` (N,), correct or not on the same images, with its interval.

    The percentile interval of the paired bootstrap (Efron & Tibshirani 1993, chapter 13). An image adds +1, 0 or -1
    to the difference, so drawing N images with replacement is exactly one multinomial draw of how many of each kind
    there are: no image is touched. Where all N are of one kind no resample can differ; the ends then follow from
    Wilson's interval for 0 of N images of another kind. Raises SpecError for outcomes that cannot be paired.
    """
    ours, theirs = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if ours.ndim != 1 or ours.shape != theirs.shape or not len(ours):
        raise SpecError(
            f"outcomes of {ours.shape} and {theirs.shape} cannot be paired; give one per image, (N,), N ≥ 1"
        )
    check_confidence(confidence)
    if resamples < 1:
        raise SpecError(f"{resamples} resamples are not allowed; give 1 or more, such as 10000")
    count = len(ours)
    ahead, behind = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    difference = (ahead - behind) / count
    kinds = (ahead, behind, count - ahead - behind)
    if count in kinds:
        # An image of another kind moves the difference by 1 where the models agree on all, by 2 where they never do.
        reach = wilson(0, count, confidence)[1] * (1 if difference == 0 else 2)
        return difference, max(-1.0, difference - reach), min(1.0, difference + reach)
    drawn = np.random.default_rng(seed).multinomial(count, np.array(kinds) / count, size=resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / count, [tail, 1 - tail])
    return difference, float(low), float(high)


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """The mean of values (N,) in [-1, 1] with its 95 % normal interval; that of a single value reaches 1 each way."""
    array = np.asarray(values, dtype=float)
    mean = float(array.mean())
    half = 1.96 * float(array.std(ddof=1)) / math.sqrt(len(array)) if len(array) > 1 else 1.0
    return mean, mean - half, mean + half


def auroc_interval(area: float, positives: int, negatives: int) -> tuple[float, float]:
    """The 95 % interval of an area under the ROC curve (Hanley & McNeil, Radiology 1982, equation 1)."""
    if min(positives, negatives) < 1 or not 0 <= area <= 1:
        raise SpecError(f"an area of {area} over {positives} and {negatives} images is none; give an area in [0,1]")
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positives - 1) * (first - area**2) + (negatives - 1) * (second - area**2)
    half = 1.96 * math.sqrt(max(variance, 0.0) / (positives * negatives))
    return max(0.0, area - half), min(1.0, area + half)


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
