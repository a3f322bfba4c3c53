"""Verdicts against examples computed by hand."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfool.core.errors import SpecError
from unfool.evaluation import Records
from unfool.evaluation.statistics.gains import difference, gain
from unfool.studies.contrastive_multitask import ContrastiveMultitask
from unfool.studies.contrastive_multitask.scales import AS_MEANT, AS_WRITTEN, SCALES
from unfool.studies.framework import Above, AtLeast, AtMost, Below, Claim, Estimate, HalfOf, Measured, Results, counted


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


def test_the_gain_of_one_pair_has_the_paired_error_of_its_images():
    """70 against 40 of 100, nested: 30 images gained, none lost. Variance of the mean: (0.3 - 0.09) / 100."""
    found = gain([records(70, 30)], [records(40, 60)])
    error = 1.96 * math.sqrt(0.21 / 100)
    assert (found.mean, found.seeds) == (pytest.approx(0.30), 1)
    assert (found.low, found.high) == (pytest.approx(0.30 - error, abs=0.01), pytest.approx(0.30 + error, abs=0.01))
    assert "these two networks (one training seed)" in found.words
    assert found.words.startswith("+30.0 points [+21.0, +39.0]")


def test_images_that_change_sides_widen_the_interval():
    """Half right each, on opposite halves: no gain, every image differs by one. Variance of the mean: 1 / 100."""
    ours, theirs = records(50, 50), records(50, 50)
    theirs = dataclasses.replace(theirs, correct=theirs.correct[::-1])
    found = gain([ours], [theirs])
    assert found.mean == 0.0
    assert found.high == pytest.approx(1.96 / 10, abs=0.01)


def test_equal_outcomes_of_one_pair_leave_room_for_what_was_not_seen():
    """None of 100 images differs: by Wilson, up to 3.7 % of all could."""
    found = gain([records(40, 60)], [records(40, 60)])
    assert (found.mean, found.high) == (0.0, pytest.approx(0.037, abs=0.001))
    assert found.low == -found.high
    assert Above(0.0).verdict(found) == "undecided"


def test_several_seeds_add_student_s_t_of_their_spread():
    """Gains 0.2, 0.3, 0.4: mean 0.3, spread 0.1; t(2) = 4.302653; image variances 0.16, 0.21, 0.24 over 100 each."""
    better = [records(60, 40), records(70, 30), records(80, 20)]
    found = gain(better, [records(40, 60)] * 3)
    images = 1.96 * math.sqrt((0.16 + 0.21 + 0.24) / 3 / 100)
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
    found = difference(Estimate(mean=0.5, low=0.2, high=0.6, seeds=3), Estimate(mean=0.1, low=0.0, high=0.5, seeds=2))
    assert found.mean == pytest.approx(0.4)
    assert found.low == pytest.approx(0.4 - math.hypot(0.3, 0.4))
    assert found.high == pytest.approx(0.4 + math.hypot(0.1, 0.1))
    assert found.seeds == 2


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.31, 0.5, "holds"),
        (0.30, 0.5, "holds"),
        (0.29, 0.5, "undecided"),
        (0.1, 0.30, "undecided"),
        (0.1, 0.29, "fails"),
        (-1.0, 1.0, "undecided"),
        (-0.2, -0.1, "fails"),
    ],
)
def test_verdicts_follow_from_the_interval_alone(low, high, verdict):
    found = Estimate(mean=(low + high) / 2, low=low, high=high, detail="a minus b")
    assert AtLeast(0.30).verdict(found) == HalfOf(0.60).verdict(found) == verdict
    stated = Claim(id="help", text="it helps", evidence=lambda results: found, rule=HalfOf(0.60)).judge(None)
    assert (stated.id, stated.text, stated.verdict) == ("help", "it helps", verdict)
    assert stated.evidence.startswith("a minus b: ")
    assert "half of the claimed 60 points" in stated.evidence
    turned = dataclasses.replace(found, mean=-found.mean, low=-high, high=-low)
    assert AtMost(-0.30).verdict(turned) == HalfOf(-0.60).verdict(turned) == verdict


@pytest.mark.parametrize(
    ("rule", "low", "high", "verdict"),
    [
        (Above(0.0), 0.0, 0.1, "undecided"),
        (Above(0.0), 0.01, 0.1, "holds"),
        (Above(0.0), -0.1, 0.0, "fails"),
        (AtLeast(0.0), 0.0, 0.1, "holds"),
        (AtLeast(0.0), -0.1, 0.0, "undecided"),
        (Below(0.0), -0.1, 0.0, "undecided"),
        (Below(0.0), -0.1, -0.01, "holds"),
        (Below(0.0), 0.0, 0.1, "fails"),
        (AtMost(0.7), 0.5, 0.7, "holds"),
        (AtMost(0.7), 0.7, 0.8, "undecided"),
        (AtMost(0.7), 0.71, 0.8, "fails"),
    ],
)
def test_a_rule_says_what_it_applies(rule, low, high, verdict):
    """The ends of an interval count as the sentence says: above and below exclude the bound, the others include it."""
    found = Estimate(mean=(low + high) / 2, low=low, high=high, points=False)
    assert rule.verdict(found) == verdict
    words = {Above: "is above", AtLeast: "reaches", Below: "is below", AtMost: "is at most"}[type(rule)]
    assert f"the whole 95 % interval {words} {rule.bound:g}" in rule.sentence(found)


def test_counted_numbers_have_no_interval():
    share = counted(0.182, "128 and 704 images", "CPU seconds: 1 and 5.")
    stated = Claim(id="cheap", text="it is cheap", evidence=lambda results: share, rule=AtMost(0.3)).judge(None)
    assert stated.verdict == "holds"
    assert stated.evidence == "128 and 704 images: 0.182. CPU seconds: 1 and 5. Rule: holds if it is at most 0.3."


@given(st.integers(0, 50), st.integers(0, 50))
def test_gains_are_antisymmetric_and_lie_in_their_intervals(ours, theirs):
    one, two = records(ours, 50 - ours), records(theirs, 50 - theirs)
    found, turned = gain([one], [two]), gain([two], [one])
    assert found.mean == pytest.approx(-turned.mean)
    assert found.low == pytest.approx(-turned.high)
    assert -1 <= found.low <= found.mean <= found.high <= 1


TRUNK = SCALES["small"].variants[0].words


def measured(model, right, *, attack, crafted_on, judged_on, data="cifar10", loss=None):
    examples = records(right, 200 - right, attack=attack, crafted_on=crafted_on, judged_on=judged_on, data=data)
    settings = {"trunk": TRUNK, **({"loss": loss} if loss else {})}
    return Measured(row=examples.row(model, settings=settings), records=examples)


def everything(transfer, own, data="cifar10", model="simclr multitask", loss=AS_WRITTEN):
    """Measured networks: the single task keeps nothing, the other ``transfer`` and ``own`` of 200 images."""
    loss = loss if model == "simclr multitask" else None
    found = []
    for attack in ("fgsm", "pgd-7", "pgd-20", "pgd-50"):
        found.append(measured("single-task", 0, attack=attack, crafted_on="a", judged_on="a", data=data))
        found.append(measured(model, transfer, attack=attack, crafted_on="a", judged_on="b", data=data, loss=loss))
        found.append(measured(model, own, attack=attack, crafted_on="b", judged_on="b", data=data, loss=loss))
    return found


def verdicts(rows):
    results = Results(scale="small", work=None, measured=rows)
    claims = [claim.judge(results) for claim in ContrastiveMultitask().claims(SCALES["small"])]
    return [claim for claim in claims if claim is not None]


def test_each_claim_is_judged_as_the_source_did_and_white_box():
    by_transfer, white_box = verdicts(everything(120, 2))
    assert by_transfer.verdict == "holds"
    assert by_transfer.id == "contrast-cifar10-transfer"
    assert "as the source measured it" in by_transfer.text
    assert "pgd-7, transfer" in by_transfer.evidence
    assert "+60.0 points" in by_transfer.evidence
    assert white_box.verdict == "fails"
    assert "attacked itself" in white_box.text
    assert "pgd-50, white-box" in white_box.evidence
    assert [claim.verdict for claim in verdicts(everything(60, 62))] == ["undecided", "undecided"]


def test_the_comparison_of_auxiliaries_is_judged_where_there_are_two():
    supervised = everything(50, 1, "cifar100", "supervised multitask")
    rows = everything(90, 1, "cifar100") + [item for item in supervised if item.row.model != "single-task"]
    texts = {claim.text: claim.verdict for claim in verdicts(rows) if "as the source" in claim.text}
    assert len(texts) == 3
    assert [verdict for text, verdict in texts.items() if "far better" in text] == ["holds"]
    assert [v for text, v in texts.items() if "supervised auxiliary adds about 25" in text] == ["holds"]
    assert [v for text, v in texts.items() if "contrast adds about 42" in text] == ["holds"]


def test_networks_beside_the_source_s_protocol_judge_no_claim():
    assert verdicts(everything(120, 2, loss=AS_MEANT)) == []
