"""TRADES and MART as stages: what is crafted and learnt, against a literal loop over a copy of the network."""

import copy

import pytest
import torch
import torch.nn.functional as F
from test_stage import make_stage
from tiny_runs import contrast, labels, make_table, stage

from unfool.core.batch import Batch
from unfool.core.errors import SpecError
from unfool.core.streams import Streams

EPS, STEP = 8 / 255, 2 / 255
PLAIN = {"labels": labels(augmentation="none")}


def in_double(config):
    """A stage and a batch in float64, and a copy of the network for the literal loop."""
    made = make_stage(config).double()
    batch = make_table().batch(torch.arange(10))
    batch = Batch(images=batch.images.double(), ids=batch.ids, columns=batch.columns)
    made.network.classifier = "labels"
    return made, batch, copy.deepcopy(made.network)


def climbed(network, images, points, loss, steps):
    """PGD written out: the sign of the gradient, then the ball, then the box."""
    network.eval()
    for _ in range(steps):
        points = points.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(network(points)).sum(), points)
        points = (points.detach() + STEP * gradient.sign()).clamp(images - EPS, images + EPS).clamp(0, 1)
    network.train()
    return points.detach()


def compare(made, batch, network, total):
    found = made.total(made(batch, Streams(5))[0])
    torch.testing.assert_close(found, total)
    found.backward()
    total.backward()
    theirs = dict(network.named_parameters())
    for name, parameter in made.network.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-6, atol=1e-10)
    buffers = dict(network.named_buffers())
    for name, buffer in made.network.named_buffers():
        torch.testing.assert_close(buffer, buffers[name])


@pytest.mark.parametrize("beta", [1.0, 6.0])
def test_trades_is_the_literal_loop(beta):
    config = stage(PLAIN, perturb="pgd-3", adversarial="trades", beta=beta)
    made, batch, network = in_double(config)
    images, targets = batch.images, batch.labels("label")
    noise = Streams(5).named("perturb").named("labels").named("start").normal(batch.ids, (3, 16, 16))
    network.eval()
    clean = network(images).softmax(1).detach()
    start = (images + 0.001 * noise).clamp(0, 1)
    moved = climbed(
        network, images, start, lambda logits: (clean * (clean.log() - logits.log_softmax(1))).sum(1), steps=3
    )
    before, after = network(images), network(moved)
    p = before.softmax(1)
    total = F.cross_entropy(before, targets) + beta * (p * (p.log() - after.log_softmax(1))).sum(1).mean()
    compare(made, batch, network, total)


def test_mart_is_the_literal_loop():
    config = stage(PLAIN, perturb="pgd-4:random_start=false", adversarial="mart", beta=5.0)
    made, batch, network = in_double(config)
    images, targets = batch.images, batch.labels("label")
    moved = climbed(network, images, images, lambda logits: F.cross_entropy(logits, targets, reduction="none"), steps=4)
    before, after = network(images).softmax(1), network(moved).softmax(1)
    own = F.one_hot(targets, 4).bool()
    wrong = after.masked_fill(own, 0).amax(1)
    boosted = -(after[own]).log() - (1 - wrong).log()
    divergence = (before * (before.log() - after.log())).sum(1)
    compare(made, batch, network, (boosted + 5.0 * divergence * (1 - before[own])).mean())


@pytest.mark.parametrize("adversarial", ["trades", "mart"])
@pytest.mark.parametrize("norm", ["linf:8/255", "l2:0.5"])
def test_examples_stay_in_the_ball_and_statistics_see_clean_then_moved(adversarial, norm):
    made = make_stage(stage(PLAIN, perturb="pgd-2", threat=norm, adversarial=adversarial))
    batch = make_table().batch(torch.arange(8))
    seen = []
    entry = made.network.trunk.parts["stem"]
    entry.register_forward_pre_hook(lambda _, args: seen.append((entry.training, args[0].detach())))
    network = copy.deepcopy(made.network)
    made(batch, Streams(0))
    assert [training for training, _ in seen] == [False] * (len(seen) - 2) + [True, True]
    (_, clean), (_, moved) = seen[-2:]
    torch.testing.assert_close(clean * made.network.std + made.network.mean, batch.images)
    shift = (moved - clean) * made.network.std
    length = shift.abs().amax((1, 2, 3)) if norm.startswith("linf") else shift.flatten(1).norm(dim=1)
    assert (length > 0).all()
    assert length.max() <= {"linf:8/255": 8 / 255, "l2:0.5": 0.5}[norm] + 1e-5
    network.trunk(clean), network.trunk(moved)
    found = made.network.state_dict()
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        ({"perturb": "pgd-3"}, 3 + 1),
        ({"perturb": "pgd-3", "adversarial": "mart"}, 3 + 2),
        # the clean predictions that the divergence is measured from are computed once, not at every step
        ({"perturb": "pgd-3", "adversarial": "trades"}, 1 + 3 + 2),
        ({"perturb": "pgd-3", "awp": 0.01}, 3 + 1 + 1),
        ({"perturb": "pgd-3", "adversarial": "trades", "awp": 0.01}, 1 + 3 + 2 + 2),
        ({"perturb": "fgsm:random_start=true,step_size=10/255"}, 1 + 1),
    ],
)
def test_every_image_through_the_network_is_counted_and_none_is_wasted(settings, passes):
    made = make_stage(stage(**settings))
    sizes, frozen = [], []
    entry = made.network.trunk.parts["stem"]
    entry.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    entry.register_forward_pre_hook(lambda _, args: frozen.append(not entry[0].weight.requires_grad))
    made(make_table().batch(torch.arange(8)), Streams(0))
    assert made.model_images == sum(sizes) == 8 * passes
    learning = {"plain": 1}.get(settings.get("adversarial", "plain"), 2) * (2 if "awp" in settings else 1)
    assert frozen == [True] * (passes - learning) + [False] * learning


@pytest.mark.parametrize("adversarial", ["trades", "mart"])
def test_several_views_and_label_columns_share_their_passes(adversarial):
    view = {"augmentation": "simclr", "views": 2}
    tasks = {"labels": labels(**view), "parity": labels(column="parity", **view)}
    made = make_stage(stage(tasks, perturb="pgd-1", adversarial=adversarial))
    losses, scores = made(make_table().batch(torch.arange(6)), Streams(0))
    assert {name: tuple(values.shape) for name, values in losses.items()} == {"labels": (6,), "parity": (6,)}
    assert sorted(scores) == ["accuracy/labels", "accuracy/parity"]
    assert made.model_images == 12 * (3 + (adversarial == "trades"))


@pytest.mark.parametrize(
    ("tasks", "settings", "words"),
    [
        (None, {"adversarial": "trades"}, "set perturb"),
        (None, {"adversarial": "trade", "perturb": "pgd-2"}, "trades"),
        ({"contrast": contrast()}, {"adversarial": "mart", "perturb": "pgd-2"}, "labels tasks only"),
        (None, {"adversarial": "trades", "perturb": "pgd-2:restarts=2"}, "restarts"),
        (None, {"perturb": "square"}, "choose fgsm, n-fgsm or pgd"),
        (None, {"beta": -1}, "beta"),
        (None, {"awp": 1.0}, "awp"),
        (None, {"ema": 1.0}, "ema"),
        (None, {"held_out": -1}, "held_out"),
        (None, {"stop_attack": "pdg-10"}, "did you mean 'pgd'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(tasks, settings, words):
    with pytest.raises(SpecError, match=words) as refusal:
        make_stage(stage(tasks, **settings))
    assert "\n" not in str(refusal.value)
