"""The verdicts on a study's claims: Holm's correction over all of them, what is out of reach, and controls."""

import dataclasses

import pytest
from scipy.stats import norm

from unfool.core.errors import SpecError
from unfool.evaluation.results.claims import ClaimResult
from unfool.evaluation.results.rows import Row
from unfool.evaluation.statistics.control import Control
from unfool.evaluation.statistics.estimate import Estimate, counted
from unfool.evaluation.statistics.inference import StatedInference
from unfool.evaluation.statistics.rules import Above, AtLeast, AtMost, Below, HalfOf
from unfool.evaluation.statistics.verdicts import Case, judge_cases


def case(p_value, mean=0.1, rule=None, **other):
    estimate = Estimate(mean=mean, low=mean - 0.05, high=mean + 0.05, inference=StatedInference(p_value))
    return Case(id="gain", text="It gains.", estimate=estimate, rule=rule or Above(0.0), **other)


def verdicts(*cases):
    return [claim.verdict for claim in judge_cases(cases)]


def test_p_values_are_corrected_for_the_number_of_claims():
    assert verdicts(case(0.02)) == ["holds"]
    # Smallest first: 4 · 0.01, 3 · 0.015, 2 · 0.03 and what came before
    found = judge_cases([case(0.03), case(0.01), case(0.9), case(0.015, mean=-0.1)])
    assert [claim.verdict for claim in found] == ["undecided", "holds", "undecided", "fails"]
    assert [claim.corrected_p_value for claim in found] == pytest.approx([0.06, 0.04, 0.9, 0.045])
    assert found[0].p_value == 0.03
    assert found[0].sentences[-1] == "p = 0.03, after Holm's correction for 4 claims p = 0.06."
    assert found[0].figure == "+10.0 points [+5.0, +15.0]"


def test_what_is_counted_or_cannot_be_judged_is_not_among_the_tested():
    cost = Case(id="cost", text="It is cheap.", estimate=counted(0.2, "images"), rule=AtMost(0.3))
    far = case(0.03, not_reproduced="Nothing can be said of the source.")
    found = judge_cases([case(0.03), cost, far, case(0.2)])
    assert [claim.verdict for claim in found] == ["undecided", "holds", "not reproduced", "undecided"]
    assert [claim.claims_tested for claim in found] == [2, 0, 0, 2]
    assert (found[1].p_value, found[1].significance) == (None, "")
    assert found[2].evidence.endswith("Nothing can be said of the source.")


def test_a_claim_beyond_what_the_control_leaves_is_out_of_reach():
    """At 83 % no gain is above 17 points, half of 60 least of all; a loss of 30 points would be possible."""
    estimate = dataclasses.replace(case(1e-9, mean=-0.2).estimate, reach=(-0.83, 0.17))
    judged = judge_cases([Case(id="a", text="", estimate=estimate, rule=HalfOf(0.6))])
    assert judged[0].verdict == "out of reach"
    assert judged[0].evidence.endswith("Out of reach here: at most +17 points are left.")
    assert verdicts(Case(id="a", text="", estimate=estimate, rule=HalfOf(0.3))) == ["undecided"]
    for rule, verdict in ((Below(0.0), "holds"), (AtMost(-0.83), "undecided"), (AtMost(-0.9), "out of reach")):
        stated = dataclasses.replace(estimate, inference=StatedInference(1e-9))
        assert verdicts(Case(id="a", text="", estimate=stated, rule=rule)) == [verdict]
    # a control that nothing fools leaves no gain at all
    perfect = dataclasses.replace(estimate, reach=(-1.0, 0.0))
    assert verdicts(Case(id="a", text="", estimate=perfect, rule=Above(0))) == ["out of reach"]
    assert verdicts(Case(id="a", text="", estimate=perfect, rule=AtLeast(-0.05))) == ["undecided"]


def test_a_claim_that_is_judged_by_half_of_its_size_says_so():
    """A gain that is shown to be smaller than half is not shown to be none."""
    estimate = Estimate(mean=0.02, low=0.01, high=0.03)
    judged = judge_cases([Case(id="a", text="It gains", estimate=estimate, rule=HalfOf(0.0663, "under FGSM"))])
    assert (judged[0].text, judged[0].verdict) == (
        "It gains, by at least half of the 6.63 points claimed under FGSM",
        "fails",
    )
    lost = Case(id="a", text="It lowers the accuracy", estimate=estimate, rule=HalfOf(-0.16))
    assert judge_cases([lost])[0].text == "It lowers the accuracy, by at least half of the 16 points claimed"
    assert judge_cases([Case(id="a", text="It gains", estimate=estimate, rule=Above(0))])[0].text == "It gains"


def test_a_claim_and_its_p_values_come_back_from_json():
    (claim,) = judge_cases([case(1e-12)])
    again = ClaimResult.from_json(claim.to_json())
    assert again == claim
    assert again.significance == "p < 0.0001."
    old = {"text": "t", "verdict": "holds", "evidence": "e"}
    assert ClaimResult.from_json(old).to_json() == old


def row(accuracy, source=None, **other):
    values = {"model": "plain", "data": "digits", "split": "test", "attack": "none", "protocol": "clean"}
    return Row(**{**values, "accuracy": accuracy, "low": 0, "high": 1, "n": 9, "source_value": source, **other})


def test_a_control_is_near_its_source_or_nothing_is_said_of_the_source():
    control = Control({"model": "plain"}, source=0.82)
    assert control.not_reproduced([row(0.78), row(0.80, seed=1), row(0.1, model="other")]) == ""
    words = control.not_reproduced([row(0.70), row(0.72, seed=1)])
    assert words == (
        "Nothing can be said of the source: the control (plain) has 71.0 % here and 82.0 % there, more than 5 points "
        "apart."
    )
    assert Control({"model": "plain"}, source=0.82, within=0.2).not_reproduced([row(0.70)]) == ""
    # without a figure of its own it takes that of the row, and without one in the source it judges everything
    assert Control({"model": "plain"}).not_reproduced([row(0.70, source=0.9)]).endswith("points apart.")
    assert Control({"model": "plain"}).not_reproduced([row(0.70)]) == ""
    with pytest.raises(SpecError, match="name a control that was measured"):
        control.not_reproduced([row(0.7, model="other")])


@pytest.mark.parametrize(("value", "half"), [(0.0, 0.05), (0.06, 0.05), (0.25, 0.1), (0.12, 0.1)])
def test_without_a_test_of_its_own_an_estimate_is_normal_on_each_side_of_its_interval(value, half):
    estimate = Estimate(mean=0.1, low=0.05, high=0.2)
    assert estimate.p_value(value) == pytest.approx(2 * norm.sf(1.96 * abs(value - 0.1) / half), rel=1e-9)
    assert Estimate(mean=0.1, low=0.1, high=0.1).p_value(value) == 1.0


def test_a_counted_number_says_what_it_counts():
    assert counted(3, "steps", "Of ten.").evidence == "steps: 3.000. Of ten."
    assert counted(0.25, "share").evidence == "share: 0.250."
