"""Claims as forest plots: which stand together, what their rows are called, and where their figures lie."""

import pytest
from made_up_study import result

from unfool.core.errors import DataError
from unfool.evaluation.results.claim_words import ClaimEstimate, estimate_in_words
from unfool.evaluation.results.claims import ClaimResult
from unfool.report.page import Page, render
from unfool.report.plots.forest import families

RULE = "Rule: holds if the whole 95 % interval"


def claim(text, verdict="undecided", mean=0.0, low=-0.1, high=0.1, bound=0.0, points=True):
    numbers = ClaimEstimate(mean=mean, low=low, high=high, bound=bound, points=points)
    return ClaimResult(text=text, verdict=verdict, evidence="What was seen.", estimate=numbers)


def beside(task, data, **more):
    return claim(f"{task} beside the labels ({data}, normally trained) makes the classifier more robust", **more)


def test_alike_claims_share_a_plot_and_are_named_by_what_differs():
    claims = [
        beside("Contrast", "cifar10", verdict="holds", mean=0.2, low=0.1, high=0.3),
        claim("A gate keeps its rate on fresh images", points=False, mean=0.05, low=0.04, high=0.06, bound=0.05),
        beside("Jigsaw", "cifar10"),
        beside("Rotation", "tiny", verdict="out of reach"),
    ]
    first, single = families(claims)
    assert first.title == "… beside the labels … normally trained, makes the classifier more robust"
    assert [row.name for row in first.decided] == ["Contrast · cifar10"]
    assert [row.name for row in first.others] == ["Jigsaw · cifar10", "Rotation · tiny"]
    assert first.others_words == "1 undecided, 1 out of reach"
    assert (single.title, single.unit) == ("Single claims", "")
    assert [row.name for row in single.others] == ["A gate keeps its rate on fresh images"]


def test_claims_of_two_units_share_no_axis():
    alike = [beside("Contrast", "a"), beside("Contrast", "b", points=False)]
    assert [family.unit for family in families(alike)] == ["points", ""]


def test_figures_lie_on_the_axis_beside_the_bound():
    (family,) = families([beside("A", "x", mean=0.1, low=0.0, high=0.2), beside("B", "x", mean=-0.2, low=-0.2, high=0)])
    first, second = family.others
    assert (family.ticks[0].text, family.ticks[-1].text) == ("-20", "+20")
    assert (second.low, first.bound, first.at, first.high) == (0, 50, 75, 100)
    assert first.words == "+10 [0, +20]"


@pytest.mark.parametrize(
    ("rule", "bound"),
    [
        ("holds above 1.5 points, fails below", 0.015),
        ("holds if it is more than half of the claimed 3 points, undecided otherwise", 0.015),
        ("holds if the whole 95 % interval is above 0, fails below", 0.0),
        ("holds if it is above 0.2, fails below", None),
    ],
)
def test_the_bound_of_a_claim_in_words_has_its_unit(rule, bound):
    estimate = estimate_in_words(f"+3.0 points [+1.0, +5.0] on 100 images. Rule: {rule}")
    assert (estimate.mean, estimate.low, estimate.high, estimate.points) == (0.03, 0.01, 0.05, True)
    assert estimate.bound == (bound if bound is None else pytest.approx(bound))


def test_out_of_reach_is_no_failure(study):
    claims = [{"text": "Six claims cannot hold here", "verdict": "out of reach", "evidence": "At most +17 points."}]
    page = render(Page(title="t", subtitle="", result=result({**study, "claims": claims})))
    section = page.partition('id="claims"')[2].partition("</section>")[0]
    assert "badge out-of-reach" in section
    assert "fails" not in section


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (
            f"+2.6 points [-0.4, +5.6] between two networks. {RULE} is above 0, fails if none is.",
            (0.026, -0.004, 0.056, 0),
        ),
        (
            f"1 % and 2 %: -1 points [-2, +0]. {RULE} reaches half of the claimed 16.3 points.",
            (-0.01, -0.02, 0, 0.0815),
        ),
        (f"+1 points [+0, +2]. {RULE} is above -2 points, fails if none of it is.", (0.01, 0, 0.02, -0.02)),
        (f"a: 48.6 % [47.6, 49.5] of 100. {RULE} reaches it, fails if none does.", (0.486, 0.476, 0.495, None)),
        (f"AUROC 0.493 [0.457, 0.528]. {RULE} is above 0.5, fails if none of it is.", (0.493, 0.457, 0.528, 0.5)),
        ("+7 points [+3, +11]. The worst: +1 points [-1, +3] (McNemar p = 0.2).", (0.01, -0.01, 0.03, 0)),
    ],
)
def test_figures_are_read_from_the_words_of_older_files(words, numbers):
    read = ClaimResult(text="t", verdict="holds", evidence=words).numbers
    assert read is not None
    assert (read.mean, read.low, read.high, read.bound) == pytest.approx(numbers)
    assert read.points == ("points [" in words)


def test_words_without_an_interval_give_no_figure():
    assert estimate_in_words("1,000 and 2,000 images: 0.5. Rule: holds if it is at most 0.3.") is None


def test_estimates_come_back_as_they_were_and_broken_ones_are_refused():
    one = beside("A", "x")
    assert ClaimResult.from_json(one.to_json()) == one
    with pytest.raises(DataError, match="estimate of a claim"):
        ClaimEstimate.from_json({"mean": 1})
    with pytest.raises(DataError, match="finite"):
        ClaimEstimate.from_json({"mean": float("nan"), "low": 0, "high": 1, "bound": None, "points": True})
