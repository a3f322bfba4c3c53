"""Accuracy under corruptions: the records are what the model does, and the interval honours that images recur."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_systems import make_network, make_table

from unfool.core.errors import DataError, SpecError
from unfool.core.progress import silent
from unfool.core.streams import Streams
from unfool.data.corruptions import CORRUPTIONS, corrupted
from unfool.evaluation import classify, wilson
from unfool.evaluation.corruptions import classify_corrupted, mean_corruption_accuracy
from unfool.evaluation.records import Records

NAMES = ("fog", "gaussian-noise")


@pytest.fixture(scope="module")
def network():
    return make_network()


@pytest.fixture(scope="module")
def table():
    return make_table()


def test_records_are_what_the_network_says_of_the_corrupted_images(network, table):
    found = classify_corrupted(network, table, names=NAMES, severities=(2, 5), seed=4)
    kinds = [(each.settings["corruption"], each.settings["severity"]) for each in found]
    assert kinds == [("fog", 2), ("fog", 5), ("gaussian-noise", 2), ("gaussian-noise", 5)]
    batch, labels = table.batch(), table.columns["label"]
    for each, (name, severity) in zip(found, kinds, strict=True):
        images = corrupted(batch.images, batch.ids, name, severity, Streams(4))
        with torch.no_grad():
            logits = network(images)
        assert each.correct == (logits.argmax(1) == labels).tolist()
        assert each.losses == pytest.approx(F.cross_entropy(logits, labels, reduction="none").tolist(), abs=1e-5)
        assert each.distances == pytest.approx((images - batch.images).abs().flatten(1).amax(1).tolist(), abs=1e-6)
        assert each.ids == table.ids.tolist()
        assert (each.protocol, each.attack, each.crafted_on, each.judged_on) == ("clean", "none", None, None)
        assert (each.data, each.split, each.seed, each.model_images) == ("made-up", "test", 4, len(table))


def test_rows_of_corruptions_differ_from_each_other_and_from_the_clean_row(network, table):
    found = classify_corrupted(network, table, names=NAMES, severities=(1, 2))
    rows = [each.row("net", settings=each.settings) for each in (*found, classify(network, table))]
    assert [row.settings for row in rows[:2]] == [{"corruption": "fog", "severity": s} for s in (1, 2)]
    assert len({str(sorted(row.settings.items())) for row in rows}) == 5
    assert {row.protocol for row in rows} == {"clean"}


def test_records_survive_a_file(network, table, tmp_path):
    (found,) = classify_corrupted(network, table, names=["fog"], severities=[3])
    found.save(tmp_path / "fog.json")
    assert Records.load(tmp_path / "fog.json") == found


def test_all_corruptions_at_all_severities_by_default(network):
    found = classify_corrupted(network, make_table(2, side=10))
    assert len(found) == 5 * len(tuple(CORRUPTIONS)) == len({str(each.settings) for each in found})


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_changes_nothing_and_every_batch_is_reported(network, table, batch_size):
    told = []
    found, expected = (
        classify_corrupted(
            network, table, names=["snow", "glass-blur"], severities=[5], batch_size=size, progress=report
        )
        for size, report in ((batch_size, lambda what, done, count: told.append((done, count))), (250, silent))
    )
    for one, other in zip(found, expected, strict=True):
        assert one.correct == other.correct
        assert one.losses == pytest.approx(other.losses, abs=1e-5)
    assert told == [(min(start + batch_size, 20), 20) for start in range(0, 20, batch_size)]


def test_the_model_is_judged_in_eval_mode_and_given_back(table):
    network = make_network()
    expected = classify_corrupted(network, table, names=["fog"], severities=[1])[0].correct
    network.train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    assert classify_corrupted(network, table, names=["fog"], severities=[1])[0].correct == expected
    assert network.training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_other_label_columns_can_be_judged(network, table):
    (found,) = classify_corrupted(network, table, names=["fog"], severities=[1], column="parity")
    batch = table.batch()
    with torch.no_grad():
        guessed = network(corrupted(batch.images, batch.ids, "fog", 1, Streams(0))).argmax(1)
    assert found.correct == (guessed == table.columns["parity"]).tolist()


def test_unknown_names_severities_and_columns_are_refused_before_any_work(table):
    def model(images):
        raise ZeroDivisionError

    broken = torch.nn.Module()
    broken.forward = model
    for options, words in (
        ({"names": ["fog", "snoww"]}, "did you mean 'snow'"),
        ({"severities": (1, 9)}, "unknown severity '9'"),
        ({"column": "lable"}, "did you mean 'label'"),
        ({"batch_size": 0}, "batch size 0"),
    ):
        with pytest.raises(SpecError, match=words):
            classify_corrupted(broken, table, **options)
    with pytest.raises(DataError, match="no images"):
        classify_corrupted(broken, table.subset(torch.arange(0)))


# ------------------------------------------------------- the mean and its interval


def made_records(correct, corruption, severity, ids=None, data="made-up"):
    count = len(correct)
    return Records(
        attack="none",
        threat="linf:8/255",
        data=data,
        split="test",
        seed=0,
        ids=list(range(count)) if ids is None else ids,
        correct=[bool(value) for value in correct],
        losses=[0.0] * count,
        distances=[0.0] * count,
        crafted_on=None,
        judged_on=None,
        cpu_seconds=0.0,
        model_images=count,
        settings={"corruption": corruption, "severity": severity},
    )


def test_the_mean_is_over_corruptions_of_means_over_severities():
    records = [
        made_records([1, 1, 0, 0], "fog", 1),
        made_records([1, 0, 0, 0], "fog", 2),
        made_records([1, 1, 1, 1], "snow", 1),
    ]
    mean, low, high = mean_corruption_accuracy(records)
    assert mean == pytest.approx(((0.5 + 0.25) / 2 + 1.0) / 2)
    assert low <= mean <= high


def test_the_interval_does_not_shrink_by_asking_the_same_images_again():
    correct = np.random.default_rng(1).random(400) < 0.6
    _, *alone = mean_corruption_accuracy([made_records(correct, "fog", 1)])
    _, *again = mean_corruption_accuracy([made_records(correct, "fog", severity) for severity in (1, 2, 3, 4, 5)])
    assert again == pytest.approx(alone, abs=1e-9)
    assert alone == pytest.approx(wilson(int(correct.sum()), 400), abs=0.01)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(2)
    hits = 0
    for _ in range(80):
        ease = generator.beta(1, 1, 60)  # images differ, so their outcomes under two corruptions go together
        outcomes = generator.random((2, 60)) < ease
        _, low, high = mean_corruption_accuracy(
            [made_records(row, name, 1) for row, name in zip(outcomes, NAMES, strict=True)]
        )
        hits += low <= 0.5 <= high
    assert 0.89 <= hits / 80 <= 1.0


@pytest.mark.parametrize("value", [0, 1])
def test_the_interval_is_never_empty(value):
    records = [made_records([value] * 50, name, 1) for name in (*NAMES, "snow")]
    mean, low, high = mean_corruption_accuracy(records)
    assert mean == pytest.approx(value)
    assert (low, high) == wilson(50 * value, 50)


def test_records_that_do_not_belong_together_are_refused():
    fog, snow = made_records([1, 0], "fog", 1), made_records([1, 0], "snow", 1)
    for records in ([], [fog, fog], [fog, made_records([1, 0], None, None)]):
        with pytest.raises(DataError, match="classify_corrupted"):
            mean_corruption_accuracy(records)
    for other in (made_records([1, 0], "snow", 1, ids=[5, 6]), made_records([1, 0], "snow", 1, data="other")):
        with pytest.raises(DataError, match="same images"):
            mean_corruption_accuracy([fog, other])
    assert mean_corruption_accuracy([fog, snow])[0] == 0.5
