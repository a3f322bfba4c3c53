"""Records put together, against loops over their images; and what must not be put together."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_systems import make_network, make_table

from unfool.attacks import make_attack
from unfool.core.errors import DataError
from unfool.evaluation import Records, classify, craft, wilson
from unfool.evaluation.statistics.comparison import by_class, compare_records, concatenate, worst_case
from unfool.evaluation.statistics.paired import PairedCounts, mcnemar, score_interval

OURS, THEIRS, THIRD = "a" * 16, "b" * 16, "c" * 16


def make_records(correct=(True, False, True), **changes):
    count = len(correct)
    values = {
        "attack": "pgd-20",
        "threat": "linf:8/255",
        "data": "cifar10",
        "split": "test",
        "seed": 4,
        "ids": list(range(count)),
        "correct": list(correct),
        "losses": [0.25 * index for index in range(count)],
        "distances": [0.01] * count,
        "labels": [index % 2 for index in range(count)],
        "crafted_on": OURS,
        "judged_on": OURS,
        "cpu_seconds": 1.5,
        "model_images": 60,
        "settings": {"steps": 20},
        **changes,
    }
    return Records(**values)


CLEAN = {"attack": "none", "crafted_on": None, "judged_on": None}

DIFFERENT = {
    "threat": "linf:4/255",
    "data": "cifar100",
    "split": "train",
    "ids": [0, 1, 3],
    "labels": [0, 1, 1],
}
"""Another value for each field that records must share to be put together in any way."""


# The worst case


PER_ATTACK = st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 5))


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 6)).flatmap(
        lambda size: st.lists(
            st.lists(PER_ATTACK, min_size=size[1], max_size=size[1]), min_size=size[0], max_size=size[0]
        )
    )
)
def test_the_worst_case_image_by_image(attacks):
    records = [
        make_records(
            [image[0] for image in images],
            losses=[float(image[1]) for image in images],
            distances=[float(image[2]) for image in images],
        )
        for images in attacks
    ]
    found = worst_case(records)
    for place, tried in enumerate(zip(*attacks, strict=True)):
        succeeded = [distance for correct, _, distance in tried if not correct]
        highest = max(loss for _, loss, _ in tried)
        assert found.correct[place] == (not succeeded)
        assert found.losses[place] == highest
        if succeeded:
            assert found.distances[place] == min(succeeded)
        else:
            assert found.distances[place] in [distance for _, loss, distance in tried if loss == highest]
    assert found.accuracy <= min(one.accuracy for one in records)
    assert found.model_images == 60 * len(records)
    assert found.cpu_seconds == 1.5 * len(records)


def test_the_worst_case_says_what_it_is_made_of():
    first = make_records(zero_gradient=2)
    second = make_records([True, False, False], attack="square", seed=9, settings={"queries": 50}, zero_gradient=1)
    found = worst_case([first, second])
    assert (found.attack, found.protocol, found.threat, found.labels) == (
        "worst-case",
        "white-box",
        "linf:8/255",
        [0, 1, 0],
    )
    assert found.zero_gradient == 1, "no more images can be flat than stand"
    assert found.settings["attacks"] == [
        {"attack": "pgd-20", "protocol": "white-box", "seed": 4, "settings": {"steps": 20}},
        {"attack": "square", "protocol": "white-box", "seed": 9, "settings": {"queries": 50}},
    ]
    # The image that only the first attack fools is the first's, and so would be one that both fool.
    assert found.fooled_by == {"pgd-20": 1, "square": 1}
    assert worst_case([first, first]).fooled_by == {"pgd-20": 1}
    assert worst_case([first]).correct == first.correct
    # The image that both get wrong was wrong before: nobody fooled it.
    assert worst_case([first, second], right=[True, False, True]).fooled_by == {"pgd-20": 0, "square": 1}


def test_one_white_box_attack_makes_the_worst_case_white_box_and_transfer_alone_stays_transfer():
    transfer = make_records([False, True, True], crafted_on=THEIRS)
    for pair in ([make_records(), transfer], [transfer, make_records()]):
        found = worst_case(pair)
        assert (found.protocol, found.crafted_on, found.correct) == ("white-box", OURS, [False, False, True])
    both = worst_case([transfer, make_records(crafted_on=THEIRS)])
    assert (both.protocol, both.crafted_on) == ("transfer", THEIRS)
    with pytest.raises(DataError, match="crafted_on"):
        worst_case([transfer, make_records(crafted_on=THIRD)])


@pytest.mark.parametrize("name", [*DIFFERENT, "judged_on"])
def test_the_worst_case_of_different_things_is_refused(name):
    value = {**DIFFERENT, "judged_on": THEIRS}[name]
    with pytest.raises(DataError, match=f"differ in {name}") as error:
        worst_case([make_records(), make_records(**{name: value})])
    assert "\n" not in str(error.value)


def test_the_worst_case_of_nothing_or_of_clean_images_is_refused():
    with pytest.raises(DataError, match="needs records"):
        worst_case([])
    with pytest.raises(DataError, match="clean"):
        worst_case([make_records(), make_records(**CLEAN)])


def test_records_without_labels_do_not_stand_in_the_way():
    assert worst_case([make_records(labels=[]), make_records()]).labels == [0, 1, 0]
    assert worst_case([make_records(labels=[])]).labels == []


def test_the_worst_case_of_real_attacks_is_below_each():
    network, table = make_network(), make_table()
    attacks = [make_attack("fgsm", "linf:8/255"), make_attack("pgd-3", "linf:8/255", {"goal": "last"})]
    records = [classify(network, craft(network, table, attack)) for attack in attacks]
    found = worst_case(records)
    assert found.correct == [all(pair) for pair in zip(*(one.correct for one in records), strict=True)]
    assert found.protocol == "white-box"
    assert found.row("any").attack == "worst-case"


# Parts of one evaluation


def test_parts_are_joined_in_order():
    first = make_records(zero_gradient=1, fooled_by={"ce": 1, "square": 0})
    second = make_records([False, False], ids=[8, 7], labels=[5, 6], zero_gradient=2, fooled_by={"ce": 1, "square": 1})
    found = concatenate([first, second])
    assert found.ids == [0, 1, 2, 8, 7]
    assert found.correct == [True, False, True, False, False]
    assert found.losses == first.losses + second.losses
    assert found.distances == first.distances + second.distances
    assert found.labels == [0, 1, 0, 5, 6]
    assert (found.cpu_seconds, found.model_images, found.zero_gradient) == (3.0, 120, 3)
    assert found.fooled_by == {"ce": 2, "square": 1}
    assert (found.attack, found.protocol, found.settings) == ("pgd-20", "white-box", {"steps": 20})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attack", "fgsm"),
        ("threat", "linf:4/255"),
        ("split", "train"),
        ("seed", 5),
        ("judged_on", THEIRS),
        ("settings", {"steps": 21}),
    ],
)
def test_parts_of_different_evaluations_are_refused(name, value):
    with pytest.raises(DataError, match=f"differ in {name}"):
        concatenate([make_records(), make_records(ids=[5, 6, 7], **{name: value})])


def test_parts_that_share_an_image_and_no_parts_are_refused():
    with pytest.raises(DataError, match="share images"):
        concatenate([make_records(), make_records(ids=[5, 2, 7])])
    with pytest.raises(DataError, match="no records"):
        concatenate([])


# Two models


def pair(both, ahead, behind, neither):
    cells = [(True, True)] * both + [(True, False)] * ahead + [(False, True)] * behind + [(False, False)] * neither
    first, second = zip(*cells, strict=True)
    return make_records(first), make_records(second, crafted_on=THEIRS, judged_on=THEIRS)


@pytest.mark.parametrize(
    ("cells", "verdict"),
    [
        ((50, 30, 5, 15), "the first model is more accurate"),
        ((50, 5, 30, 15), "the second model is more accurate"),
        ((50, 12, 8, 30), "no difference is shown"),
        ((50, 0, 0, 50), "no difference is shown"),
        # Five to none: the score interval alone would call it a difference, the exact test does not.
        ((50, 5, 0, 45), "no difference is shown"),
    ],
)
def test_two_models_on_the_same_images(cells, verdict):
    first, second = pair(*cells)
    found = compare_records(first, second)
    counts = PairedCounts(only_first=cells[1], only_second=cells[2], n=100)
    assert (found.low, found.high) == score_interval(counts)
    assert found.difference == pytest.approx(first.accuracy - second.accuracy)
    assert (found.only_first, found.only_second, found.n) == (cells[1], cells[2], 100)
    assert found.p_value == mcnemar(cells[1], cells[2])
    assert found.verdict.startswith(verdict)
    assert f"{100 * found.difference:+.1f} points" in found.verdict


@pytest.mark.parametrize("name", [*DIFFERENT, "attack", "settings"])
def test_models_under_different_conditions_are_not_compared(name):
    value = {**DIFFERENT, "attack": "fgsm", "settings": {"steps": 40}}[name]
    with pytest.raises(DataError, match=f"differ in {name}"):
        compare_records(make_records(), make_records(judged_on=THEIRS, crafted_on=THEIRS, **{name: value}))


def test_white_box_is_not_compared_with_transfer():
    attacked, spared = make_records(), make_records(judged_on=THEIRS)
    for two in ((attacked, spared), (spared, attacked)):
        with pytest.raises(DataError, match="differ in protocol"):
            compare_records(*two)
    assert compare_records(spared, make_records(judged_on=THIRD)).n == 3
    assert compare_records(make_records(**CLEAN), make_records([True] * 3, **CLEAN)).only_second == 1


def test_settings_are_the_same_before_and_after_they_were_written():
    first, second = make_records(settings={"parts": ("a", "b")}), make_records(settings={"parts": ["a", "b"]})
    assert compare_records(first, second).difference == 0.0


# Classes


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=60))
def test_class_by_class(images):
    labels, correct = zip(*images, strict=True)
    found = by_class(make_records(correct, labels=list(labels)), ["ant", "bee", "cat", "dog", "eel"])
    expected = []
    for label, name in enumerate(["ant", "bee", "cat", "dog", "eel"]):
        of_class = [right for own, right in images if own == label]
        if of_class:
            expected.append((name, sum(of_class) / len(of_class), *wilson(sum(of_class), len(of_class)), len(of_class)))
    assert [(one.name, one.accuracy, one.low, one.high, one.n) for one in found] == expected


def test_classes_that_are_not_known_are_refused():
    with pytest.raises(DataError, match="no labels"):
        by_class(make_records(labels=[]), ["ant", "bee"])
    for labels in ([0, 2, 1], [0, -1, 1]):
        with pytest.raises(DataError, match="class names"):
            by_class(make_records(labels=labels), ["ant", "bee"])


def test_classes_of_a_judged_table():
    network, table = make_network(), make_table(30)
    found = by_class(classify(network, table), table.classes["label"])
    with torch.no_grad():
        right = network(table.batch().images).argmax(1) == table.columns["label"]
    assert sum(one.n for one in found) == 30
    assert sum(one.accuracy * one.n for one in found) == pytest.approx(int(right.sum()))
