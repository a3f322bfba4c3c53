"""Probes among the results: records, rows, curves, and their classifiers under attack."""

import pytest
import torch

from unfool.attacks import ProxySettings, make_attack
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.data.catalog import open_table
from unfool.evaluation import classify, craft, identity
from unfool.evaluation.intervals import wilson
from unfool.evaluation.pretext.probe_records import probe_records, probe_results
from unfool.evaluation.records import WHITE_BOX
from unfool.evaluation.results.check import check_results
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.training import ProbeSettings, probe


@pytest.fixture(scope="module")
def tables():
    train = open_table("digits", "train").sample(120, Streams(0))
    rest, held_out = train.cut(40, Streams(0))
    return {"train": rest, "test": open_table("digits", "test").sample(50, Streams(0)), "held_out": held_out}


@pytest.fixture(scope="module")
def network():
    return Network.build(TrunkSpec(name="convnet", widths=(6, 8, 8)), {})


@pytest.fixture(scope="module")
def result(network, tables):
    settings = ProbeSettings(epochs=3, batch_size=16, seeds=(0, 4), neighbours=3, standardise=True)
    return probe(network, **tables, stages=["block1", "last"], settings=settings)


@pytest.mark.parametrize("split", ["train", "test", "held_out"])
def test_records_are_those_of_judging_the_classifier(result, tables, split):
    records = probe_records(result, "block1", 4, split=split, threat="linf:0.01")
    judged = classify(result.classifier("block1", 4), tables[split], threat="linf:0.01")
    assert (records.attack, records.protocol, records.threat) == ("none", "clean", "linf:0.01")
    assert (records.ids, records.labels, records.data) == (judged.ids, judged.labels, judged.data)
    assert records.losses == pytest.approx(judged.losses, rel=1e-3, abs=1e-4)
    assert records.correct == judged.correct
    assert (records.split, records.seed) == (split, 4)
    assert records.model_images == result.model_images == 170
    assert records.row("m").n == len(tables[split])


def test_a_results_file_tells_every_probe_once(result):
    found = probe_results(result, "mine").to_json()
    check_results(found)
    told = [(row["settings"]["stage"], row["settings"]["probe"], row["seed"], row["split"]) for row in found["rows"]]
    splits = ("train", "test", "held_out")
    linear = [(s, "linear", seed, split) for s in ("block1", "last") for seed in (0, 4) for split in splits]
    assert sorted(told) == sorted(linear + [(s, "3 nearest neighbours", 0, "test") for s in ("block1", "last")])
    right = int(result.neighbours["last"].sum())
    (row,) = [row for row in found["rows"] if row["settings"] == {"stage": "last", "probe": "3 nearest neighbours"}]
    assert [row[key] for key in ("accuracy", "low", "high")] == pytest.approx(
        [right / 50, *wilson(right, 50)], abs=1e-6
    )
    train, test = found["charts"]
    assert [one["name"] for one in test["series"]] == ["block1", "last"]
    assert [point[1] for point in test["series"][1]["points"]] == pytest.approx(result.of("last").test_curve, abs=1e-6)
    assert [point[1] for point in train["series"][0]["points"]] == pytest.approx(
        result.of("block1").train_curve, abs=1e-6
    )


def test_a_split_that_was_not_judged_is_named(network, tables):
    alone = probe(network, tables["train"], tables["test"], stages=["last"], settings=ProbeSettings(epochs=1))
    with pytest.raises(SpecError, match=r"'held_out'.*allowed: test, train"):
        probe_records(alone, "last", split="held_out")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_classifier_of_a_stage_is_attacked_as_any_other(result, tables, precision):
    made = result.classifier("block1")
    before = identity(made)
    attack = make_attack("pgd-3", "linf:0.1")
    examples = craft(made, tables["test"], attack, proxy=ProxySettings(dtype=precision))
    attacked, clean = classify(made, examples), classify(made, tables["test"])
    assert attacked.protocol == WHITE_BOX
    assert identity(made) == before == attacked.judged_on
    assert attacked.accuracy < clean.accuracy
    assert sum(attacked.losses) > sum(clean.losses)


def test_stages_and_seeds_are_different_systems(result, network):
    made = [result.classifier(stage, seed) for stage in ("block1", "last") for seed in (0, 4)]
    assert len({identity(one) for one in made}) == 4
    assert identity(result.classifier("last", 4)) == identity(made[3])
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert made[0](images).shape == (3, 10)
