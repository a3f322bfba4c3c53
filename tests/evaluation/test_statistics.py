"""Wilson's interval against the formula as he wrote it, and against the coin."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from unfool.core.errors import SpecError
from unfool.evaluation import wilson

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


def test_coverage_is_about_what_it_says():
    for total in (20, 200, 1000):
        intervals = [wilson(correct, total) for correct in range(total + 1)]
        shares = [step / 200 for step in range(4, 197)]
        covered = [
            sum(binom.pmf(k, total, share) for k, (low, high) in enumerate(intervals) if low <= share <= high)
            for share in shares[::8]
        ]
        assert 0.94 < sum(covered) / len(covered) < 0.97
        assert min(covered) > 0.83


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
