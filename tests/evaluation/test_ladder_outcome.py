"""What a ladder says: the verdict follows the paired test on the same images, whatever replayed examples promise."""

import dataclasses

import pytest
from scipy.stats import binomtest

from unfool.core.errors import DataError
from unfool.evaluation import Records
from unfool.evaluation.adaptive.ladder_result import LadderResult
from unfool.evaluation.adaptive.rung import parse_rung
from unfool.evaluation.adaptive.rung_result import RungResult, restricted
from unfool.evaluation.statistics.comparison import compare_records, worst_case

NETWORK, DEFENSE = "1" * 16, "2" * 16


def records(correct, attack="pgd-5", crafted=DEFENSE, judged=DEFENSE, ids=None):
    count = len(correct)
    return Records(
        attack=attack,
        threat="linf:8/255",
        data="made-up",
        split="test",
        seed=0,
        ids=list(range(count)) if ids is None else ids,
        correct=correct,
        losses=[0.1 if right else 2.0 for right in correct],
        distances=[0.01] * count,
        crafted_on=crafted,
        judged_on=judged,
        cpu_seconds=1.0,
        model_images=count,
        labels=[number % 3 for number in range(count)],
    )


def share(right, count=100):
    return [number < right for number in range(count)]


def made(static, replayed, adaptive):
    rungs = {
        "a": records(static, judged=NETWORK, crafted=NETWORK),
        "b": records(replayed, crafted=NETWORK),
        "c": records(adaptive, "bpda"),
    }
    worst = worst_case([rungs["b"], rungs["c"]])
    alike = (dataclasses.replace(one, attack="x", settings={}) for one in (worst, rungs["a"]))
    clean = dataclasses.replace(rungs["a"], attack="none", crafted_on=None, judged_on=None)
    return LadderResult(
        model="net",
        defense="reverse",
        rungs={key: RungResult(rung=parse_rung(key), records=one) for key, one in rungs.items()},
        clean=(clean, clean),
        worst=worst,
        comparison=compare_records(*alike),
        images_per_prediction=21,
    )


@pytest.mark.parametrize(
    ("adaptive", "verdict", "claim"),
    [(60, "helps", "holds"), (53, "undecided", "undecided"), (50, "undecided", "undecided"), (35, "fails", "fails")],
)
def test_the_verdict_is_that_of_the_worst_case(adaptive, verdict, claim):
    """Replayed examples gain 30 points each time, and are not asked."""
    found = made(share(50), share(80), share(adaptive))
    assert found.verdict == verdict
    assert found.to_json()["claims"][0]["verdict"] == claim
    assert found.comparison is not None
    apart = abs(adaptive - 50)
    assert found.comparison.p_value == pytest.approx(binomtest(0, apart).pvalue if apart else 1.0)
    replayed, worst, cost = found.sentences()
    assert "80.0 %" in replayed
    assert "+30.0 points" in replayed
    assert "says nothing about an attacker who knows the defense" in replayed
    assert f"its accuracy is {adaptive}.0 %" in worst
    assert f"{adaptive - 50:+.1f} points" in worst
    assert ("the defense helps" in worst) == (verdict == "helps")
    assert "21 images" in cost


@pytest.mark.parametrize(("adaptive", "verdict"), [(55, "undecided"), (56, "helps"), (45, "undecided"), (44, "fails")])
def test_a_difference_that_the_paired_test_does_not_show_is_undecided(adaptive, verdict):
    """Of five images that all changed the same way the exact test says p = 1/16, though the interval leaves out 0."""
    result = made(share(50), share(80), share(adaptive))
    comparison = result.comparison
    assert comparison.low > 0 or comparison.high < 0
    assert comparison.p_value == 2 * 0.5 ** abs(adaptive - 50)
    assert result.verdict == verdict


@pytest.mark.parametrize("mark", ["", "?", "~"])
def test_a_model_that_wraps_no_classifier_is_not_called_unattacked(mark):
    """Also one whose identity cannot be read, and a black box."""
    own = {"crafted": DEFENSE + mark, "judged": DEFENSE + mark}
    alone = dataclasses.replace(made(share(50), share(80), share(40)), worst=records(share(40), **own), comparison=None)
    assert "it wraps no classifier to compare it with" in alone.sentences()[1]
    replayed = dataclasses.replace(alone, worst=records(share(40), crafted=NETWORK))
    assert "No adaptive rung was run" in replayed.sentences()[1]


def test_an_image_that_falls_on_any_rung_falls_in_the_worst_case():
    found = made(share(50), [number >= 40 for number in range(100)], share(60))
    assert sum(found.worst.correct) == 20
    assert found.verdict == "fails"
    assert [row.accuracy for row in found.rows()[-3:]] == [0.6, 0.6, 0.2]


def test_no_gradient_on_the_yardstick_is_a_doubt():
    found = made(share(50), share(80), share(60))
    assert found.doubts == []
    without = RungResult(rung=parse_rung("a"), records=dataclasses.replace(found.static, zero_gradient=30))
    flat = dataclasses.replace(found, rungs={**found.rungs, "a": without})
    assert len(flat.doubts) == 1
    assert "no gradient on 30 of 100 images, so the yardstick is too high" in flat.doubts[0]


def test_records_of_fewer_images():
    whole = dataclasses.replace(records(share(5, 8), ids=[3, 1, 4, 15, 9, 2, 6, 5]), zero_gradient=5)
    part = restricted(whole, [9, 3, 6])
    assert (part.ids, part.correct, part.losses) == ([9, 3, 6], [True, True, False], [0.1, 0.1, 2.0])
    assert part.labels == [1, 0, 0]
    assert part.zero_gradient == 2
    assert restricted(whole, whole.ids) is whole
    with pytest.raises(DataError, match="lack image 7"):
        restricted(whole, [3, 7])
