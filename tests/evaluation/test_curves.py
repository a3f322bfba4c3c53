"""Curves: each point is the worst case of the attacks up to it, and only images that still stand are attacked."""

import itertools

import pytest
import torch
from tiny_systems import make_network, table_of

from unfool import Linf, attacks
from unfool.attacks import make_attack
from unfool.core.errors import SpecError
from unfool.core.threat import ThreatModel
from unfool.evaluation import classify, craft
from unfool.evaluation.curves import CurvePoints, curve
from unfool.evaluation.records import REMARK
from unfool.evaluation.statistics.comparison import worst_case

EPSILONS = ["0", "4/255", "8/255", "16/255", "0.2", "0.5"]


def over(epsilons, norm="linf"):
    return CurvePoints(threats=tuple(ThreatModel.parse(f"{norm}:{eps}") for eps in epsilons))


@pytest.fixture(scope="module")
def network():
    return make_network()


@pytest.fixture(scope="module")
def table(network):
    """The network's own classes as labels: all correct until attacked."""
    return table_of(network, 40)


def whole(network, table, text, threat):
    """The attack on every image, whatever is known of it."""
    return classify(network, craft(network, table, make_attack(text, threat)))


@pytest.fixture(scope="module")
def over_eps(network, table):
    return curve(network, table, "pgd-10", over(EPSILONS))


def test_accuracy_over_eps_is_the_worst_case_up_to_it(network, table, over_eps):
    full = [whole(network, table, "pgd-10", f"linf:{eps}") for eps in EPSILONS]
    stands = torch.ones(len(table), dtype=torch.bool)
    for eps, point, one in zip(EPSILONS, over_eps, full, strict=True):
        stands &= torch.tensor(one.correct)
        assert point.correct == stands.tolist()
        assert (point.attack, point.threat, point.protocol) == ("pgd-10", f"linf:{eps}", "white-box")
        assert point.ids == table.ids.tolist()
        assert point.labels == table.columns["label"].tolist()
        assert sum(point.fooled_by.values()) == point.correct.count(False)
        low, high = point.interval()
        assert low <= point.accuracy <= high
    accuracies = [point.accuracy for point in over_eps]
    assert accuracies[0] == 1.0
    assert accuracies[-1] == 0.0
    assert len(set(accuracies)) >= 4, "a curve with few steps shows little"


def test_images_that_fell_are_carried_and_those_that_stood_are_attacked_again(network, table, over_eps):
    for before, point in itertools.pairwise(over_eps):
        standing = torch.tensor(before.correct)
        for place in (~standing).nonzero().flatten().tolist():
            assert not point.correct[place]
            assert (point.losses[place], point.distances[place]) == (before.losses[place], before.distances[place])
        if standing.any():
            one = whole(network, table.subset(standing), "pgd-10", point.threat)
            places = standing.nonzero().flatten().tolist()
            assert [point.losses[place] for place in places] == pytest.approx(one.losses, abs=1e-5)
            assert [point.distances[place] for place in places] == pytest.approx(one.distances, abs=1e-6)


def test_a_point_costs_what_its_standing_images_cost(network, table, over_eps):
    for before, point in itertools.pairwise(over_eps):
        standing = torch.tensor(before.correct)
        if standing.any():
            assert point.model_images == whole(network, table.subset(standing), "pgd-10", point.threat).model_images
        else:
            assert (point.model_images, point.cpu_seconds) == (0, 0.0)
    assert not any(over_eps[-2].correct), "the last point was meant to find no image standing"
    full = sum(whole(network, table, "pgd-10", f"linf:{eps}").model_images for eps in EPSILONS)
    assert sum(point.model_images for point in over_eps) < 0.8 * full


def test_lean_bounds_what_it_left_out_as_a_share_of_all_images(network, table):
    epsilons = ["4/255", "5/255", "6/255"]
    points = curve(network, table, "lean:queries=5", over(epsilons))
    full = [whole(network, table, "lean:queries=5", f"linf:{eps}") for eps in epsilons]
    assert [point.settings[REMARK] for point in points] == [each.settings[REMARK] for each in full]
    assert "points of robust accuracy" in points[-1].settings[REMARK]
    for place, point in enumerate(points):
        assert point.correct == worst_case_so_far(full[: place + 1])
        assert sum(point.fooled_by.values()) == point.correct.count(False)
    assert len({point.accuracy for point in points}) == 3


def worst_case_so_far(records):
    return [all(correct) for correct in zip(*(each.correct for each in records), strict=True)]


def test_accuracy_over_steps(network, table):
    steps = [1, 3, 10]
    points = curve(network, table, "pgd-20:random_start=false", CurvePoints(steps=steps))
    full = [whole(network, table, f"pgd-{count}:random_start=false", "linf:8/255") for count in steps]
    for place, (count, point) in enumerate(zip(steps, points, strict=True)):
        assert (point.attack, point.settings["steps"], point.settings["random_start"]) == (f"pgd-{count}", count, False)
        assert point.correct == worst_case(full[: place + 1]).correct
    assert points[0].accuracy > points[-1].accuracy
    assert sum(point.model_images for point in points) < sum(one.model_images for one in full)


def test_an_attack_object_keeps_its_settings(network, table):
    attack = make_attack("pgd-7:random_start=false", "linf:8/255")
    by_name = curve(network, table, "pgd-7:random_start=false", CurvePoints(steps=(1, 3)))
    for each, wanted in zip(curve(network, table, attack, CurvePoints(steps=(1, 3))), by_name, strict=True):
        assert (each.attack, each.settings, each.losses) == (wanted.attack, wanted.settings, wanted.losses)
    (point,) = curve(network, table, attack, over(["0.1"]))
    assert (point.threat, point.settings["random_start"], point.settings["steps"]) == ("linf:0.1", False, 7)


def test_an_attack_that_is_made_for_one_ball_or_has_no_steps_is_refused(network, table):
    fixed = attacks.CustomAttack(Linf(0.1), label="mine", components=attacks.PGD(Linf(0.1)).parts)
    with pytest.raises(SpecError, match=r"mine is made for linf:0.1 alone"):
        curve(network, table, fixed, over(["0.2"]))
    for attack in (fixed, "fgsm"):
        with pytest.raises(SpecError, match="has no steps"):
            curve(network, table, attack, CurvePoints(steps=(1,)))


def test_options_are_passed_on_and_points_are_reported(network, table):
    reported = []
    points = curve(
        network,
        table,
        "fgsm",
        over(["0.1", "0.2"], "l2"),
        column="parity",
        seed=6,
        progress=lambda *at: reported.append(at),
    )
    assert reported == [("curve over eps", 1, 2), ("curve over eps", 2, 2)]
    assert {point.seed for point in points} == {6}
    assert points[0].labels == table.columns["parity"].tolist()
    assert [point.threat for point in points] == ["l2:0.1", "l2:0.2"]


@pytest.mark.parametrize("attack", ["pgd-2", "fmn-3"])
def test_a_curve_takes_as_many_images_at_a_time_as_it_is_told(network, table, attack):
    sizes = []
    watch = network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    try:
        curve(network, table, attack, over(["0.1", "0.2"]), batch_size=7)
    finally:
        watch.remove()
    assert max(sizes) == 7


@pytest.mark.parametrize("epsilons", [[], ["0.2", "0.1"], ["0.1", "0.1"], ["1/255", "8"], ["a"]])
def test_epsilons_that_do_not_ascend_are_refused(epsilons):
    with pytest.raises(SpecError):
        over(epsilons)


def test_a_curve_is_over_one_thing_in_one_norm():
    with pytest.raises(SpecError, match="one norm"):
        CurvePoints(threats=(ThreatModel.parse("linf:0.1"), ThreatModel.parse("l2:0.2")))
    with pytest.raises(SpecError, match="not both"):
        CurvePoints(threats=(ThreatModel.parse("linf:0.1"),), steps=(1,))


@pytest.mark.parametrize(
    ("family", "steps"), [("pgd", []), ("pgd", [5, 2]), ("pgd", [2, 2]), ("pdg", [1]), ("pgd:steps=3", [1])]
)
def test_steps_that_do_not_ascend_and_families_without_steps_are_refused(network, table, family, steps):
    with pytest.raises(SpecError):
        curve(network, table, family, CurvePoints(steps=steps))
