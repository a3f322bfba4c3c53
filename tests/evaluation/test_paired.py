"""Paired differences against literal oracles, and how often their verdicts are wrong where nothing differs."""

import dataclasses
import functools
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import norm

from unfool.core.errors import SpecError
from unfool.evaluation.records import Records
from unfool.evaluation.results.claims import FAILS, HOLDS
from unfool.evaluation.statistics.gains import of_values, unpaired
from unfool.evaluation.statistics.paired import PairedCounts, holm, mcnemar, p_value, score, score_interval
from unfool.evaluation.statistics.rules import Above
from unfool.evaluation.statistics.verdicts import Case, judge_cases


def literal_score(b: int, c: int, n: int, margin: float) -> float:
    """Tango's statistic by maximising the multinomial likelihood under the margin on a fine grid."""
    # p12 - p21 = margin; q = p21 is free.
    q = np.linspace(max(0.0, -margin), (1 - margin) / 2, 400_001)[1:-1]
    agree = np.clip(1 - 2 * q - margin, 1e-300, None)
    likelihood = b * np.log(np.clip(q + margin, 1e-300, None)) + c * np.log(q) + (n - b - c) * np.log(agree)
    best = q[likelihood.argmax()]
    variance = n * (2 * best + margin - margin**2)
    return (b - c - n * margin) / math.sqrt(variance)


@pytest.mark.parametrize(("b", "c", "n"), [(9, 3, 100), (1, 0, 40), (30, 41, 500), (5, 5, 60)])
@pytest.mark.parametrize("margin", [-0.2, -0.03, 0.01, 0.15])
def test_the_score_is_that_of_the_restricted_likelihood(b, c, n, margin):
    assert score(PairedCounts(only_first=b, only_second=c, n=n), margin) == pytest.approx(
        literal_score(b, c, n, margin), abs=2e-3
    )


def test_the_ends_of_the_interval_are_where_the_score_test_turns():
    counts = PairedCounts(only_first=1, only_second=1, n=44)
    low, high = score_interval(counts)
    assert low == pytest.approx(-high, abs=1e-9)
    for end in (low, high):
        assert abs(score(counts, end)) == pytest.approx(norm.ppf(0.975), abs=1e-6)


@given(
    n=st.integers(1, 400), first=st.floats(0, 1), second=st.floats(0, 1), confidence=st.sampled_from([0.9, 0.95, 0.99])
)
def test_the_interval_holds_the_difference_and_has_a_width(n, first, second, confidence):
    b = int(first * n)
    counts = PairedCounts(only_first=b, only_second=int(second * (n - b)), n=n)
    low, high = score_interval(counts, confidence)
    assert -1 <= low <= counts.difference <= high <= 1
    assert high > low
    mirrored = score_interval(PairedCounts(only_first=counts.only_second, only_second=b, n=n), confidence)
    assert mirrored == pytest.approx((-high, -low), abs=1e-7)


def test_equal_outcomes_have_an_interval_that_shrinks_with_the_images():
    widths = [score_interval(PairedCounts(only_first=0, only_second=0, n=n))[1] for n in (10, 100, 1000)]
    # Solving the score test by hand: z² / (n + z²).
    z = norm.ppf(0.975)
    assert widths == pytest.approx([z * z / (n + z * z) for n in (10, 100, 1000)], rel=1e-6)


def test_p_values_at_zero_are_mcnemars():
    assert p_value(PairedCounts(only_first=6, only_second=0, n=50)) == pytest.approx(2 / 64)
    assert p_value(PairedCounts(only_first=0, only_second=0, n=50)) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize("counts", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_impossible_counts_are_refused(counts):
    b, c, n = counts
    with pytest.raises(SpecError, match="differing images"):
        PairedCounts(only_first=b, only_second=c, n=n)


@example(0, 0)
@example(5, 5)
@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_exact_binomial_test(only_first, only_second):
    """Literally: the probability of all splits of the discordant images that are no likelier than the one observed."""
    discordant = only_first + only_second
    chances = [math.comb(discordant, k) / 2**discordant for k in range(discordant + 1)]
    expected = sum(chance for chance in chances if chance <= chances[only_first] * (1 + 1e-7))
    assert mcnemar(only_first, only_second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_by_hand():
    """Of six images on which two models disagree one gets all: 2 / 2^6; of eight one gets seven: 2 (1 + 8) / 2^8."""
    assert mcnemar(6, 0) == mcnemar(0, 6) == 2 / 64
    assert mcnemar(1, 7) == 18 / 256
    with pytest.raises(SpecError, match="counts of images"):
        mcnemar(-1, 3)


@pytest.mark.parametrize(("b", "c", "n"), [(9, 3, 60), (0, 6, 100), (30, 1, 80), (0, 0, 40)])
@pytest.mark.parametrize("margin", [-0.2, -0.03, 0.02, 0.3])
def test_the_p_value_of_a_margin_is_exact_under_the_restricted_estimate(b, c, n, margin):
    """Literally: the law of b - c by n convolutions, at the grid's maximum of the likelihood under the margin."""
    q = np.linspace(max(0.0, -margin), (1 - margin) / 2, 400_001)
    cells = np.clip(np.array([q + margin, q, 1 - 2 * q - margin]), 1e-300, None)
    ahead, behind, agree = cells[:, (np.log(cells) * np.array([[b], [c], [n - b - c]])).sum(0).argmax()]
    law = np.ones(1)
    for _ in range(n):
        law = np.convolve(law, [behind, agree, ahead])
    exact = min(1.0, 2 * min(law[: b - c + n + 1].sum(), law[b - c + n :].sum()))
    normal = 2 * norm.sf(abs(literal_score(b, c, n, margin)))
    counts = PairedCounts(only_first=b, only_second=c, n=n)
    assert p_value(counts, margin) == pytest.approx(max(exact, normal), rel=2e-2, abs=1e-6)


STUDIES = 2000
LIMIT = 0.05 + math.sqrt(0.05 * 0.95 / STUDIES)
"""The level, and the standard error of a share of 5 % in so many simulated studies, 0.5 points: were exactly 5 % wrong,
as many of the simulations would be above the level as below it."""


@dataclasses.dataclass(frozen=True)
class Remembered:
    """The p-value that another inference gave for a value, so that equal counts are tested once."""

    value: float
    known: float

    def p_value(self, value):
        assert value == self.value
        return self.known


def wrong_studies(images, ahead, behind, claims, margin):
    """The share of studies in which some claim holds or fails, though its true difference is just the margin.

    Estimates and verdicts are those of a study: `of_values` on differences of images, then `judge_cases`.
    """
    draw = np.random.default_rng(images + claims)
    pairs = draw.multinomial(images, [ahead, behind, 1 - ahead - behind], size=(STUDIES, claims))[..., :2]
    rule = Above(margin)

    @functools.cache
    def case(only_first, only_second):
        values = np.repeat([1.0, -1.0, 0.0], [only_first, only_second, images - only_first - only_second])
        estimate = of_values([values])
        return Case(
            id="difference",
            text="It is above the margin",
            estimate=dataclasses.replace(estimate, inference=Remembered(margin, rule.p_value(estimate))),
            rule=rule,
        )

    studies = ([case(*counts) for counts in study] for study in pairs.tolist())
    wrong = [any(claim.verdict in (HOLDS, FAILS) for claim in judge_cases(study)) for study in studies]
    return sum(wrong) / STUDIES


@pytest.mark.parametrize("images", [100, 1000, 10_000])
@pytest.mark.parametrize("discordant", [0.005, 0.02, 0.1])
@pytest.mark.parametrize("claims", [1, 12])
def test_with_no_true_difference_verdicts_are_wrong_in_at_most_five_percent_of_studies(images, discordant, claims):
    """Holds and fails together, over studies of some claims with Holm's correction."""
    assert wrong_studies(images, discordant / 2, discordant / 2, claims, 0.0) <= LIMIT


@pytest.mark.parametrize("margin", [-0.02, 0.05, 0.3])
@pytest.mark.parametrize(("images", "discordant"), [(100, 0.005), (100, 0.1), (1000, 0.005), (1000, 0.02)])
@pytest.mark.parametrize("claims", [1, 12])
def test_nor_are_they_where_the_true_difference_is_the_margin(images, discordant, claims, margin):
    ahead, behind = max(margin, 0) + discordant / 2, max(-margin, 0) + discordant / 2
    assert wrong_studies(images, ahead, behind, claims, margin) <= LIMIT


@pytest.mark.parametrize("values", [[1, 1, 0, -1, 0, 0, 1], [0, 0, -1], [1, 1], [0, 0, 0, 0]])
def test_differences_of_one_seed_are_counted_pair_by_pair(values):
    estimate = of_values([np.array(values, dtype=float)])
    counts = PairedCounts(only_first=values.count(1), only_second=values.count(-1), n=len(values))
    assert estimate.mean == pytest.approx(sum(values) / len(values))
    assert (estimate.low, estimate.high) == score_interval(counts)
    assert estimate.p_value(0.0) == pytest.approx(mcnemar(values.count(1), values.count(-1)))


def clean_records(right, count, seed):
    return Records(
        attack="none",
        threat="linf:0.1",
        data=f"made-up {count}",
        split="test",
        seed=seed,
        ids=list(range(count)),
        correct=[number < right for number in range(count)],
        losses=[0.0] * count,
        distances=[0.0] * count,
        crafted_on=None,
        judged_on=None,
        cpu_seconds=0.0,
        model_images=count,
    )


def test_one_network_each_on_images_of_its_own_are_compared_by_shares():
    ours, theirs = [clean_records(60, 80, 0)], [clean_records(20, 40, 0)]
    estimate = unpaired(ours, theirs)
    shares = [((60 + 1) / 82, 82), ((20 + 1) / 42, 42)]
    error = math.sqrt(sum(share * (1 - share) / count for share, count in shares))
    assert estimate.mean == pytest.approx(0.25)
    assert estimate.high - estimate.mean == pytest.approx(norm.ppf(0.975) * error, rel=1e-3)
