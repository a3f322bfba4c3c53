"""The known adversarial examples of the binarization test exist: evaluated in NumPy, from the network's features."""

import numpy as np
import pytest
import torch
from tiny_systems import make_network, make_table

from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.evaluation.reliability import binarization_heads
from unfool.evaluation.reliability.binarization_heads import fit_heads, on_sphere, representation
from unfool.models.modes import frozen_eval

THREATS = ["linf:0.1", "l2:1", "l1:12"]
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}
IMAGES, INNER = 16, 20


class Shattered(torch.nn.Module):
    """The same features of images with 64 levels: every gradient is zero."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def features(self, images):
        return self.network.features((images * 63).round() / 63)


def inner_points(heads, threat, streams):
    """The points that the heads were fitted on, drawn again: the edge of 95 % of the ball and its inside, in turn."""
    ball = ThreatModel(threat.norm_name, 0.95 * threat.eps)
    fitted = [(on_sphere, ThreatModel.sample)[draw % 2] for draw in range(INNER)]
    return [draw(ball, heads.images, heads.ids, streams.named("inner").at(k)) for k, draw in enumerate(fitted)]


def scores(heads, model, images):
    """How far each image lies beyond its head's boundary, in float64, image by image."""
    with torch.no_grad():
        features = model.features(images).numpy().astype(np.float64)
    centres, weights, offsets = (getattr(heads, name).numpy() for name in ("centres", "weights", "offsets"))
    return np.array(
        [
            np.dot(feature - centre, weight) - offset
            for feature, centre, weight, offset in zip(features, centres, weights, offsets, strict=True)
        ]
    )


@pytest.mark.parametrize("text", THREATS)
@pytest.mark.parametrize("shattered", [False, True])
def test_the_known_example_lies_in_ball_and_box_and_fools_its_head(text, shattered):
    """Where a gradient leads uphill, and where there is none, so that the random point itself is the known example."""
    threat = ThreatModel.parse(text)
    network, streams = make_network(widths=(8, 12, 24)), Streams(3)
    model = Shattered(network) if shattered else network
    batch = make_table(IMAGES).batch()
    with frozen_eval(model):
        heads, passes = fit_heads(representation(model), threat, batch.images, batch.ids, streams, INNER)
    drawn = on_sphere(threat, heads.images, heads.ids, streams.named("sphere"))
    assert torch.equal(heads.points, drawn) == shattered
    if shattered:
        assert len(heads.ids) >= IMAGES / 2
    else:
        assert torch.equal(heads.images, batch.images)
    points = heads.points.numpy().astype(np.float64)
    moved = (points - heads.images.numpy()).reshape(len(points), -1)
    assert (np.linalg.norm(moved, ORDERS[threat.norm_name], axis=1) <= threat.eps + 1e-6).all()
    assert points.min() >= 0
    assert points.max() <= 1
    assert (scores(heads, model, heads.points) > 0.9 * (1 - binarization_heads.CLOSENESS)).all()
    assert (scores(heads, model, heads.images) < -binarization_heads.CLOSENESS + 1e-3).all()
    near = np.array([scores(heads, model, points) for points in inner_points(heads, threat, streams)])
    assert near.max() == pytest.approx(-binarization_heads.CLOSENESS, abs=1e-3)
    assert passes == IMAGES * (1 + INNER + 1 + 2 * (binarization_heads.CLIMB_STEPS + 1) + 2)


def test_no_lucky_start_is_asked_for():
    """The level to reach is the lower of two climbs, so that some known examples lie above it."""
    network, batch = make_network(widths=(8, 12, 24)), make_table(IMAGES).batch()
    with frozen_eval(network):
        heads, _ = fit_heads(
            representation(network), ThreatModel.parse("linf:0.1"), batch.images, batch.ids, Streams(3), INNER
        )
    above = scores(heads, network, heads.points) - (1 - binarization_heads.CLOSENESS)
    assert (above > -1e-3).all()
    assert 0 < (above > 1e-3).sum() < IMAGES / 2


@pytest.mark.parametrize("text", THREATS)
def test_points_on_the_sphere_are_at_eps_and_in_all_directions(text):
    threat = ThreatModel.parse(text)
    grey = torch.full((40, 3, 16, 16), 0.5)
    moved = (on_sphere(threat, grey, torch.arange(40), Streams(0)) - grey).double().flatten(1)
    lengths = np.linalg.norm(moved.numpy(), ORDERS[threat.norm_name], axis=1)
    np.testing.assert_allclose(lengths, threat.eps, rtol=1e-5)
    assert abs(float(moved.sign().mean())) < 0.05
    if threat.norm_name == "linf":
        assert float(moved.abs().min()) == pytest.approx(threat.eps, rel=1e-5)


@pytest.mark.parametrize(("count", "size"), [(30, 5), (6, 12)])
def test_the_discriminant_is_the_one_of_the_book(count, size):
    """(S + r·I)⁻¹ (far - mean), image by image in NumPy; r the mean of S's eigenvalues; scaled to give far score 1."""
    ids = torch.arange(3)
    near = Streams(0).normal(ids, (count, size)).double() * torch.linspace(0.1, 3, size)
    far = Streams(1).normal(ids, (size,)).double() * 4
    centres, weights = binarization_heads._discriminants(near, far)
    for row in range(3):
        points = near[row].numpy()
        scatter = np.cov(points.T, bias=True) * count
        eigenvalues = np.linalg.eigvalsh(scatter)
        ridge = binarization_heads.RIDGE * eigenvalues[eigenvalues > 1e-9].mean()
        away = far[row].numpy() - points.mean(0)
        expected = np.linalg.solve(scatter + ridge * np.eye(size), away)
        np.testing.assert_allclose(centres[row], points.mean(0), rtol=1e-9)
        np.testing.assert_allclose(weights[row], expected / (expected @ away), rtol=1e-6)
