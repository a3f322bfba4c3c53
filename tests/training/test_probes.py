"""Probes of a frozen trunk: one pass for all stages, the features they read, and the classifiers they make."""

import copy
import math

import numpy as np
import pytest
import torch
from tiny_runs import TRUNK, make_table

from unfool.core.errors import DataError, NonFiniteError, SpecError
from unfool.core.streams import Streams
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.models.network import Network
from unfool.models.trunks import Trunk, TrunkSpec
from unfool.training import ProbeSettings, probe
from unfool.training.probing.features import Split, cached
from unfool.training.probing.heads import Heads
from unfool.training.probing.probe import _standardised

QUICK = {"epochs": 4, "batch_size": 16, "drop_every": 2}
ONE_IMAGE = 1 / 40 + 1e-9
"""Rounding may tip an image that two classes share."""
STAGES = ["stem", "block1", "block2", "block3", "last"]


def make_network(**trunk):
    """A network with statistics and heads of its own, as after training."""
    heads = {"rotation": {"kind": "linear", "outputs": 4}}
    network = Network.build(
        TrunkSpec.from_dict(trunk if "name" in trunk else {**TRUNK, **trunk}), heads, streams=Streams(4)
    )
    for number, part in enumerate(network.modules()):
        if isinstance(part, torch.nn.BatchNorm2d):
            ids = torch.arange(part.num_features)
            part.running_mean.copy_(Streams(number).normal(ids) * 0.1)
            part.running_var.copy_(Streams(number).named("variance").uniform(ids) + 0.5)
    return network


@pytest.fixture
def network():
    return make_network()


@pytest.fixture
def train():
    return make_table(64)


@pytest.fixture
def test():
    return make_table(40, seed=5)


def quick(network, train, test, **more):
    named = {name: more.pop(name) for name in ("stages", "column", "held_out", "progress") if name in more}
    return probe(network, train, test, settings=ProbeSettings(**{**QUICK, **more}), **named)


@pytest.fixture
def passed(monkeypatch):
    """How many images went through any trunk."""
    images = []
    collect = Trunk.collect

    def counted(self, batch, stages):
        images.append(len(batch))
        return collect(self, batch, stages)

    monkeypatch.setattr(Trunk, "collect", counted)
    return images


def test_all_stages_and_seeds_take_one_pass(network, train, test, passed):
    result = quick(network, train, test, seeds=(0, 1), neighbours=5)
    assert result.stages == tuple(STAGES)
    assert sum(passed) == 64 + 40 == result.model_images
    passed.clear()
    assert quick(network, train, test, stages=["block1"]).model_images == sum(passed) == 104
    assert result.cpu_seconds > 0


def test_probes_of_one_stage_are_those_of_all(network, train, test):
    every, one = quick(network, train, test), quick(network, train, test, stages=["block2"])
    theirs, ours = every.of("block2"), one.of("block2")
    for mine, other in zip(ours.head.parameters(), theirs.head.parameters(), strict=True):
        torch.testing.assert_close(mine, other)
    np.testing.assert_allclose(ours.test_curve, theirs.test_curve, atol=ONE_IMAGE)
    torch.testing.assert_close(ours.test.losses, theirs.test.losses, rtol=1e-3, atol=1e-4)


def test_the_network_stays_as_it_is(network, train, test):
    network.train()
    network.trunk.parts["block1"].eval()
    modes = [part.training for part in network.modules()]
    before, random = copy.deepcopy(network.state_dict()), torch.random.get_rng_state()
    result = quick(network, train, test)
    made = result.classifier("block1")
    with torch.no_grad():
        next(iter(made.network.parameters())).zero_()
        next(iter(made.head.parameters())).zero_()
    assert [part.training for part in network.modules()] == modes
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert not torch.equal(result.of("block1").head[0].weight, torch.zeros(4, 8))


def bins(size, side):
    """The windows of an average to ``side`` places: from floor to ceiling of equal parts."""
    return [(math.floor(n * size / side), math.ceil((n + 1) * size / side)) for n in range(side)]


def test_features_are_averages_of_the_stages_in_eval_mode():
    network = make_network(name="vgg16", width=1 / 16).train()
    table = make_table(6, side=48)
    sides = {"pool1": 10, "pool2": 5, "pool5": 1, "last": 1}
    found = cached(network, {"train": table}, list(sides), column="label", memory=1)["train"]
    assert torch.equal(found.labels, table.labels())
    network.eval()
    for stage, side in sides.items():
        whole = network.features(table.batch().images, stage).detach().double().numpy()
        if stage != "last":
            rows = [whole[:, :, low:high].mean(2) for low, high in bins(whole.shape[2], side)]
            whole = np.stack([r[:, :, low:high].mean(2) for r in rows for low, high in bins(whole.shape[3], side)], 2)
            whole = whole.reshape(len(whole), -1)
        assert found.features[stage].shape == whole.shape
        np.testing.assert_allclose(found.features[stage].numpy(), whole, rtol=1e-4, atol=1e-5)


def test_bf16_features_are_near_those_of_fp32(network, train):
    exact, coarse = (
        cached(network, {"train": train}, STAGES, column="label", precision=p, memory=1)["train"].features
        for p in ("fp32", "bf16")
    )
    for stage in STAGES:
        assert coarse[stage].dtype == torch.float32
        difference = (coarse[stage] - exact[stage]).norm() / exact[stage].norm()
        assert 0 < difference < 0.02


@pytest.mark.parametrize("standardise", [False, True])
def test_a_classifier_says_of_images_what_the_probe_said(network, train, test, standardise):
    result = quick(network, train, test, standardise=standardise, seeds=(0, 2))
    for stage in ("stem", "block3", "last"):
        made = result.classifier(stage, 2)
        logits = made(test.batch().images)
        judged = result.of(stage, 2).test
        losses = torch.nn.functional.cross_entropy(logits, test.labels(), reduction="none")
        torch.testing.assert_close(losses, judged.losses, rtol=1e-3, atol=1e-4)
        assert (logits.argmax(1) == test.labels()).tolist() == judged.correct.tolist()
        assert not made.training
        assert not any(parameter.requires_grad for parameter in made.parameters())
        assert not logits.requires_grad


def test_standardised_features_have_the_means_and_deviations_of_training(network, train, test):
    settings = ProbeSettings(**QUICK)
    splits = cached(network, {"train": train, "test": test}, ["block2"], column="label", memory=1)
    features = {name: split.features["block2"].numpy() for name, split in splits.items()}
    mean, deviation = features["train"].mean(0), features["train"].std(0)
    moved = {
        name: Split(
            table=split.table,
            features={"block2": torch.from_numpy((features[name] - mean) / deviation)},
            labels=split.labels,
        )
        for name, split in splits.items()
    }
    heads = Heads(["block2"], moved["train"], 4, settings, 0)
    heads.learn(moved["train"], moved["test"])
    probed = quick(network, train, test, stages=["block2"], standardise=True).of("block2")
    weight = heads.weights[0] / torch.from_numpy(deviation)
    torch.testing.assert_close(probed.head[0].weight.detach(), weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        probed.head[0].bias.detach(), heads.biases[0] - weight @ torch.from_numpy(mean), rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(probed.test_curve, [row[0] for row in heads.test_curve], atol=ONE_IMAGE)


def test_a_feature_that_never_changes_is_no_harm(network, train, test):
    with torch.no_grad():
        stem = network.trunk.parts["stem"][0]
        stem.weight[1:].zero_()
        stem.bias[1:] = 0.3
    result = quick(network, train, test, stages=["stem"], standardise=True)
    head = result.of("stem").head[0]
    assert torch.isfinite(head.weight).all()
    assert head.weight.abs().max() < 1e3


def test_a_feature_that_only_rounding_moves_is_not_blown_up():
    table, ones = make_table(10), torch.full((10, 1), 0.3)
    features = torch.cat([ones, torch.nextafter(ones, 2 * ones).where(table.ids[:, None] % 2 == 0, ones)], 1)
    splits = {"train": Split(table=table, features={"last": features}, labels=table.labels())}
    _, deviation = _standardised(splits, "last")
    assert deviation.tolist() == [1, 1]
    assert features.abs().max() < 1e-6


def test_held_out_images_are_judged_and_not_learned_from(network, train, test):
    rest, held_out = train.cut(20, Streams(0))
    result = quick(network, rest, test, held_out=held_out)
    assert result.of("last").scores["held_out"].count == 20
    assert result.of("last").train.count == 44
    assert result.model_images == 104
    alone = quick(network, rest, test)
    assert torch.equal(result.of("last").head[0].weight, alone.of("last").head[0].weight)
    assert list(alone.of("last").scores) == ["train", "test"]


def test_seeds_are_probes_of_their_own_and_the_same_each_time(network, train, test):
    result, again = (quick(network, train, test, stages=["block1"], seeds=seeds) for seeds in ((0, 1), (1,)))
    assert result.seeds == (0, 1)
    first, second = (result.of("block1", seed).head[0].weight for seed in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(second, again.of("block1").head[0].weight)


def test_what_can_be_read_is_read(train, test):
    """Brightness tells the class; the untrained stem carries it, linearly and to neighbours."""
    settings = {"epochs": 60, "drop_every": 15, "standardise": True, "neighbours": 5}
    result = quick(make_network(), train, test, stages=["stem"], **settings)
    found = result.of("stem")
    assert found.test_curve[-1] == found.test.accuracy > 0.9
    assert found.train.accuracy > 0.9
    assert found.train.loss < 0.5
    assert result.neighbours["stem"].double().mean() > 0.9
    assert result.neighbours["stem"].shape == (40,)


def test_the_label_column_can_be_chosen(network, train, test):
    result = quick(network, train, test, stages=["last"], column="parity")
    assert result.column == "parity"
    assert result.of("last").head.description == {"kind": "linear", "inputs": 8, "outputs": 2}


def test_published_stages_are_the_default():
    table = make_table(8, side=32)
    result = quick(make_network(name="vgg16", width=1 / 64), table, table)
    assert result.stages == ("pool1", "pool2", "pool3", "pool4", "pool5")
    inputs = [result.of(stage).head.description["inputs"] for stage in result.stages]
    assert inputs == [100, 50, 16, 32, 8]


def test_progress_is_told(network, train, test):
    told = []
    quick(network, train, test, progress=lambda *what: told.append(what))
    assert told[:2] == [("features", 64, 104), ("features", 104, 104)]
    assert told[-1] == ("heads of seed 0", 4, 4)


def without_labels(table):
    return Table(DecodedPixels(table.images), table.ids, {}, {}, label_column=None, name="bare", split="train")


def test_what_cannot_be_probed_is_one_line(network, train, test):
    other = make_table(20)
    other.classes["label"] = ["x", "y"]
    empty = train.subset(torch.empty(0, dtype=torch.int64))
    for arguments, more, error, words in (
        ((torch.nn.Linear(2, 2), train, test), {}, SpecError, "a Linear has no named stages"),
        ((network, train, test), {"stages": ["block4"]}, SpecError, "did you mean 'block"),
        ((network, train, test), {"stages": ["last", "last"]}, SpecError, "each stage once"),
        ((network, train, test), {"stages": []}, SpecError, "each stage once"),
        ((network, train, test), {"memory": 1e-6}, SpecError, "raise memory"),
        ((network, train, test), {"column": "lable"}, SpecError, "did you mean 'label'"),
        ((network, without_labels(train), test), {}, DataError, "no labels"),
        ((network, train, other), {}, DataError, "other classes"),
        ((network, empty, test), {}, DataError, "no images"),
        ((network, train, empty), {}, DataError, "no images"),
    ):
        with pytest.raises(error, match=words) as refusal:
            quick(*arguments, **more)
        assert "\n" not in str(refusal.value)
    with torch.no_grad():
        next(iter(network.trunk.parts["block2"].parameters())).fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="'block2'"):
        quick(network, train, test, stages=["stem", "block2"])


def test_a_probe_that_was_not_made_is_named(network, train, test):
    result = quick(network, train, test, stages=["last"])
    with pytest.raises(SpecError, match="allowed: last"):
        result.classifier("block1")
    with pytest.raises(SpecError, match="no probe has seed 3; allowed: 0"):
        result.of("last", 3)
