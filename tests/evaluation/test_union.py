"""Union accuracy: an image is right only if it stands under every threat model."""

import json

import numpy as np
import pytest
import torch
from tiny_systems import make_network, table_of

from unfool import L0, L2, EvaluationSettings, Linf, ThreatUnion, attacks, classify, craft, evaluate
from unfool.core.errors import DataError, SpecError
from unfool.evaluation import wilson
from unfool.evaluation.statistics.union import union_of

UNION = ThreatUnion.parse("linf:0.01,l2:0.3,l0:4")


@pytest.fixture(scope="module")
def network():
    return make_network()


@pytest.fixture(scope="module")
def table(network):
    return table_of(network, 40)


@pytest.fixture(scope="module")
def records(network, table):
    made = (attacks.PGD(Linf(0.01), steps=5), attacks.PGD(L2(0.3), steps=5), attacks.PGD(L0(4), steps=5))
    return [classify(network, craft(network, table, attack)) for attack in made]


def test_an_image_stands_only_if_it_stands_under_each(records):
    union = union_of(records, UNION)
    correct = np.array([each.correct for each in records])
    assert union.correct == correct.all(0).tolist()
    assert union.accuracy < min(each.accuracy for each in records)
    assert union.interval() == wilson(int(correct.all(0).sum()), 40)
    assert (union.attack, union.threat, union.protocol) == ("union", "linf:0.01+l2:0.3+l0:4", "white-box")
    assert union.judged_on == records[0].judged_on
    assert union.model_images == sum(each.model_images for each in records)
    assert list(union.fooled_by) == ["linf:0.01", "l2:0.3", "l0:4"]
    assert sum(union.fooled_by.values()) == union.correct.count(False)
    assert [each["threat"] for each in union.settings["attacks"]] == [each.threat for each in records]
    assert [each["attack"] for each in union.settings["attacks"]] == ["pgd-5"] * 3
    assert max(union.distances) <= 1 + 1e-5


def test_each_threat_model_needs_an_attack_on_the_same_images(network, table, records):
    with pytest.raises(DataError, match="has no records at l0:4; attack in each threat model"):
        union_of(records[:2], UNION)
    few = classify(network, craft(network, table.subset(torch.arange(5)), attacks.FGSM(L0(4))))
    with pytest.raises(DataError, match="differ in ids"):
        union_of([*records[:2], few], UNION)


def test_records_outside_the_union_are_refused(records, network, table):
    farther = classify(network, craft(network, table, attacks.PGD(Linf(0.1), steps=5)))
    with pytest.raises(DataError, match=r"records at linf:0.1 are outside the union linf:0.01\+l2:0.3\+l0:4"):
        union_of([*records, farther], UNION)


def test_stored_sets_count_in_whichever_threat_model_they_lie(network, table):
    stored = {norm: craft(network, table, "pgd-20", threat=norm) for norm in ("linf:0.01", "l0:4")}
    weak = ["fgsm:step_size=0"]
    evaluation = evaluate(network, table, weak, stored_sets=stored, settings=EvaluationSettings(union="linf:0.01,l0:4"))
    right = [np.array(each.correct) for each in evaluation.records]
    assert evaluation.records[-1].attack == "union"
    assert (right[-1] == np.array([right[3], right[4]]).all(0)).all()
    assert right[-1].sum() < right[3].sum()


def test_evaluate_ends_with_the_union_of_the_worst_cases(network, table):
    settings = EvaluationSettings(union="linf:0.01,l0:4")
    evaluation = evaluate(
        network, table, ["pgd-5", "apgd-ce:steps=5", attacks.SigmaZero(L0(1), steps=9)], settings=settings
    )
    shown = [(row.attack, row.threat) for row in evaluation.rows]
    assert shown == [
        ("none", "linf:0.01"),
        ("pgd-5", "linf:0.01"),
        ("apgd-ce", "linf:0.01"),
        ("pgd-5", "l0:4"),
        ("sigma-zero-9", "l0:4"),
        ("worst-case", "linf:0.01"),
        ("worst-case", "l0:4"),
        ("union", "linf:0.01+l0:4"),
    ]
    worst = [np.array(each.correct) for each in evaluation.records if each.attack == "worst-case"]
    assert evaluation.records[-1].correct == (worst[0] & worst[1]).tolist()
    assert evaluation.rows[-1].low <= evaluation.rows[-1].accuracy <= evaluation.rows[-1].high
    assert sum(each.accuracy * each.n for each in evaluation.classes["union"]) == sum(evaluation.records[-1].correct)
    assert json.loads(json.dumps(evaluation.to_json()))["rows"][-1]["threat"] == "linf:0.01+l0:4"
    assert set(evaluation.pictures) >= {"pgd-5 at linf:0.01", "pgd-5 at l0:4"}


def test_an_image_that_was_wrong_without_an_attack_counts_as_fooled_by_none(network, table):
    partly = table_of(network, 40)
    partly.columns["label"][:10] = (table.columns["label"][:10] + 1) % 4
    settings = EvaluationSettings(reliability=False, union="linf:0.01,l0:4")
    evaluation = evaluate(network, partly, ["pgd-5", "fgsm"], settings=settings)
    clean = np.array(evaluation.records[0].correct)
    assert (~clean).sum() == 10
    rows = {(row.attack, row.threat): row for row in evaluation.rows}
    for each in evaluation.records[1:]:
        fooled = (clean & ~np.array(each.correct)).sum()
        assert sum(each.fooled_by.values()) == fooled, each.attack
        shown = rows[each.attack, each.threat].fooled_by
        assert shown is None or sum(shown.values()) == fooled
    assert rows["union", "linf:0.01+l0:4"].fooled_by is not None


@pytest.mark.parametrize(
    ("attack", "values", "words"),
    [
        ("pgd", {"union": "linf:0.1"}, "a union of 1 threat models is none"),
        ("pgd", {"union": "linf:0.1,linf:0.2"}, "has two threat models in linf, and the larger holds the smaller"),
        ("pgd", {"union": "linf:0.1,l7:1"}, "unknown norm 'l7'"),
        ([], {"union": "linf:0.1,l2:1"}, "is of attacks; give at least one"),
        ("autoattack", {"union": "linf:0.1,l0:1"}, "autoattack has no form in l0.*attacks in l0 are"),
        (["pgd", "sigma-zero"], {"union": "linf:0.1,l2:1"}, "sigma-zero has no form in any threat model of the union"),
        ("pgd", {"union": "linf:0.1,l2:1", "threat": "l2:1"}, "give the union alone"),
        ("pgd", {"union": "linf:0.1,l2:1", "claim": ">=0.5"}, "about one threat model"),
    ],
)
def test_what_is_no_union_is_refused(network, table, attack, values, words):
    with pytest.raises(SpecError, match=words):
        evaluate(network, table, attack, settings=EvaluationSettings(**values))
