"""Contrast with a queue of earlier projections, and with an augmentation that decays."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_contrast_losses import literal

from unfool.core.batch import Batch
from unfool.core.streams import Streams
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.tasks import make_task


def make_bound(**values):
    task = make_task("contrast", {"size": 5, "negatives": "queue", "bank": 30, "temperature": 0.3, **values})
    network = Network.build(TrunkSpec(name="convnet", widths=(3, 4, 6)), {}, normalisation="none").eval()
    task.bind(network, "contrast", {}, Streams(0))
    task.learning = True
    return task, network


def make_batch(first=0, count=4):
    ids = torch.arange(first, first + count)
    return Batch(images=Streams(1).uniform(ids, (3, 12, 12)), ids=ids)


def step(task, network, batch):
    """One training step's losses and the projections (float64 numbers) that they are of."""
    views = task.views(batch, Streams(2))
    outputs = network.features(views.images)
    losses = task.losses(outputs, views)
    with torch.no_grad():
        z = task.head(outputs).double().numpy()
    return losses, z


@pytest.mark.parametrize("loss", ["nt-xent", "first-positive", "multi-positive", "margin"])
def test_the_negatives_are_batch_mates_and_what_earlier_steps_pushed(loss):
    task, network = make_bound(views=3, loss=loss)
    pushed = []
    for number in range(4):
        losses, z = step(task, network, make_batch(4 * number))
        expected = literal(loss, z, 3, 0.3, queue=pushed)
        np.testing.assert_allclose(losses.detach().numpy(), expected, rtol=1e-4, atol=1e-6)
        # Pushing between losses and their gradient must not disturb the latter.
        task.after_step()
        losses.sum().backward()
        pushed = [*z, *pushed][:30]
    assert len(pushed) == 30
    unit = np.stack([row / np.linalg.norm(row) for row in pushed])
    np.testing.assert_allclose(task.bank.numpy(), unit, rtol=1e-4, atol=1e-6)
    assert not task.bank.requires_grad


def test_a_queue_gets_no_gradient_and_moves_the_loss():
    task, network = make_bound()
    step(task, network, make_batch())
    task.after_step()
    full, _ = step(task, network, make_batch(4))
    task.bank.zero_()
    empty, _ = step(task, network, make_batch(4))
    plain, _ = make_bound(negatives="batch")
    plain.head = task.head
    alone, _ = step(plain, network, make_batch(4))
    assert (full > empty).all()
    assert torch.equal(empty, alone)


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 20), sizes=st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_the_queue_keeps_the_most_recent_rows(rows, sizes):
    task = make_task("contrast", {"size": 3, "negatives": "queue", "bank": rows})
    task.learning = True
    task.head = torch.nn.Identity()
    kept, number = [], 0
    for size in sizes:
        ids = torch.arange(number, number + 2 * size + 2)
        number += len(ids)
        z = Streams(3).normal(ids, (3,))
        task.losses(z, task.views(make_batch(count=size + 1), Streams(0)))
        task.after_step()
        kept = [*torch.nn.functional.normalize(z, dim=1), *kept][:rows]
    assert task.bank.shape == (rows, 3)
    assert torch.equal(task.bank[: len(kept)], torch.stack(kept))
    assert not task.bank[len(kept) :].any()


def test_only_what_is_learnt_from_is_remembered_and_only_once():
    task, network = make_bound()
    task.learning = False
    step(task, network, make_batch())
    task.after_step()
    assert not task.bank.any()
    task.learning = True
    step(task, network, make_batch(4))
    _, z = step(task, network, make_batch())
    task.after_step()
    task.after_step()
    assert int(task.bank.any(1).sum()) == len(z) == 8
    np.testing.assert_allclose((task.bank[:8].numpy() * z).sum(1), np.linalg.norm(z, axis=1), rtol=1e-5)
    assert "bank" in task.state_dict()


def test_a_queue_may_be_shorter_than_the_rows_a_bank_would_draw():
    assert make_task("contrast", {"negatives": "queue", "bank": 8}).bank.shape == (8, 128)
    assert make_task("contrast").bank.shape == (0, 128)
    assert make_task("contrast", {"negatives": "queue", "loss": "cosine"}).bank.shape == (0, 128)


@pytest.mark.parametrize("decay", [1, 3, 20, 100])
def test_strength_falls_in_equal_steps_that_begin_on_time(decay):
    task, steps = make_task("contrast", {"decay": decay}), 7 * decay
    found = []
    for number in range(steps):
        task.at(number / steps)
        found.append(task.strength)
    assert found == [1.0 - (number // 7) / decay for number in range(steps)]
    task.at(0.0)
    assert task.strength == 1.0


def test_without_a_decay_the_strength_stays():
    task = make_task("contrast")
    task.at(0.9)
    assert task.strength == 1.0
    assert make_task("labels").strength == 1.0


def test_decayed_views_are_those_of_the_weakened_augmentation():
    task, _ = make_bound(decay=4)
    batch = make_batch()
    strong = task.views(batch, Streams(5)).images
    task.at(0.75)
    weak = task.views(batch, Streams(5)).images
    images = batch.images.repeat(2, 1, 1, 1)
    flips = torch.stack([images, images.flip(3)])

    def change(views):
        return float((views - flips).abs().mean((2, 3, 4)).amin(0).mean())

    assert 0 < change(weak) < 0.5 * change(strong)
