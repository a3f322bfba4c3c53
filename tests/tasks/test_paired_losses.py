"""TRADES and MART against their papers' formulas, written out image by image in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_labels import make_batch, make_bound

from unfool.core.streams import Streams
from unfool.tasks.paired_losses import Classifies, divergence, mart, trades


def softmax(row):
    weights = np.exp(np.asarray(row, dtype=np.float64))
    return weights / weights.sum()


def literal_divergence(clean, moved):
    return sum(p * math.log(p / q) for p, q in zip(softmax(clean), softmax(moved), strict=True))


def literal_trades(clean, moved, label, beta):
    return -math.log(softmax(clean)[label]) + beta * literal_divergence(clean, moved)


def literal_mart(clean, moved, label, beta):
    """Equation 12: BCE(p(x'), y) + λ · KL(p(x) ‖ p(x')) · (1 - p_y(x))."""
    p = softmax(moved)
    highest_wrong = max(p[k] for k in range(len(p)) if k != label)
    boosted = -math.log(p[label]) - math.log(1 - highest_wrong)
    return boosted + beta * literal_divergence(clean, moved) * (1 - softmax(clean)[label])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.floats(0.1, 4.0), st.sampled_from([0.0, 1.0, 6.0]))
def test_losses_are_the_papers_formulas(seed, classes, scale, beta):
    ids = torch.arange(5)
    streams = Streams(seed)
    clean = streams.named("clean").normal(ids, (classes,)).double() * scale
    moved = streams.named("moved").normal(ids, (classes,)).double() * scale
    labels = streams.integers(ids, classes)
    rows = list(zip(clean.numpy(), moved.numpy(), labels.tolist(), strict=True))
    np.testing.assert_allclose(divergence(clean, moved), [literal_divergence(c, m) for c, m, _ in rows], atol=1e-10)
    np.testing.assert_allclose(trades(clean, moved, labels, beta), [literal_trades(*row, beta) for row in rows])
    np.testing.assert_allclose(mart(clean, moved, labels, beta), [literal_mart(*row, beta) for row in rows], rtol=1e-6)


@pytest.mark.parametrize("loss", [trades, mart])
def test_gradients_flow_through_both_and_are_exact(loss):
    ids = torch.arange(4)
    clean, moved = (Streams(n).normal(ids, (3,)).double().requires_grad_() for n in (1, 2))
    labels = torch.tensor([0, 1, 2, 0])
    assert torch.autograd.gradcheck(lambda c, m: loss(c, m, labels, 2.0), (clean, moved))


@pytest.mark.parametrize("loss", [trades, mart])
def test_certain_predictions_stay_finite_in_float32(loss):
    """Sure and right, sure and wrong: where a probability rounds to 1, a formula in probabilities takes log 0."""
    clean = torch.tensor([[90.0, 0.0, 0.0], [0.0, 90.0, 0.0]], requires_grad=True)
    moved = torch.tensor([[0.0, 90.0, 0.0], [90.0, 0.0, 0.0]], requires_grad=True)
    losses = loss(clean, moved, torch.tensor([0, 0]), 6.0)
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert torch.isfinite(clean.grad).all()
    assert torch.isfinite(moved.grad).all()


@pytest.mark.parametrize("count", [1, 3])
def test_a_labels_task_gives_the_mean_over_views(count):
    task, network = make_bound(views=count)
    assert isinstance(task, Classifies)
    batch = make_batch()
    views = task.views(batch, Streams(2))
    with torch.no_grad():
        before, after = network.features(views.images), network.features(1 - views.images)
        found = task.paired_losses(lambda c, m, t: trades(c, m, t, 2.0), before, after, views)
        clean, moved = (task.head(outputs).double().numpy() for outputs in (before, after))
    for image, label in enumerate(batch.columns["fine"].tolist()):
        rows = [view * 6 + image for view in range(count)]
        expected = np.mean([literal_trades(clean[row], moved[row], label, 2.0) for row in rows])
        assert float(found[image]) == pytest.approx(expected, rel=1e-5)
