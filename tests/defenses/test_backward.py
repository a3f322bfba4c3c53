"""Gradients through a defense: the approximation, and the exact one against finite differences and a literal unrolling,
both in float64."""

import pytest
import torch
from small_defenses import CLASSES, SMALL, make_images, make_network, make_reverse, make_table

from unfool.attacks import CustomAttack, make_attack
from unfool.core.geometry import GEOMETRIES
from unfool.core.streams import Streams
from unfool.defenses import make_defense
from unfool.defenses.backward import Bpda, Unrolled

VARIANTS = ["steps=3", "steps=3,draws=2", "steps=3,keep=best", "norm=l2,eps=0.4,steps=3", "norm=l1,eps=3,steps=3"]


def make_gate(network, **settings):
    """A gate that about half of the images pass."""
    given = {**SMALL, "steps": 3, "rate": 0.25, **settings}
    gate = make_defense("gate", network, CLASSES, data=make_table(), settings=given)
    with torch.no_grad():
        gate.threshold = float(gate.losses(make_images(dtype=network.mean.dtype)).median())
    return gate


def variants(network):
    yield from ((text, make_reverse(text, network)) for text in VARIANTS)
    yield "gate", make_gate(network)
    yield "gate, two draws", make_gate(network, draws=2)
    yield "abstaining gate", make_gate(network, action="abstain")


@pytest.mark.parametrize("wrapper", [Bpda, Unrolled])
def test_values_are_the_defense_s_own(wrapper):
    images = make_images()
    for text, defense in variants(make_network()):
        model = wrapper(defense)
        moving = images.clone().requires_grad_()
        logits = model(moving)
        assert torch.equal(logits.detach(), defense(images)), text
        (gradient,) = torch.autograd.grad(logits[:, 0].sum(), moving)
        assert gradient.flatten(1).any(1).all(), text
        assert torch.isfinite(gradient).all(), text
        with torch.no_grad():
            assert torch.equal(model(images), logits), text
        assert all(parameter.grad is None for parameter in model.parameters())


def test_bpda_gives_the_network_s_gradient_at_the_purified_point():
    network = make_network()
    defense = make_reverse("steps=3,draws=2", network)
    moving = make_images().requires_grad_()
    (found,) = torch.autograd.grad(Bpda(defense)(moving)[:, 1].sum(), moving)
    points = defense.purified_images(moving.detach()).requires_grad_()
    (expected,) = torch.autograd.grad(network(points)[:, 1].sum(), points)
    assert torch.allclose(found, expected.unflatten(0, (2, 6)).mean(0), atol=1e-7)


@pytest.mark.parametrize("wrapper", [Bpda, Unrolled])
def test_redrawn_randomness_is_fresh_at_every_call_and_repeatable(wrapper):
    defense = make_reverse("steps=2")
    images = make_images()
    fixed, fresh, again = wrapper(defense), wrapper(defense, Streams(7)), wrapper(defense, Streams(7))
    assert torch.equal(fixed(images), fixed(images))
    first, second = fresh(images), fresh(images)
    assert not torch.equal(first, second)
    assert not torch.equal(first, fixed(images))
    assert torch.equal(first, again(images))
    assert torch.equal(second, again(images))
    # Draw by draw the defense's own: the number of a call is the number of its draw.
    for number, scores in enumerate((first, second)):
        points = defense.purified_images(images, None, Streams(7).at(number))
        assert torch.allclose(scores, defense.logits(points, images, None), atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "norm=l2,eps=0.5,steps=1,start=image",
        "norm=l2,eps=0.5,steps=4,step_size=0.2",
        "norm=l2,eps=0.3,steps=4,step_size=0.2,keep=best,redraw=false",
        "norm=l2,eps=5,steps=3,step_size=0.2,draws=2,loss=first-positive,views=3",
        "norm=linf,eps=0.03,steps=4,step_size=0.01,start=image",
        "norm=linf,eps=0.02,steps=3,step_size=0.03,start=image,keep=best",
        "norm=l1,eps=3,steps=3,step_size=2",
        "norm=l1,eps=4,steps=3,step_size=1,start=image",
    ],
)
def test_the_exact_gradient_is_that_of_finite_differences(text):
    network = make_network(torch.float64)
    model = Unrolled(make_reverse(text, network))
    images = make_images(4, torch.float64)
    weights = Streams(1).normal(torch.arange(4), (4,)).double()
    direction = Streams(2).normal(torch.arange(4), (3, 12, 12)).double()
    # Inside the box by more than the step of the differences, so that no pixel of an image itself is stopped there.
    images = images.clamp(0.001, 0.999)

    def values(moved):
        return (model(moved) * weights).sum(1)

    moving = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(values(moving).sum(), moving)
    slope = (gradient * direction).flatten(1).sum(1)
    step = 1e-6
    with torch.no_grad():
        differences = (values(images + step * direction) - values(images - step * direction)) / (2 * step)
    assert torch.allclose(slope, differences, rtol=1e-4, atol=1e-5)
    (approximate,) = torch.autograd.grad((Bpda(model.defense)(moving) * weights).sum(), moving)
    assert not torch.allclose(gradient, approximate, rtol=1e-3)


def literal_step(gradient, threat, step, points):
    """Against the gradient: its sign, its unit vector, or the signs of its largest hundredth inside the box."""
    if threat.norm_name == "linf":
        return -step * gradient.sign()
    if threat.norm_name == "l2":
        return -step * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    flat = gradient.flatten(1)
    open_side = torch.where(flat < 0, points.flatten(1) < 1, points.flatten(1) > 0)
    largest = (flat.abs() * open_side).argsort(1, descending=True)[:, : round(0.01 * flat.shape[1])]
    moves = torch.zeros_like(flat).scatter(1, largest, -flat.gather(1, largest).sign() / largest.shape[1])
    return step * moves.view_as(gradient)


def literal_projection(moved, origins, threat):
    """Clamped to ball and box; scaled back to the sphere, then clamped; moves shortened by what makes their sum eps.

    That length is found by bisection; a last step of Newton's carries its derivative.
    """
    delta, eps = moved - origins, threat.eps
    if threat.norm_name == "linf":
        return torch.minimum(torch.maximum(moved, origins - eps), origins + eps).clamp(0, 1)
    if threat.norm_name == "l2":
        length = delta.flatten(1).norm(dim=1)[:, None, None, None]
        return (origins + torch.where(length > eps, delta * eps / length, delta)).clamp(0, 1)
    size, room = delta.flatten(1).abs(), torch.where(delta > 0, 1 - origins, origins).flatten(1)

    def shortened(length):
        return torch.minimum((size - length).relu(), room)

    with torch.no_grad():
        low, high = torch.zeros(len(size), 1).double(), size.amax(1, keepdim=True)
        for _ in range(100):
            middle = (low + high) / 2
            too_far = shortened(middle).sum(1, keepdim=True) > eps
            low, high = torch.where(too_far, middle, low), torch.where(too_far, high, middle)
        moving = ((size > high) & (size - high < room)).sum(1, keepdim=True).clamp(min=1)
    length = high + (shortened(high).sum(1, keepdim=True) - eps) / moving
    moves = shortened(torch.where(shortened(0.0).sum(1, keepdim=True) > eps, length, 0.0))
    return origins + (moves * delta.flatten(1).sign()).view_as(delta)


def literally_unrolled(defense, images, ids):
    """The logits of the reversal as a plain loop, in which nothing is detached."""
    threat, logits = defense.threat, []
    for draw in range(defense.draws):
        streams = Streams(defense.seed).named("reverse").at(draw)
        points = images
        if defense.start == "random":
            start = streams.named("start").at(0)
            noise = GEOMETRIES[threat.norm_name].sample_within(ids, tuple(images.shape[1:]), start, threat.eps)
            points = (images + noise).clamp(0, 1)
        path, losses = [points], []
        for call in range(defense.steps + 1):
            views = streams.named("views").at(call if defense.redraw else 0)
            losses.append(defense.pretext(path[-1], ids, views))
            if call < defense.steps:
                (gradient,) = torch.autograd.grad(losses[-1].sum(), path[-1], create_graph=True)
                moved = path[-1] + literal_step(gradient, threat, defense.step_size, path[-1])
                path.append(literal_projection(moved, images, threat))
        best = torch.stack(losses).argmin(0) if defense.keep == "best" else torch.full((len(images),), defense.steps)
        logits.append(defense.network(torch.stack(path)[best, torch.arange(len(images))]))
    return torch.stack(logits).mean(0)


@pytest.mark.parametrize(
    "text",
    [
        "norm=l2,eps=0.5,steps=1,start=image",
        "norm=l2,eps=0.5,steps=5,step_size=0.2",
        "norm=l2,eps=0.3,steps=4,step_size=0.2,keep=best,redraw=false",
        "norm=l2,eps=5,steps=3,step_size=0.2,draws=2,loss=first-positive,views=3",
        "norm=linf,eps=0.03,steps=4,step_size=0.011,start=image",
        "norm=linf,eps=0.02,steps=3,step_size=0.013,draws=2,keep=best",
        "norm=l1,eps=3,steps=3,step_size=2",
        "norm=l1,eps=3,steps=4,step_size=1.5,start=image,keep=best",
    ],
)
def test_the_exact_gradient_is_that_of_a_literal_unrolling(text):
    network = make_network(torch.float64)
    defense = make_reverse(text, network)
    # Inside the box: at its edge a derivative has two sides.
    images = make_images(5, torch.float64).clamp(0.001, 0.999)
    weights = Streams(1).normal(torch.arange(5), (4,)).double()
    moving, ids = images.requires_grad_(), torch.arange(5)
    own, literal = Unrolled(defense)(moving, ids), literally_unrolled(defense, moving, ids)
    assert torch.allclose(own, literal, rtol=0, atol=1e-9)
    gradient, expected = (torch.autograd.grad((logits * weights).sum(), moving)[0] for logits in (own, literal))
    assert torch.allclose(gradient, expected, rtol=1e-6, atol=1e-8)
    assert expected.flatten(1).abs().amax(1).min() > 1e-3


def test_attacks_follow_the_wrappers_and_leave_no_trace():
    network = make_network()
    defense = make_reverse("steps=2", network)
    images = make_images(8)
    labels = defense(images).argmax(1)
    attack = make_attack("pgd-6:goal=best,random_start=false", "linf:0.1")
    flags = [parameter.requires_grad for parameter in network.parameters()]
    naive = attack(defense, images, labels)
    assert naive.zero_gradient.all()
    for model in (Bpda(defense), Unrolled(defense)):
        found = attack(model, images, labels)
        assert not found.zero_gradient.any()
        assert torch.equal(found.fooled, defense(found.images).argmax(1) != labels)
        assert float((found.losses - naive.losses).mean()) > 0.01
    assert [parameter.requires_grad for parameter in network.parameters()] == flags


def test_expectation_over_redrawn_draws_through_an_attack():
    defense = make_reverse("steps=2")
    images = make_images(4)
    labels = defense(images).argmax(1)
    attack = make_attack("pgd-3:goal=last", "linf:0.1")
    parts = [
        CustomAttack(attack.threat, label="pgd-3", components=attack.parts, eot_draws=3)(model, images, labels)
        for model in (Bpda(defense, Streams(3)), Bpda(defense, Streams(3)))
    ]
    assert torch.equal(parts[0].images, parts[1].images)
    assert parts[0].model_images == 4 * 3 * 4
