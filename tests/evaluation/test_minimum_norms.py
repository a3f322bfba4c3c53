"""Distances of the nearest adversarial examples, and the curve of accuracy over eps that one run gives."""

import itertools
import json
import math

import pytest
import torch
from tiny_systems import make_network, table_of

from unfool import EvaluationSettings, Linf, ThreatModel, attacks, evaluate, minimum_norms
from unfool.core.errors import SpecError
from unfool.evaluation import wilson
from unfool.evaluation.curves import CurvePoints, curve

ATTACK = attacks.FMN(Linf(8 / 255), steps=40)
EPSILONS = ("0", "2/255", "8/255", "0.1")


@pytest.fixture(scope="module")
def network():
    return make_network()


@pytest.fixture(scope="module")
def table(network):
    """The network's own classes as labels, but for the first image."""
    made = table_of(network, 24)
    made.columns["label"][0] = (made.columns["label"][0] + 1) % 4
    return made


@pytest.fixture(scope="module")
def distances(network, table):
    return minimum_norms(network, table, ATTACK, seed=3)


def test_each_distance_is_that_of_an_example_that_fools(network, table, distances):
    assert distances.values[0] == 0.0
    assert sum(map(math.isfinite, distances.values)) > 20
    assert 0 < distances.median < 0.2
    assert distances.nearest.protocol == "white-box"
    assert distances.nearest.model_images == distances.clean.model_images + distances.nearest.count + (24 - 1) * 40 + 1
    frame = distances.to_frame()
    assert frame["distance"].tolist() == distances.values
    assert frame["id"].tolist() == table.ids.tolist()


def test_the_curve_never_rises_and_has_the_intervals_of_its_accuracies(distances):
    shares = distances.curve()
    assert next(iter(shares)) == 0.0
    assert [share.accuracy for share in shares.values()] == sorted((s.accuracy for s in shares.values()), reverse=True)
    for eps, share in shares.items():
        right = sum(value > eps for value in distances.values)
        assert (share.accuracy, share.n) == (right / 24, 24)
        assert (share.low, share.high) == wilson(right, 24)
    finite = [value for value in distances.values if value < math.inf]
    steps = [
        (after - before) * distances.accuracy(before) for before, after in itertools.pairwise([0, *sorted(finite)])
    ]
    assert distances.area(max(finite)) == pytest.approx(sum(steps))


def test_a_curve_over_eps_is_one_run_and_agrees_with_the_attack_inside_each_ball(network, table, distances):
    points = CurvePoints(threats=tuple(ThreatModel.parse(f"linf:{eps}") for eps in EPSILONS))
    records = curve(network, table, ATTACK, points, seed=3)
    by_name = curve(network, table, "fmn-40", points, seed=3)
    assert records[0].model_images == distances.nearest.model_images
    assert [point.model_images for point in records[1:]] == [0, 0, 0]
    for point, named, threat in zip(records, by_name, points.threats, strict=True):
        assert (point.correct, point.losses, point.distances) == (named.correct, named.losses, named.distances)
        assert point.accuracy == distances.accuracy(threat.eps)
        assert (point.threat, point.attack) == (str(threat), "fmn-40")
        assert all(0 <= distance <= threat.eps + 1e-6 for distance in point.distances)
        assert sum(point.fooled_by.values()) == point.correct.count(False) - 1
    inside = ATTACK(network, table.batch().images, table.labels(), ids=table.ids)
    assert (inside.fooled | torch.tensor(records[2].correct)).all()


def test_evaluate_says_that_the_curve_is_an_upper_bound(network, table):
    settings = EvaluationSettings(curve=CurvePoints.parse("eps=2/255,8/255"), reliability=False)
    evaluation = evaluate(network, table, ATTACK, settings=settings)
    shown = [row for row in evaluation.rows if "curve" in row.settings]
    assert [row.threat for row in shown] == ["linf:2/255", "linf:8/255"]
    assert {row.settings["bound"] for row in shown} == {"upper, by one run"}
    assert shown[1].accuracy >= evaluation.rows[-1].accuracy
    assert json.dumps(evaluation.to_json())


def test_what_looks_for_no_nearest_example_or_another_norm_is_refused(network, table, distances):
    with pytest.raises(SpecError, match=r"PGD\(linf:0.1\) looks for no nearest example"):
        minimum_norms(network, table, attacks.PGD(Linf(0.1)))
    with pytest.raises(SpecError, match="these distances are in linf, not of l2:1"):
        distances.records("l2:1")
