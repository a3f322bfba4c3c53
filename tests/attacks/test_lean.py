"""The lean attack's engine: its steps, its targets, its near misses."""

import pytest
import torch
from small_models import CLASSES, Linear, Wavy, make_batch, make_network, problem
from torch import nn

from unfool import Linf, attacks
from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.attacks.lean.cosine_steps import CosineSteps
from unfool.attacks.lean.nearest_classes import nearest_classes
from unfool.attacks.objective import LOSSES, LabelLoss
from unfool.attacks.proxy import ProxySettings
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel


class ManyPlanes(nn.Module):
    """Linear logits of six classes."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(Streams(3).normal(torch.arange(6), (48,)).double())

    def forward(self, images):
        return images.flatten(1) @ self.weight.T


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2), ("l1", torch.inf)])
def test_targets_are_in_the_order_of_linearised_distances(norm, dual):
    model, images = ManyPlanes(), Streams(1).uniform(torch.arange(20), (3, 4, 4)).double()
    logits = model(images).detach()
    labels = logits.argmax(1)
    objective, best_so_far = LabelLoss(model, labels), BestSoFar(images, "success")
    rows = torch.arange(20)
    chosen = nearest_classes(best_so_far, objective, images, rows, ThreatModel(norm, 1.0), 4)
    for row in range(20):
        label = int(labels[row])
        likeliest = [k for k in logits[row].argsort(descending=True).tolist() if k != label][:4]
        gaps = {k: float(logits[row, label] - logits[row, k]) for k in likeliest}
        norms = {k: float((model.weight[label] - model.weight[k]).detach().norm(dual)) for k in likeliest}
        assert chosen[row].tolist() == sorted(likeliest, key=lambda k: gaps[k] / norms[k])
    assert best_so_far.model_images == 20


def test_few_classes_give_few_targets():
    model = Linear(27)
    images = Streams(1).uniform(torch.arange(3), (3, 3, 3))
    objective = LabelLoss(model, model(images).argmax(1))
    engine = CosineSteps(threat=Linf(0.01), steps=3, targets=5)
    perturbed = engine.run(problem(objective.with_loss("difference"), images, torch.arange(3)))
    assert torch.isfinite(perturbed.losses).all()


def test_the_fall_is_the_mean_of_the_others_minus_the_label():
    logits = Streams(0).normal(torch.arange(5), (CLASSES,)).double()
    labels = torch.tensor([0, 1, 2, 3, 0])
    expected = [float((row.sum() - row[k]) / (CLASSES - 1) - row[k]) for row, k in zip(logits, labels, strict=True)]
    assert LOSSES["fall"](logits, labels, None).tolist() == pytest.approx(expected)
    masked = logits.clone()
    masked[:, 2:] = torch.finfo(masked.dtype).min
    assert torch.isfinite(LOSSES["fall"](masked, labels, None)).all()
    assert LOSSES["fall"](logits * 2 + 7, labels, None).tolist() == pytest.approx([2 * value for value in expected])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_model_is_pushed_to_the_edge_of_the_ball(norm):
    model, images = Linear(27).double(), torch.full((4, 3, 3, 3), 0.5, dtype=torch.float64)
    images = images + 0.05 * Streams(2).uniform(torch.arange(4), (3, 3, 3)).double()
    labels = model(images).argmax(1)
    threat = ThreatModel(norm, 0.01)
    perturbed = CosineSteps(threat=threat, steps=20).run(
        problem(LabelLoss(model, labels, "margin"), images, torch.arange(4))
    )
    reach = 2 * threat.eps * float(model.weight.detach().norm(1 if norm == "linf" else 2))
    clean = LOSSES["margin"](model(images).detach(), labels, None)
    standing = ~perturbed.fooled
    assert standing.any()
    assert torch.allclose(perturbed.losses[standing].double(), (clean + reach)[standing], rtol=1e-4)


def test_twenty_steps_fool_what_a_hundred_of_apgd_fool():
    model = Wavy(3 * 6 * 6)
    images = Streams(4).uniform(torch.arange(40), (3, 6, 6)).double()
    labels = model(images).argmax(1)
    lean = attacks.Lean(Linf(0.004))(model, images, labels)
    apgd = attacks.APGD(Linf(0.004), loss="dlr-targeted", targets=3)(model, images, labels)
    assert 0 < int((~lean.fooled).sum()) <= int((~apgd.fooled).sum())
    assert lean.model_images < apgd.model_images


def test_far_misses_are_left_alone_and_near_ones_are_not():
    network = make_network()
    images, labels, ids = make_batch(network, 24)
    threat = Linf(0.01)
    objective = LabelLoss(network.requires_grad_(False), labels, "difference")
    reached = CosineSteps(threat=threat, steps=10).run(problem(objective.with_loss("margin"), images, ids))
    standing = ~reached.fooled
    assert standing.any()
    given = problem(objective, images, ids, starts=reached.images)
    none = CosineSteps(threat=threat, steps=10, targets=3, near=-torch.inf).run(given)
    assert none.model_images == 2 * len(images)
    assert torch.equal(none.images, images)
    assert not none.fooled.any()
    every = CosineSteps(threat=threat, steps=10, targets=3, near=torch.inf).run(given)
    assert every.model_images > 10 * int(standing.sum())
    # Near misses alone: their verdicts are those of an attack on all.
    some = CosineSteps(threat=threat, steps=10, targets=3, near=0.2).run(given)
    assert none.model_images <= some.model_images <= every.model_images
    assert (every.fooled | ~some.fooled).all()


def test_a_proxy_drives_and_the_model_confirms():
    network = make_network()
    images, labels, _ = make_batch(network, 24)
    attack = attacks.Lean(Linf(0.08), steps=8)
    for dtype in ("fp32", "bf16"):
        attacked = attack(network, images, labels, proxy=ProxySettings(dtype=dtype))
        with torch.no_grad():
            wrong = network(attacked.images).argmax(1) != labels
        assert torch.equal(wrong & (attacked.fooled_by_part >= 0), attacked.fooled_by_part >= 0)
        assert attacked.fooled.any()


def test_a_model_without_gradients_is_reported():
    class Rounded(nn.Module):
        def forward(self, images):
            return (images.flatten(1) * 4).round()[:, :4]

    images = Streams(1).uniform(torch.arange(6), (1, 4, 4), 0.3, 0.7)
    model = Rounded()
    attacked = attacks.Lean(Linf(0.02))(model, images, model(images).argmax(1))
    assert torch.equal(attacked.zero_gradient, ~attacked.fooled)
    assert attacked.zero_gradient.any()


class Astray(nn.Module):
    """One pixel. To the right of the middle the label's logit falls, and nothing there is above it; to the left it is
    fooled at once."""

    def forward(self, images):
        moved = images.flatten(1)[:, :1] - 0.5
        label, right, left = -10 * moved, -2 + 5 * moved, -2 - 40 * moved
        return torch.cat([label, torch.where(moved < 0, left, right), -50 + 100 * moved], 1)


def test_cross_entropy_leads_on_where_lowering_the_label_s_logit_leads_astray():
    attack = attacks.Lean(Linf(0.1))
    attacked = attack(Astray(), torch.full((1, 1, 1, 1), 0.49), torch.tensor([0]))
    assert attacked.fooled.all()
    assert attack.part_names[int(attacked.fooled_by_part[0])] == "ce"
