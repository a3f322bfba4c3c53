"""Wilson's interval against the formula as he wrote it and against the coin; two models on the same images."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from unfool.core.errors import SpecError
from unfool.evaluation import wilson
from unfool.evaluation.intervals import auroc_error, auroc_interval, mean_interval, spearman_interval

Z = 1.959963984540054


def roots(correct, total):
    """The two shares p at which |correct/total - p| is z standard errors of p, by the quadratic formula."""
    share = correct / total
    a, b, c = 1 + Z * Z / total, -(2 * share + Z * Z / total), share * share
    root = math.sqrt(b * b - 4 * a * c)
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


@given(st.integers(1, 20000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_the_end_points_solve_wilson_s_equation(case):
    correct, total = case
    low, high = wilson(correct, total)
    expected = roots(correct, total)
    assert low == pytest.approx(expected[0], abs=1e-9)
    assert high == pytest.approx(expected[1], abs=1e-9)
    assert 0.0 <= low <= correct / total <= high <= 1.0


def test_published_values():
    """Newcombe, Statistics in Medicine 1998, table I, method 3 (score, without continuity correction)."""
    for correct, total, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]:
        assert wilson(correct, total) == pytest.approx((low, high), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def coverage(total, shares, confidence):
    """The exact probability, for each share, that the interval of a binomial count holds it."""
    low, high = np.array([wilson(correct, total, confidence) for correct in range(total + 1)]).T[..., None]
    return (binom.pmf(np.arange(total + 1)[:, None], total, shares) * ((low <= shares) & (shares <= high))).sum(0)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("total", [10, 20, 50, 200, 1000])
def test_average_coverage_is_within_a_point_of_nominal(total, confidence):
    covered = coverage(total, np.linspace(0.05, 0.95, 1801), confidence)
    assert abs(covered.mean() - confidence) < 0.01
    assert covered.min() > confidence - 0.13


def test_coverage_in_simulation():
    random = np.random.default_rng(3)
    shares = random.uniform(0.05, 0.95, 40_000)
    intervals = np.array([wilson(correct, 100) for correct in range(101)])
    low, high = intervals[random.binomial(100, shares)].T
    assert np.mean((low <= shares) & (shares <= high)) == pytest.approx(0.95, abs=0.01)


@given(st.integers(1, 100_000), st.floats(0.01, 0.9999))
def test_no_interval_is_empty_where_all_or_none_are_correct(total, confidence):
    none, every = wilson(0, total, confidence), wilson(total, total, confidence)
    assert none[0] == 0.0 < none[1] <= 1.0
    assert every[1] == 1.0 > every[0] >= 0.0


def test_more_confidence_or_fewer_images_widen_it():
    def width(*arguments):
        low, high = wilson(*arguments)
        return high - low

    assert width(50, 100, 0.99) > width(50, 100, 0.95) > width(50, 100, 0.5)
    assert width(5, 10) > width(50, 100) > width(500, 1000)


@pytest.mark.parametrize("arguments", [(-1, 3), (4, 3), (0, 0), (1, 2, 0.0), (1, 2, 1.0), (1, 2, float("nan"))])
def test_what_is_no_share_or_no_confidence_is_refused(arguments):
    with pytest.raises(SpecError):
        wilson(*arguments)


def test_the_mean_s_interval_is_the_normal_one():
    values = [0.1, -0.2, 0.4, 0.3]
    mean, low, high = mean_interval(values)
    half = 1.96 * np.std(values, ddof=1) / 2
    assert (mean, low, high) == pytest.approx((0.15, 0.15 - half, 0.15 + half))
    assert mean_interval([0.5]) == (0.5, -0.5, 1.5)


def test_the_error_of_an_auroc_is_hanley_and_mcneil_s():
    """Their example: an area of 0.893 over 51 abnormal and 58 normal images has a standard error of about 0.0326."""
    assert auroc_error(0.893, 51, 58) == pytest.approx(0.0326, abs=5e-4)


def test_an_area_s_interval_ends_where_the_area_is_1_96_errors_away():
    low, high = auroc_interval(0.893, 51, 58)
    for end in (low, high):
        assert abs(end - 0.893) == pytest.approx(1.96 * auroc_error(end, 51, 58), rel=1e-6)
    # all are told apart, and yet the interval has a width
    low, high = auroc_interval(1.0, 5, 5)
    assert (low, high) == (pytest.approx(1 - 1.96 * auroc_error(low, 5, 5)), 1.0)
    with pytest.raises(SpecError, match="give an area"):
        auroc_interval(1.2, 5, 5)


def test_the_interval_of_a_rank_correlation_is_fisher_s():
    """Ranks by hand: differences 0, 0, 2, 1, 1 give 1 - 6·6 / (5·24) = 0.7."""
    rank, low, high = spearman_interval([1, 2, 3, 4, 5], [0.1, 0.2, 0.9, 0.3, 0.4])
    spread = 1.96 * math.sqrt((1 + 0.7**2 / 2) / 2)
    assert rank == pytest.approx(0.7)
    assert (low, high) == pytest.approx(tuple(math.tanh(math.atanh(0.7) + sign * spread) for sign in (-1, 1)))
    with pytest.raises(SpecError, match="four pairs"):
        spearman_interval([1, 2, 3], [1, 2, 3])
