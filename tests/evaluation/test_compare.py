"""`compare`: two records or two evaluations, tested pair by pair on the same images."""

from dataclasses import replace

import pytest
from tiny_systems import make_network, make_table

from unfool import EvaluationSettings, classify, compare, evaluate
from unfool.core.errors import DataError
from unfool.evaluation.statistics.comparison import compare_records


@pytest.fixture(scope="module")
def evaluations():
    settings = EvaluationSettings(reliability=False)
    return [
        evaluate(
            make_network(seed=seed), make_table(24), ["fgsm", "pgd-2:restarts=2"], settings=settings, name=f"{seed}"
        )
        for seed in (0, 1)
    ]


def test_records_are_compared(evaluations):
    first, second = (each.records[0] for each in evaluations)
    assert compare(first, second) == compare_records(first, second)


def test_evaluations_are_compared_attack_by_attack(evaluations):
    first, second = evaluations
    comparisons = compare(first, second)
    assert list(comparisons) == [
        "none",
        "fgsm at linf:8/255",
        "pgd-2 at linf:8/255, restarts=2",
        "worst-case at linf:8/255",
    ]
    for place, comparison in enumerate(comparisons.values()):
        assert comparison == compare_records(first.records[place], second.records[place])
        gap = first.rows[place].accuracy - second.rows[place].accuracy
        assert comparison.difference == pytest.approx(gap, abs=1e-6)


def test_lean_attacks_are_compared_whatever_each_remarks_on_its_run():
    settings = EvaluationSettings(reliability=False)
    first, second = (
        evaluate(make_network(seed=seed), make_table(24), ["lean:steps=8"], settings=settings) for seed in (0, 1)
    )
    remarks = [each.rows[1].remark for each in (first, second)]
    assert None not in remarks
    other = replace(second.records[1], settings={**second.records[1].settings, "remark": "something else"})
    assert compare(first.records[1], other) == compare(first, second)["lean at linf:8/255, steps=8"]
    with pytest.raises(DataError, match="differ in settings"):
        compare(first.records[1], replace(other, settings={**other.settings, "steps": 9}))


def test_transfer_is_compared_from_one_source_alone(evaluations):
    first, second = (replace(each.records[1], crafted_on="elsewhere") for each in evaluations)
    assert compare(first, second).n == 24
    with pytest.raises(DataError, match=r"differ in crafted_on .* crafted on the same system"):
        compare(first, replace(second, crafted_on="another"))


def test_what_cannot_be_compared_is_refused(evaluations):
    with pytest.raises(DataError, match="two Records or two Evaluations"):
        compare(evaluations[0], evaluations[0].records[0])
    with pytest.raises(DataError, match="not the same in the same order"):
        compare(evaluations[0].records[0], classify(make_network(), make_table(12)))
    attacked = [
        replace(each, rows=each.rows[at : at + 1], records=each.records[at : at + 1])
        for at, each in enumerate(evaluations)
    ]
    with pytest.raises(DataError, match="share no attack"):
        compare(*attacked)
