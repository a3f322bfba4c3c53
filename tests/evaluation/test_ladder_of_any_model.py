"""The ladder of a model that declares no defense: it is looked at, and attacked through what that shows."""

import torch
import torch.nn.functional as F
from masking_layers import SteppedSparse, images, network
from tiny_systems import Changed
from torch import nn

from unfool import LadderSettings, classify, ladder
from unfool.data.table import Table

SETTINGS = LadderSettings(threat="linf:0.02", steps=10, draws=2, targets=1, queries=5)
COUNT = 20


def table_of(model):
    return Table.from_tensors(images(COUNT), {"label": model(images(COUNT)).argmax(1)})


def test_a_masked_model_is_attacked_straight_through_what_masks_it():
    model = network(SteppedSparse())
    result = ladder(model, table_of(model), "apgd-ce:steps=10", rungs="fj", settings=SETTINGS)
    assert list(result.rungs) == ["a", "b", "f", "j"]
    own, through = result.records["f"], result.records["j"]
    assert own.accuracy > through.accuracy + 0.4
    assert result.rungs["j"].protocol == "adaptive"
    assert classify(model, result.sets["j"]).correct == through.correct
    assert result.comparison is None
    assert result.verdict == "undecided"
    assert "it wraps no classifier to compare it with" in result.sentences()[1]


def darkened(inside):
    return Changed(inside, lambda images: images * 0.99)


def test_what_blocks_the_gradient_behind_a_purification_is_passed_too():
    defense = darkened(network(SteppedSparse()))
    result = ladder(defense, table_of(defense), "fgsm", rungs="cj", settings=SETTINGS)
    assert list(result.rungs) == ["a", "b", "c", "j"]
    assert result.records["c"].accuracy > result.records["j"].accuracy + 0.4
    honest = ladder(darkened(network()), table_of(defense), "fgsm", rungs="j", settings=SETTINGS)
    assert honest.absent == {"j": "no part of the model blocks its gradient"}


class Vote(nn.Module):
    def __init__(self, noise):
        super().__init__()
        self.members = nn.ModuleList([network(), network()])
        self.noise = noise

    def forward(self, x):
        votes = [member(x + self.noise * torch.randn_like(x)).argmax(1) for member in self.members]
        return torch.stack([F.one_hot(vote, 4).float() for vote in votes]).mean(0)


def test_a_wrapper_is_compared_with_the_classifier_inside_and_attacked_by_its_gradient():
    model = Vote(0.0)
    result = ladder(model, table_of(model), "fgsm", rungs="cfj", settings=SETTINGS)
    # Its own gradient leads nowhere from where the static examples stand.
    assert result.records["f"].accuracy == result.replayed.accuracy
    assert result.records["c"].accuracy <= result.records["f"].accuracy < 0.6
    assert result.worst.accuracy <= result.records["j"].accuracy < 0.6
    assert result.comparison is not None
    assert result.absent == {}


def test_a_random_model_is_attacked_with_its_draws_averaged_and_fixed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Vote(0.002)
        result = ladder(model, table_of(model), "fgsm", rungs="dk", settings=SETTINGS)
    assert list(result.rungs) == ["a", "b", "d", "k"]
    assert result.records["k"].accuracy < 0.6


def test_an_honest_model_has_nothing_to_look_through():
    model = network()
    result = ladder(model, table_of(model), "fgsm", rungs="cdfjk", settings=SETTINGS)
    assert list(result.rungs) == ["a", "b", "f"]
    assert result.absent == {
        "c": "the model wraps no classifier",
        "d": "the model is not random",
        "j": "no part of the model blocks its gradient",
        "k": "the model is not random",
    }
