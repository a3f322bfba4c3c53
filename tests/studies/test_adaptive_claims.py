"""The claim of an adaptive ladder: a defense helps if the worst case over all rungs is above the bare network."""

import pytest

from unfool import LadderSettings
from unfool.evaluation.statistics.chart_kinds import rungs
from unfool.studies.framework import Defended, Images, Laddered, NetworkSpec, Results
from unfool.studies.framework.claims import judge
from unfool.training import RunConfig
from unfool.training.recipes import short_stage

CONFIG = RunConfig(data="digits", trunk={"name": "convnet"}, stages=(short_stage(),))
NETWORK = NetworkSpec(key={"data": "digits", "model": "plain"}, config=CONFIG)
LADDER = Laddered(
    system=Defended(network=NETWORK, kind="reverse", words="reverse:contrast"),
    images=Images(data="digits"),
    attack="apgd-t:steps=20",
    settings=LadderSettings(threat="linf:8/255"),
)


def section(difference, protocol="transfer"):
    shares = {"a": 0.1, "b": 0.4, "worst": 0.2}
    every = [
        {
            "rung": rung,
            "title": f"rung {rung}",
            "protocol": protocol,
            "n": 40,
            "common": {"accuracy": x, "low": x / 2, "high": 2 * x, "n": 40},
        }
        for rung, x in shares.items()
    ]
    return {"ladder": {"difference": difference, "rungs": every}}


def judged(difference, protocol="adaptive"):
    results = Results(scale="tiny", work=None, measured=[], by_path={LADDER.path: section(difference, protocol)})
    (claim,) = judge([LADDER.claim("ladder", "The reversal makes the plain classifier")], results)
    return claim


@pytest.mark.parametrize(
    ("low", "high", "p_value", "verdict"),
    [
        (0.02, 0.18, 0.01, "holds"),
        (0.02, 0.18, 0.05, "undecided"),
        (-0.2, -0.01, 0.04, "fails"),
        (-0.2, -0.01, 0.06, "undecided"),
    ],
)
def test_its_p_value_decides_and_its_sign_says_which_way(low, high, p_value, verdict):
    change = {"difference": (low + high) / 2, "low": low, "high": high, "p_value": p_value}
    claim = judged(change)
    assert (claim.id, claim.verdict, claim.p_value) == ("ladder", verdict, p_value)
    assert claim.text.endswith("more robust than it is by itself (apgd-t, linf:8/255)")
    assert f"[{100 * low:+.1f}, {100 * high:+.1f}] on 40 images. Rule: holds if the data show" in claim.evidence
    assert "On 40 attacked images the accuracy of the bare network is 10.0 % [5.0, 20.0]" in claim.evidence
    assert (
        "the defense 40.0 % [20.0, 80.0] on the same examples and 20.0 % [10.0, 40.0] under the worst" in claim.evidence
    )


def test_without_an_adaptive_rung_nothing_is_shown():
    claim = judged(None, "transfer")
    assert claim.verdict == "undecided"
    assert "no adaptive rung was run" in claim.evidence


@pytest.mark.parametrize("protocol", ["adaptive", "unverified", "score-based"])
def test_a_model_that_wraps_no_classifier_has_nothing_to_be_compared_with(protocol):
    """Its rungs were run, whatever can be said of its identity."""
    claim = judged(None, protocol)
    assert claim.verdict == "undecided"
    assert "(the model wraps no classifier to compare it with)" in claim.evidence
    assert "no adaptive rung" not in claim.evidence


def test_the_chart_of_rungs_shows_the_images_that_all_of_them_have():
    chart = rungs("The ladder", section(None)["ladder"])
    assert chart.series["accuracy"] == [["(a)", 0.1, 0.05, 0.2], ["(b)", 0.4, 0.2, 0.8], ["worst", 0.2, 0.1, 0.4]]
    assert chart.caption == "On 40 images, with 95 % intervals. a: rung a; b: rung b; worst: rung worst."
