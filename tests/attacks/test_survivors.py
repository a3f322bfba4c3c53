"""Images of several groups that stand are attacked together by the parts that follow, with each group's results."""

import pytest
import torch
from small_models import make_batch, make_network

from unfool.attacks import ProxySettings, ensemble, make_attack
from unfool.attacks.problem import in_turns
from unfool.core.errors import SpecError

COUNT, AT_ONCE = 24, 4


class Counts(torch.nn.Module):
    """Counts the passes through a network."""

    def __init__(self, network):
        super().__init__()
        self.network, self.passes, self.largest = network, 0, 0

    def forward(self, images):
        self.passes += 1
        self.largest = max(self.largest, len(images))
        return self.network(images)


def test_few_that_stand_in_many_groups_take_the_passes_of_one():
    network = Counts(make_network(dtype=torch.float64))
    images, labels, ids = make_batch(network.network, COUNT, dtype=torch.float64)
    attack = make_attack("autoattack:steps=12,queries=60", "linf:0.01")
    groups = [attack(network, images[rows], labels[rows], ids=ids[rows]) for rows in torch.arange(COUNT).split(AT_ONCE)]
    apart, network.passes = network.passes, 0
    together = attack(network, images, labels, ids=ids, at_once=AT_ONCE)
    assert 0 < int((~together.fooled).sum()) <= AT_ONCE
    assert network.passes < 0.6 * apart
    for name in ("images", "losses", "distances"):
        joined = torch.cat([getattr(group, name) for group in groups])
        assert torch.allclose(getattr(together, name), joined, atol=1e-6)
    for name in ("fooled", "fooled_by_part", "zero_gradient"):
        assert torch.equal(getattr(together, name), torch.cat([getattr(group, name) for group in groups]))


def test_no_pass_has_more_images_than_allowed_where_trials_do_not_run_at_once(monkeypatch):
    monkeypatch.setattr("unfool.attacks.engines.trials.VALUES_AT_ONCE", 1)
    network = Counts(make_network())
    images, labels, ids = make_batch(network.network, COUNT)
    make_attack("apgd-t:targets=2,steps=4,goal=best", "linf:0.006")(network, images, labels, ids=ids, at_once=5)
    assert network.largest == 5


@pytest.mark.parametrize("text", ["lean", "autoattack:steps=10,queries=40"])
def test_near_misses_of_a_bf16_search_are_repeated_together(text, monkeypatch):
    monkeypatch.setattr(ensemble, "NEAR", 10.0)  # every image that stands is near
    monkeypatch.setattr(ensemble, "NEAR_SCORES", 10.0)
    again, run_part = [], ensemble._run_part

    def noted(part, index, problem, state, rows, finishing=False):
        if not finishing and int(state["done"]) == len(attack.parts):
            again.append(len(rows))
        run_part(part, index, problem, state, rows, finishing)

    monkeypatch.setattr(ensemble, "_run_part", noted)
    network = make_network()
    images, labels, ids = make_batch(network, COUNT)
    attack, proxy = make_attack(text, "linf:0.006"), ProxySettings(dtype="bf16")
    whole = attack(network, images, labels, ids=ids, proxy=proxy)
    once = list(again)
    turns = attack(network, images, labels, ids=ids, proxy=proxy, at_once=AT_ONCE)
    assert once[0] > AT_ONCE  # all at once, and then in groups
    assert max(again[len(once) :]) <= AT_ONCE
    assert sum(again[len(once) :]) == sum(once)
    assert 0 < int(whole.fooled.sum()) < COUNT
    assert torch.equal(whole.fooled, turns.fooled)


def test_groups_are_as_few_as_allowed_and_about_the_same_size():
    assert [len(rows) for rows in in_turns(torch.arange(9), 4)] == [3, 3, 3]
    assert [len(rows) for rows in in_turns(torch.arange(9), None)] == [9]
    assert [len(rows) for rows in in_turns(torch.arange(0), 4)] == [0]


def test_no_image_at_once_is_refused():
    network = make_network()
    images, labels, ids = make_batch(network, 2)
    with pytest.raises(SpecError, match="at_once=0 is not allowed"):
        make_attack("fgsm", "linf:0.01")(network, images, labels, ids=ids, at_once=0)
