"""FAB and Square in an ensemble leave images early that they would not fool, and fool all that they would."""

import dataclasses
import math

import pytest
import torch
from small_models import make_batch, make_network, problem
from torch import nn

from unfool.attacks import make_attack
from unfool.attacks.engines import fab, square
from unfool.attacks.engines.fab import FastAdaptiveBoundary
from unfool.attacks.engines.square import SquareSearch
from unfool.attacks.objective import LabelLoss
from unfool.core.threat import ThreatModel

EPS = {"linf": 0.004, "l2": 0.06, "l1": 0.6}
NETWORK = make_network()


@pytest.fixture(autouse=True)
def looks(monkeypatch):
    """Looks often enough for short searches."""
    monkeypatch.setattr(square, "LOOK_EVERY", 20)
    monkeypatch.setattr(fab, "LOOK_EVERY", 4)


def margins(model, images, labels):
    with torch.no_grad():
        return LabelLoss(model, labels, "margin")(images, torch.arange(len(images))).losses


@pytest.mark.parametrize("norm", EPS)
def test_square_leaves_images_whose_search_would_end_below_what_gradients_reached(norm):
    images, labels, ids = make_batch(NETWORK, 24)
    threat, margin = ThreatModel(norm, EPS[norm] / 2), LabelLoss(NETWORK, labels, "margin")
    whole = SquareSearch(threat=threat, steps=240).run(problem(margin, images, ids))
    gradients = make_attack("apgd-t:steps=40", threat)(NETWORK, images, labels)
    reached = margins(NETWORK, gradients.images, labels).masked_fill(gradients.fooled, -math.inf)
    engine = SquareSearch(threat=threat, steps=240, drop_hopeless=True)
    early = engine.run(problem(margin, images, ids, reached=reached))
    assert 2 < int(whole.fooled.sum()) < 20
    assert torch.equal(early.fooled, whole.fooled)
    assert early.model_images < 0.8 * whole.model_images
    # What is left early comes back at its best point so far.
    assert torch.allclose(margins(NETWORK, early.images, labels), early.losses, atol=1e-5)
    assert (early.losses <= whole.losses + 1e-4).all()


@pytest.mark.parametrize("reached", [None, torch.full((6,), -math.inf)])
def test_square_takes_all_its_steps_where_no_gradient_attack_came_before(reached):
    images, labels, ids = make_batch(NETWORK, 6)
    margin, threat = LabelLoss(NETWORK, labels, "margin"), ThreatModel("linf", 0.001)
    whole, searched = (
        SquareSearch(threat=threat, steps=60, drop_hopeless=drop).run(problem(margin, images, ids, reached=reached))
        for drop in (False, True)
    )
    assert not whole.fooled.all()
    assert torch.equal(searched.images, whole.images)


@pytest.mark.parametrize(("norm", "targets"), [("linf", 0), ("l2", 3), ("l1", 2)])
def test_fab_leaves_trials_that_would_end_outside_the_ball(norm, targets):
    images, labels, ids = make_batch(NETWORK, 24)
    whole, early = (
        FastAdaptiveBoundary(threat=ThreatModel(norm, EPS[norm]), steps=40, targets=targets, drop_hopeless=drop).run(
            problem(LabelLoss(NETWORK, labels, "difference" if targets else "margin"), images, ids)
        )
        for drop in (False, True)
    )
    assert 2 < int(whole.fooled.sum()) < 22
    assert torch.equal(early.fooled, whole.fooled)
    assert early.model_images < 0.8 * whole.model_images


class Rounded(nn.Module):
    """Rounds the images first, which leaves no gradient."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model((images * 256).round() / 256)


class Astray(Rounded):
    """Its gradient is another function's."""

    def forward(self, images):
        other = (30 * images.flatten(1)).sin().unfold(1, 108, 108).sum(2)
        return self.model(images.detach()) + other - other.detach()


@pytest.mark.parametrize("mask", [Rounded, Astray])
def test_where_gradients_mislead_no_image_is_left_early(mask):
    model = mask(NETWORK)
    images, labels, ids = make_batch(NETWORK, 16)
    attack = make_attack("autoattack:steps=8,queries=160", "linf:0.004")
    early, whole = (
        dataclasses.replace(attack, drop_hopeless=drop)(model, images, labels, ids=ids) for drop in (True, False)
    )
    won = whole.fooled_by_part == attack.part_names.index("square")
    assert int(won.sum()) > 2
    assert not whole.fooled.all()
    assert torch.equal(early.fooled_by_part, whole.fooled_by_part)


def test_the_ensemble_gives_the_same_verdicts_in_fewer_passes():
    images, labels, ids = make_batch(NETWORK, 16)
    attack = make_attack("autoattack:steps=28,queries=160", "linf:0.0015")
    early, whole = (
        dataclasses.replace(attack, drop_hopeless=drop)(NETWORK, images, labels, ids=ids) for drop in (True, False)
    )
    assert 2 < int(whole.fooled.sum()) < 14
    assert torch.equal(early.fooled_by_part, whole.fooled_by_part)
    assert early.model_images < 0.9 * whole.model_images
