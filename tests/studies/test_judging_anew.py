"""Published results under the claims of today: what has not changed stays to the last word, the rest is judged anew."""

import dataclasses

import pytest

from unfool.core.errors import DataError
from unfool.evaluation.results.rows import Row
from unfool.evaluation.results.study_result import StudyResult
from unfool.evaluation.statistics.inference import StatedInference
from unfool.evaluation.statistics.verdicts import Case, judge_cases
from unfool.studies import Study
from unfool.studies.framework import Above, AtLeast, Claim, Control, Estimate, HalfOf, Published, counted
from unfool.studies.framework.judging_anew import judged_anew

ROW = Row(model="plain", data="digits", split="test", attack="none", protocol="clean", accuracy=0.7, low=0, high=1, n=9)


class Changing(Study):
    """A study whose claims a test changes."""

    name, scales = "changing", {"small": 1}
    stated: tuple[Claim, ...] = ()

    def networks(self, scale):
        return ()

    def measurements(self, scale, networks):
        return ()

    def claims(self, scale):
        return self.stated


def estimate(mean, p_value=0.5, **other):
    return Estimate(mean=mean, low=mean - 0.05, high=mean + 0.05, inference=StatedInference(p_value), **other)


ESTIMATES = {
    "gains": estimate(0.1, 0.02),
    "loses": estimate(-0.1, 0.001, detail="ours minus theirs", pair="on the same network"),
    "none": estimate(0.01, 0.4),
    "cost": counted(0.25, "images", "Counted."),
    "reach": estimate(0.1, 1e-9, reach=(-0.8, 0.17)),
    "far": estimate(0.1, 1e-9),
}
RULES = {"cost": AtLeast(0.2), "reach": HalfOf(0.6)}
FAR = Control({"model": "plain"}, source=0.9)
CLAIMS = tuple(
    Claim(name, f"It {name}", lambda results: None, RULES.get(name, Above(0)), FAR if name == "far" else None)
    for name in ESTIMATES
)


@pytest.fixture
def published():
    """Results as the run wrote them, read from their file."""
    cases = [
        Case(id=c.id, text=c.text, estimate=ESTIMATES[c.id], rule=c.rule, not_reproduced=c.not_reproduced([ROW]))
        for c in CLAIMS
    ]
    result = StudyResult(study="changing", scale="small", rows=[ROW], claims=judge_cases(cases))
    return StudyResult.from_json(result.to_json())


def judged(published, tmp_path, *claims):
    study = Changing()
    changed = {claim.id: claim for claim in claims}
    study.stated = tuple(changed.get(claim.id, claim) for claim in CLAIMS)
    return judged_anew(study, published, tmp_path)


def change(name, **fields):
    return dataclasses.replace(next(claim for claim in CLAIMS if claim.id == name), **fields)


def verdicts(result):
    return {claim.id: claim.verdict for claim in result.claims}


def test_the_same_claims_give_the_same_results(published, tmp_path):
    assert judged(published, tmp_path) == published
    assert verdicts(published) == {
        "gains": "holds",
        "loses": "fails",
        "none": "undecided",
        "cost": "holds",
        "reach": "out of reach",
        "far": "not reproduced",
    }


def test_a_control_that_is_far_away_leaves_fewer_claims_to_correct_for(published, tmp_path):
    before = next(claim for claim in published.claims if claim.id == "gains")
    assert (before.corrected_p_value, before.claims_tested) == (0.04, 3)
    near = Control({"model": "plain"}, source=0.7)
    found = judged(published, tmp_path, change("loses", control=(near, FAR), text="It does not"))
    gains, loses = found.claims[:2]
    assert (gains.corrected_p_value, gains.claims_tested, gains.verdict) == (0.04, 2, "holds")
    assert (loses.verdict, loses.p_value, loses.text) == ("not reproduced", None, "It does not")
    assert loses.evidence.startswith("ours minus theirs: -10.0 points [-15.0, -5.0] on the same network")
    assert "70.0 % here and 90.0 % there" in loses.evidence
    (none,) = (claim for claim in found.claims if claim.id == "none")
    assert (none.verdict, none.corrected_p_value, none.claims_tested) == ("undecided", 0.4, 2)
    assert [verdicts(found)[name] for name in ("cost", "reach", "far")] == ["holds", "out of reach", "not reproduced"]
    # What all of its controls are near is judged.
    assert judged(published, tmp_path, change("loses", control=(near, near))) == published


def test_a_counted_number_is_compared_again(published, tmp_path):
    with pytest.raises(DataError, match=r"was judged at 0\.2 and is at 0\.3 now; run its scale small again"):
        judged(published, tmp_path, change("cost", rule=AtLeast(0.3)))


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (change("gains", rule=Above(0.05)), "'gains' of changing was judged at 0 and is at 0.05 now"),
        (change("reach", rule=HalfOf(0.3)), "'reach' of changing was judged at 0.3 and is at 0.15 now"),
        (change("far", control=None), "'far' of changing was not reproduced and would be tested now"),
    ],
)
def test_what_only_the_run_can_judge_is_refused(published, tmp_path, claim, words):
    with pytest.raises(DataError, match=words):
        judged(published, tmp_path, claim)


def test_a_claim_that_is_made_no_more_is_refused(published, tmp_path):
    study = Changing()
    study.stated = CLAIMS[1:]
    with pytest.raises(DataError, match="nothing is claimed as 'gains' in changing"):
        judged_anew(study, published, tmp_path)


def test_rows_get_the_sources_figures_of_today(published, tmp_path):
    study = Changing()
    study.stated = CLAIMS
    study.published = Published(names=("model",), figures={("plain",): 66})
    assert judged_anew(study, published, tmp_path).rows[0].source_value == 0.66
