"""Wilson's interval against the formula as he wrote it and against the coin; two models on the same images."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binom

from unfool.core.errors import SpecError
from unfool.evaluation import wilson
from unfool.evaluation.intervals import auroc_interval, mcnemar, mean_interval, paired_bootstrap, spearman_interval

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


# Two models on the same images


@example(0, 0)
@example(5, 5)
@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_exact_binomial_test(only_first, only_second):
    discordant = only_first + only_second
    expected = scipy.stats.binomtest(only_first, discordant, 0.5).pvalue if discordant else 1.0
    assert mcnemar(only_first, only_second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_by_hand():
    """Of six images on which two models disagree one gets all: 2 / 2^6; of eight one gets seven: 2 (1 + 8) / 2^8."""
    assert mcnemar(6, 0) == mcnemar(0, 6) == 2 / 64
    assert mcnemar(1, 7) == 18 / 256


def outcomes(both, ahead, behind, neither):
    """Correct or not under two models, (N,) each, from the four cells of their table."""
    return np.repeat([(1, 1), (1, 0), (0, 1), (0, 0)], [both, ahead, behind, neither], axis=0).astype(bool).T


CELLS = [(90, 30, 10, 70), (20, 1, 0, 19), (480, 8, 7, 5), (0, 25, 35, 0)]


@pytest.mark.parametrize("cells", CELLS)
def test_the_bootstrap_s_ends_are_those_of_its_exact_distribution(cells):
    """Literally: the distribution of the sum of N draws of -1, 0 or 1, by N convolutions."""
    first, second = outcomes(*cells)
    count = len(first)
    one, pmf = np.array([cells[2], cells[0] + cells[3], cells[1]]) / count, np.ones(1)
    for _ in range(count):
        pmf = np.convolve(pmf, one)
    sums = np.arange(-count, count + 1)
    spread = math.sqrt((pmf * sums**2).sum() - (pmf * sums).sum() ** 2)
    for confidence in (0.8, 0.95):
        difference, low, high = paired_bootstrap(first, second, confidence)
        assert difference == pytest.approx((cells[1] - cells[2]) / count)
        tails = [(1 - confidence) / 2, (1 + confidence) / 2]
        exact = sums[np.searchsorted(pmf.cumsum(), tails)]
        # The 10,000 resamples place a quantile within about a tenth of the spread, and sums are whole.
        assert np.array([low, high]) * count == pytest.approx(exact, abs=0.12 * spread + 1)


def test_the_bootstrap_agrees_with_scipy_s():
    first, second = outcomes(90, 30, 10, 70)
    found = scipy.stats.bootstrap(
        (first, second),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert paired_bootstrap(first, second)[1:] == pytest.approx((found.low, found.high), abs=0.01)


def test_the_bootstrap_is_a_function_of_its_seed_and_turns_with_its_arguments():
    first, second = outcomes(*CELLS[0])
    assert paired_bootstrap(first, second) == paired_bootstrap(first.tolist(), second.tolist(), seed=0)
    assert paired_bootstrap(first, second, resamples=50) != paired_bootstrap(first, second, resamples=50, seed=1)
    difference, low, high = paired_bootstrap(second, first)
    assert -difference == paired_bootstrap(first, second)[0]
    assert (-high, -low) == pytest.approx(paired_bootstrap(first, second)[1:], abs=0.01)


@pytest.mark.parametrize("count", [1, 20, 500])
def test_models_that_always_or_never_agree_get_an_interval_that_is_not_empty(count):
    every, none = np.ones(count, dtype=bool), np.zeros(count, dtype=bool)
    other = wilson(0, count)[1]
    assert paired_bootstrap(every, every) == paired_bootstrap(none, none) == (0.0, -other, other)
    assert paired_bootstrap(every, none) == (1.0, pytest.approx(1 - 2 * other), 1.0)
    assert paired_bootstrap(none, every) == (-1.0, -1.0, pytest.approx(2 * other - 1))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: mcnemar(-1, 3),
        lambda: paired_bootstrap([True], [True, False]),
        lambda: paired_bootstrap([], []),
        lambda: paired_bootstrap([[True]], [[True]]),
        lambda: paired_bootstrap([True], [False], confidence=1.0),
        lambda: paired_bootstrap([True], [False], resamples=0),
    ],
)
def test_what_cannot_be_paired_is_refused(wrong):
    with pytest.raises(SpecError):
        wrong()


def test_the_mean_s_interval_is_the_normal_one():
    values = [0.1, -0.2, 0.4, 0.3]
    mean, low, high = mean_interval(values)
    half = 1.96 * np.std(values, ddof=1) / 2
    assert (mean, low, high) == pytest.approx((0.15, 0.15 - half, 0.15 + half))
    assert mean_interval([0.5]) == (0.5, -0.5, 1.5)


def test_the_interval_of_an_auroc_is_hanley_and_mcneil_s():
    """Their example: an area of 0.893 over 51 abnormal and 58 normal images has a standard error of about 0.0326."""
    low, high = auroc_interval(0.893, 51, 58)
    assert (high - low) / 2 / 1.96 == pytest.approx(0.0326, abs=5e-4)
    assert auroc_interval(1.0, 5, 5) == (1.0, 1.0)
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
