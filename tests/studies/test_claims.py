"""Verdicts against examples computed by hand."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfool.core.errors import SpecError
from unfool.evaluation import Records
from unfool.evaluation.statistics.gains import difference, gain, gain_beyond
from unfool.evaluation.statistics.paired import PairedCounts, score_interval
from unfool.studies.framework import Above, AtLeast, AtMost, Below, Claim, Estimate, HalfOf, Results, counted
from unfool.studies.framework.claims import judge


def records(right, wrong, *, attack="pgd-7", crafted_on="a", judged_on="a", data="cifar10", start=0):
    """The first ``right`` images are classified correctly, the next ``wrong`` ones not."""
    count = right + wrong
    return Records(
        attack=attack,
        threat="linf:8/255",
        data=data,
        split="test",
        seed=0,
        ids=list(range(start, start + count)),
        correct=[True] * right + [False] * wrong,
        losses=[1.0] * count,
        distances=[0.0] * count,
        crafted_on=crafted_on,
        judged_on=judged_on,
        cpu_seconds=0.0,
        model_images=count,
    )


def test_the_gain_of_one_pair_has_tango_s_interval_and_mcnemar_s_test():
    """70 against 40 of 100, nested: 30 images gained, none lost."""
    found = gain([records(70, 30)], [records(40, 60)])
    counts = PairedCounts(only_first=30, only_second=0, n=100)
    assert (found.mean, found.seeds) == (pytest.approx(0.30), 1)
    assert (found.low, found.high) == score_interval(counts)
    assert found.p_value(0.0) == pytest.approx(2 / 2**30)
    assert found.reach == pytest.approx((-0.4, 0.6))
    assert "these two networks (one training seed)" in found.words
    assert found.words.startswith("+30.0 points [+21.")


def test_images_that_change_sides_widen_the_interval():
    """Half right each, on opposite halves: no gain, every image differs by one. Variance of the mean: 1 / 100."""
    ours, theirs = records(50, 50), records(50, 50)
    theirs = dataclasses.replace(theirs, correct=theirs.correct[::-1])
    found = gain([ours], [theirs])
    assert found.mean == 0.0
    assert found.high == pytest.approx(1.96 / 10, abs=0.01)


@pytest.mark.parametrize("seeds", [1, 3])
def test_equal_outcomes_leave_room_for_what_was_not_seen(seeds):
    """None of 100 images differs, in one seed or several: up to about 3.7 % of all could."""
    found = gain([records(40, 60)] * seeds, [records(40, 60)] * seeds)
    assert (found.mean, found.high) == (0.0, pytest.approx(0.033, abs=0.006))
    assert found.low == pytest.approx(-found.high)
    assert found.p_value(0.0) == 1.0
    many = gain([records(4000, 6000)] * seeds, [records(4000, 6000)] * seeds)
    end = 0.04 if seeds == 1 else 0.03
    assert many.words.startswith(f"+0.00 points [-{end}, +{end}]")


def test_several_seeds_add_student_s_t_of_their_spread():
    """Gains 0.2, 0.3, 0.4: mean 0.3, spread 0.1; t(2) = 4.302653. Images 40 to 59 gain thrice in three, the next ten
    twice, the next ten once, of 100; one more each way."""
    better = [records(60, 40), records(70, 30), records(80, 20)]
    found = gain(better, [records(40, 60)] * 3)
    squared = (20 + 10 * 4 / 9 + 10 / 9 + 2) / 102
    images = 1.984217 * math.sqrt((max(squared, 0.3) - 0.3**2) / 100)
    seeds = 4.302653 * 0.1 / math.sqrt(3)
    assert (found.mean, found.seeds) == (pytest.approx(0.30), 3)
    assert found.high - found.mean == pytest.approx(math.hypot(images, seeds), rel=1e-5)
    assert "over 3 training seeds" in found.words


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(SpecError, match="paired"):
        gain([], [])
    with pytest.raises(SpecError, match="paired"):
        gain([records(1, 1)], [records(1, 1)] * 2)
    with pytest.raises(SpecError, match="different images"):
        gain([records(1, 1)], [records(1, 1, start=1)])
    with pytest.raises(SpecError, match="different images"):
        gain([records(1, 1)], [records(1, 1, data="cifar100")])


def test_the_difference_of_two_gains_adds_their_errors_in_quadrature():
    found = difference(Estimate(mean=0.5, low=0.2, high=0.8, seeds=3), Estimate(mean=0.1, low=-0.3, high=0.5, seeds=2))
    assert found.mean == pytest.approx(0.4)
    assert found.low == pytest.approx(0.4 - math.hypot(0.3, 0.4), rel=1e-4)
    assert found.high == pytest.approx(0.4 + math.hypot(0.3, 0.4), rel=1e-4)
    assert found.seeds == 2


def judged(estimate, rule, **other):
    (claim,) = judge([Claim(id="help", text="it helps", evidence=lambda results: estimate, rule=rule, **other)], None)
    return claim


@pytest.mark.parametrize(
    ("rule", "mean", "p_value", "verdict"),
    [
        (Above(0.3), 0.4, 0.04, "holds"),
        (Above(0.3), 0.4, 0.06, "undecided"),
        (Above(0.3), 0.2, 0.04, "fails"),
        (Above(0.3), 0.2, 0.06, "undecided"),
        (AtLeast(0.3), 0.4, 0.04, "holds"),
        (AtLeast(0.3), 0.2, 0.04, "fails"),
        (Below(0.3), 0.2, 0.04, "holds"),
        (Below(0.3), 0.4, 0.04, "fails"),
        (AtMost(0.3), 0.2, 0.04, "holds"),
        (AtMost(0.3), 0.4, 0.04, "fails"),
        (AtMost(0.3), 0.4, 0.06, "undecided"),
        (HalfOf(0.6), 0.4, 0.04, "holds"),
        (HalfOf(0.6), 0.2, 0.04, "fails"),
        (HalfOf(-0.6), -0.4, 0.04, "holds"),
        (HalfOf(-0.6), -0.2, 0.04, "fails"),
    ],
)
def test_a_verdict_needs_the_estimate_shown_on_one_side_of_the_bound(rule, mean, p_value, verdict):
    asked = []

    class Stated:
        def p_value(self, value):
            asked.append(value)
            return p_value

    claim = judged(Estimate(mean=mean, low=-1, high=1, inference=Stated(), detail="a minus b"), rule)
    size = ", by at least half of the 60 points claimed" if isinstance(rule, HalfOf) else ""
    assert (claim.id, claim.text, claim.verdict) == ("help", f"it helps{size}", verdict)
    assert asked == [-0.3 if rule == HalfOf(-0.6) else 0.3]
    assert claim.evidence.startswith("a minus b: ")
    words = {Above: "is above", AtLeast: "reaches", Below: "is below", AtMost: "is at most", HalfOf: "reaches"}
    bound = f"half of the claimed {100 * rule.claimed:.3g}" if isinstance(rule, HalfOf) else "30"
    assert (
        f"holds if the data show that it {words[type(rule)]} {bound} points, fails if they show the opposite"
        in claim.evidence
    )


@pytest.mark.parametrize(("mean", "low"), [(0.4, 0.31), (0.4, 0.29)])
def test_an_estimate_without_a_test_is_tested_by_its_interval(mean, low):
    found = Estimate(mean=mean, low=low, high=0.9, points=False)
    assert (found.p_value(0.3) < 0.05) == (low > 0.3)
    assert judged(found, AtLeast(0.30)).verdict == ("holds" if low > 0.3 else "undecided")


def test_a_claim_whose_control_is_far_from_the_source_s_is_not_reproduced():
    class Far:
        def not_reproduced(self, rows):
            return "Far."

    results = Results(scale="small", work=None, measured=[])
    found = Estimate(mean=0.4, low=0.3, high=0.5)
    claim = Claim(id="a", text="b", evidence=lambda results: found, rule=Above(0), control=Far())
    assert judge([claim], results)[0].verdict == "not reproduced"


def test_one_difference_beyond_another_is_taken_image_by_image_where_they_share_images():
    """Both gain 30 of 100 over the same base, 20 of them on the same images: only the other ten and ten are left."""
    base = {0: records(40, 60)}
    first = {0: records(70, 30)}
    other = {0: dataclasses.replace(records(60, 40), correct=[True] * 60 + [False] * 30 + [True] * 10)}
    found = gain_beyond((first, base), (other, base))
    assert (found.mean, found.low) == (0.0, score_interval(PairedCounts(only_first=10, only_second=10, n=100))[0])
    elsewhere = {0: records(40, 60, start=500)}
    apart = gain_beyond((first, base), (elsewhere, elsewhere))
    assert apart.mean == pytest.approx(0.3)
    assert apart.high - apart.low > found.high - found.low


def test_counted_numbers_have_no_interval():
    share = counted(0.182, "128 and 704 images", "CPU seconds: 1 and 5.")
    stated = judged(share, AtMost(0.3))
    assert stated.verdict == "holds"
    assert stated.evidence == "128 and 704 images: 0.182. CPU seconds: 1 and 5. Rule: holds if it is at most 0.3."


@given(st.integers(0, 50), st.integers(0, 50))
def test_gains_are_antisymmetric_and_lie_in_their_intervals(ours, theirs):
    one, two = records(ours, 50 - ours), records(theirs, 50 - theirs)
    found, turned = gain([one], [two]), gain([two], [one])
    assert found.mean == pytest.approx(-turned.mean)
    assert found.low == pytest.approx(-turned.high)
    assert -1 <= found.low <= found.mean <= found.high <= 1
