"""Trials that run at once: the same results as in turn, in fewer and larger batches."""

import pytest
import torch
from small_models import make_batch, make_network

from unfool.attacks import make_attack
from unfool.attacks.engines import trials
from unfool.core.threat import ThreatModel

EPS = {"linf": 0.004, "l2": 0.06, "l1": 0.6}


class Batches(torch.nn.Module):
    """Notes the sizes of the batches that it is given."""

    def __init__(self, network):
        super().__init__()
        self.network, self.sizes = network, []

    def forward(self, images):
        self.sizes.append(len(images))
        return self.network(images)


@pytest.mark.parametrize(
    ("norm", "text"),
    [("linf", "apgd-t:targets=3"), ("l2", "apgd-t:targets=2,restarts=2,goal=best"), ("l1", "apgd-ce:restarts=3")],
)
def test_runs_of_apgd_at_once_give_what_they_give_in_turn(norm, text, monkeypatch):
    network = Batches(make_network(dtype=torch.float64))
    images, labels, ids = make_batch(network, 16, dtype=torch.float64)
    attack = make_attack(text, ThreatModel(norm, EPS[norm]), {"steps": 12})
    monkeypatch.setattr(trials, "VALUES_AT_ONCE", 1)
    in_turn = attack(network, images, labels, ids=ids)
    passes = len(network.sizes)
    network.sizes.clear()
    monkeypatch.setattr(trials, "VALUES_AT_ONCE", 10**9)
    at_once = attack(network, images, labels, ids=ids)
    assert len(network.sizes) < passes
    assert 0 < int(in_turn.fooled.sum()) < 16
    assert torch.equal(in_turn.fooled, at_once.fooled)
    assert torch.equal(in_turn.zero_gradient, at_once.zero_gradient)
    assert torch.allclose(in_turn.images, at_once.images, atol=1e-9)
    assert torch.allclose(in_turn.losses, at_once.losses, atol=1e-6)


def test_no_more_values_run_at_once_than_allowed_but_all_images_do(monkeypatch):
    network = Batches(make_network())
    images, labels, ids = make_batch(network, 6)
    attack = make_attack("apgd-t:targets=3,steps=4,goal=best", "linf:0.004")
    for most, sizes in ((0, {6}), (12, {6, 12}), (11, {6})):
        network.sizes.clear()
        monkeypatch.setattr(trials, "VALUES_AT_ONCE", most * images[0].numel())
        attack(network, images, labels, ids=ids)
        assert set(network.sizes) == sizes
