"""P-values of means, shares, areas and ranks against literal oracles, and how often they are wrong by chance."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import norm, spearmanr, t

from unfool.evaluation.statistics.inference import (
    AreaInference,
    LeastInference,
    MeanInference,
    RankInference,
    ShareInference,
    StatedInference,
    of_differences,
)


def test_a_single_error_gives_student_s_test():
    """Gains 0.2, 0.3, 0.4: mean 0.3, its standard error 0.1 / √3."""
    inference = MeanInference(mean=0.3, errors=((0.01 / 3, 2),))
    for value in (0.0, 0.25, 0.5):
        assert inference.p_value(value) == pytest.approx(2 * t.sf(abs(0.3 - value) / (0.1 / math.sqrt(3)), 2))
    assert inference.half() == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)
    assert inference.p_value(0.3) == 1.0


def test_two_errors_add_their_half_widths_in_quadrature_at_every_level():
    inference = MeanInference(mean=0.1, errors=((0.0004, 2), (0.0001, math.inf)))
    p = inference.p_value(0.0)
    assert math.hypot(t.isf(p / 2, 2) * 0.02, norm.isf(p / 2) * 0.01) == pytest.approx(0.1, rel=1e-9)
    assert MeanInference(mean=0.1).p_value(0.0) == 1.0


def test_the_images_error_counts_one_more_each_way_and_no_less_than_a_margin_implies():
    values = np.repeat([1.0, -1.0, 0.0], [8, 2, 90])
    inference = of_differences([values])
    variance = 12 / 102 / 100
    assert inference.p_value(0.0) == pytest.approx(2 * t.sf(0.06 / math.sqrt(variance), 99), rel=1e-6)
    # were 0.3 the true mean, three images in ten would differ at the least
    variance = (0.3 - 0.3**2) / 100
    assert inference.p_value(0.3) == pytest.approx(2 * t.sf(0.24 / math.sqrt(variance), 99), rel=1e-6)


def test_equal_seeds_and_equal_images_leave_a_width():
    same = [np.repeat([1.0, 0.0], [10, 190])] * 3
    assert of_differences(same).half() == pytest.approx(t.isf(0.025, 199) * math.sqrt((12 / 202 - 0.05**2) / 200))
    assert of_differences([np.zeros(50)] * 2).half() == pytest.approx(t.isf(0.025, 49) * math.sqrt(2 / 52 / 50))


def test_seeds_on_other_images_share_the_larger_error():
    long, short = np.repeat([1.0, 0.0], [10, 90]), np.repeat([1.0, 0.0], [5, 20])
    assert of_differences([long, short]).images == 25


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.003, 0.02])
@pytest.mark.parametrize("margin", [0.0, -0.05])
@pytest.mark.parametrize("claims", [1, 8])
def test_differences_of_several_seeds_are_wrong_by_chance_in_at_most_five_percent(seeds, spread, margin, claims):
    """Networks whose true difference varies by seed, on 300 images of which some are hard for all seeds alike; of
    several claims of a study, corrected by Holm, none may be wrong."""
    draw, studies, images = np.random.default_rng(seeds), 480 // claims, 300
    p_values = []
    for _ in range(studies * claims):
        hard = draw.random(images) < 0.5
        shift = margin + spread * draw.standard_normal(seeds)
        rates = np.clip(np.array([0.04 + np.maximum(shift, 0), 0.04 + np.maximum(-shift, 0)]), 0, 0.5)
        drawn = draw.random((seeds, images))
        # Half of the images are decided by the image, the others by the seed.
        drawn[:, hard] = draw.random(int(hard.sum()))
        ahead, behind = drawn < rates[0][:, None], (drawn >= 0.5) & (drawn < 0.5 + rates[1][:, None])
        p_values.append(of_differences(ahead.astype(float) - behind).p_value(margin))
    wrong = (np.array(p_values).reshape(studies, claims).min(1) * claims <= 0.05).mean()
    assert wrong <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / studies)


def test_a_share_has_the_exact_binomial_test():
    chances = [math.comb(20, k) * 0.3**k * 0.7 ** (20 - k) for k in range(21)]
    expected = sum(chance for chance in chances if chance <= chances[11] * (1 + 1e-7))
    assert ShareInference(count=11, n=20).p_value(0.3) == pytest.approx(expected)
    assert ShareInference(count=0, n=20).p_value(0.0) == 1.0
    assert ShareInference(count=1, n=20).p_value(0.0) == 0.0


def test_an_area_is_tested_with_the_error_of_the_area_it_is_compared_with():
    """At 0.5 the error is that of the rank-sum test, √((2n + 1) / 12n²)."""
    error = math.sqrt(81 / (12 * 40 * 40))
    assert AreaInference(area=1.0, n=40).p_value(0.5) == pytest.approx(2 * norm.sf(0.5 / error), rel=1e-6)
    assert AreaInference(area=0.6, n=40).p_value(0.6) == 1.0


def test_a_rank_correlation_is_tested_by_t_and_never_beyond_all_orders():
    x, y = [1, 2, 3, 4, 5, 6, 7], [2, 1, 4, 3, 7, 5, 6]
    found = spearmanr(x, y)
    assert RankInference(rank=found.statistic, n=7).p_value(0.0) == pytest.approx(found.pvalue)
    orders = [spearmanr(range(5), order).statistic for order in itertools.permutations(range(5))]
    extreme = sum(abs(rank) > 0.999 for rank in orders) / len(orders)
    assert RankInference(rank=1.0, n=5).p_value(0.0) == pytest.approx(extreme)


def test_all_parts_must_be_shown_above_and_one_below_counts_among_all():
    above, low = StatedInference(0.001), StatedInference(0.02)
    assert LeastInference(((0.2, above), (0.1, low))).p_value(0.0) == 0.02
    assert LeastInference(((0.2, above), (-0.1, low), (0.3, above))).p_value(0.0) == pytest.approx(0.06)
    assert StatedInference(0.001).p_value(0.1) == 1.0
