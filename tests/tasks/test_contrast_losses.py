"""Every loss of contrast against its formula, written out as loops over float64 numbers; and the bank of negatives."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unfool.core.batch import Batch
from unfool.core.errors import DataError, ImagesError, SpecError
from unfool.core.streams import Streams
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.tasks import make_task
from unfool.tasks.contrast_losses import CONTRAST_LOSSES


def nt_xent(positives, negatives):
    return np.mean([-math.log(math.exp(p) / (math.exp(p) + sum(map(math.exp, negatives)))) for p in positives])


def first_positive(positives, negatives):
    everything = sum(map(math.exp, positives)) + sum(map(math.exp, negatives))
    return -math.log(math.exp(positives[0]) / everything)


def multi_positive(positives, negatives):
    everything = sum(map(math.exp, positives)) + sum(map(math.exp, negatives))
    return -sum(math.log(math.exp(p) / everything) for p in positives) / len(positives)


def margin(positives, negatives):
    return np.mean([max(0.0, 1.0 + n - p) for p in positives for n in negatives])


ORACLES = {
    "nt-xent": nt_xent,
    "first-positive": first_positive,
    "multi-positive": multi_positive,
    "margin": margin,
}


def unit(vector):
    return vector / math.sqrt(float(vector @ vector))


def literal(loss, z, count, temperature, negatives=None, queue=()):
    """Losses per image of view-major z: for every anchor its similarities to its positives and its negatives."""
    images = len(z) // count
    result = []
    for image in range(images):
        anchors = []
        for view in range(count):
            anchor = unit(z[view * images + image])
            positives = [
                float(anchor @ unit(z[other * images + image])) / temperature for other in range(count) if other != view
            ]
            if negatives is None:
                pool = [z[row] for row in range(len(z)) if row % images != image] + list(queue)
            else:
                pool = negatives if negatives.ndim == 2 else negatives[image]
            others = [float(anchor @ unit(row)) / temperature for row in pool]
            if loss == "cosine":
                anchors.append(np.mean([1.0 - p * temperature for p in positives]))
            else:
                anchors.append(ORACLES[loss](positives, others))
        result.append(np.mean(anchors))
    return np.array(result)


def make_z(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def unit_rows(rows):
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def test_every_loss_has_an_oracle():
    assert set(CONTRAST_LOSSES) == {*ORACLES, "cosine"}


@pytest.mark.parametrize("loss", list(CONTRAST_LOSSES))
@settings(max_examples=25, deadline=None)
@given(
    images=st.integers(1, 5),
    count=st.integers(2, 4),
    temperature=st.sampled_from([0.1, 0.5, 2.0]),
    kind=st.sampled_from(["batch", "queue", "shared", "own"]),
    seed=st.integers(0, 999),
)
def test_losses_are_their_formulas(loss, images, count, temperature, kind, seed):
    images += kind in ("batch", "queue")
    z = make_z(seed, count * images, 4)
    shape = {"batch": None, "queue": (6, 4), "shared": (6, 4), "own": (images, 6, 4)}[kind]
    others = {}
    if shape is not None:
        others["queue" if kind == "queue" else "negatives"] = make_z(seed + 1, *shape)
    tensor = torch.from_numpy(z).requires_grad_()
    losses = CONTRAST_LOSSES[loss](
        tensor, count, temperature, **{name: unit_rows(rows) for name, rows in others.items()}
    )
    assert losses.shape == (images,)
    assert np.allclose(losses.detach().numpy(), literal(loss, z, count, temperature, **others), rtol=1e-9, atol=1e-12)
    (gradient,) = torch.autograd.grad(losses.sum(), tensor)
    direction, step = make_z(seed + 2, *z.shape), 1e-6
    ends = [literal(loss, z + sign * step * direction, count, temperature, **others).sum() for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    assert math.isclose(float((gradient.numpy() * direction).sum()), slope, rel_tol=1e-4, abs_tol=1e-6)


@pytest.mark.parametrize("loss", ["nt-xent", "multi-positive"])
@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("count", [2, 3])
def test_every_number_of_the_gradient_is_that_of_the_loops(loss, queued, count):
    images, temperature, step = 3, 0.2, 1e-5
    z, queue = make_z(7, count * images, 4), make_z(8, 5, 4) if queued else ()
    tensor = torch.from_numpy(z).requires_grad_()
    rows = unit_rows(queue) if queued else None
    (gradient,) = torch.autograd.grad(CONTRAST_LOSSES[loss](tensor, count, temperature, queue=rows).sum(), tensor)
    expected = np.empty_like(z)
    for place in np.ndindex(*z.shape):
        moved = np.zeros_like(z)
        moved[place] = step
        ends = [literal(loss, z + sign * moved, count, temperature, queue=queue).sum() for sign in (1, -1)]
        expected[place] = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_with_two_views_the_logistic_losses_agree():
    z = torch.from_numpy(make_z(0, 8, 5))
    first, second, third = (CONTRAST_LOSSES[name](z, 2, 0.3, None) for name in list(ORACLES)[:3])
    assert torch.allclose(first, second)
    assert torch.allclose(first, third)
    more = torch.from_numpy(make_z(0, 16, 5))
    found = [CONTRAST_LOSSES[name](more, 4, 0.3, None) for name in list(ORACLES)[:3]]
    assert not torch.allclose(found[0], found[1])
    assert not torch.allclose(found[1], found[2])


@pytest.mark.parametrize("loss", list(CONTRAST_LOSSES))
def test_a_single_image_needs_negatives_of_its_own(loss):
    z = torch.from_numpy(make_z(0, 2, 5))
    if loss == "cosine":
        assert CONTRAST_LOSSES[loss](z, 2, 0.3, None).shape == (1,)
        return
    with pytest.raises(ImagesError, match="at least 2 images"):
        CONTRAST_LOSSES[loss](z, 2, 0.3, None)


def make_table(count=40):
    pixels = (Streams(1).uniform(torch.arange(count), (3, 12, 12)) * 255).to(torch.uint8)
    return Table(DecodedPixels(pixels), torch.arange(count), {}, {}, label_column=None, name="noise", split="train")


def make_bound(**values):
    task = make_task("contrast", {"size": 5, "negatives": "bank", "bank": 30, "drawn": 7, **values})
    network = Network.build(TrunkSpec(name="convnet", widths=(3, 4, 6)), {}, normalisation="none").eval()
    task.bind(network, "contrast", {}, Streams(0))
    return task, network


def make_batch(count=4):
    ids = torch.arange(count) * 2 + 1
    return Batch(images=Streams(1).uniform(ids, (3, 12, 12)), ids=ids)


def test_the_bank_holds_unit_projections_of_views_of_the_table():
    task, network = make_bound()
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    task.calibrate(network, make_table(), Streams(2))
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert task.bank.shape == (30, 5)
    assert not task.bank.requires_grad
    assert torch.allclose(task.bank.norm(dim=1), torch.ones(30))
    first = task.bank.clone()
    task.calibrate(network, make_table(), Streams(2))
    assert torch.equal(task.bank, first)
    task.calibrate(network, make_table(), Streams(3))
    assert not torch.equal(task.bank, first)
    assert "bank" in task.state_dict()


def test_every_image_draws_rows_of_its_own():
    task, network = make_bound(views=3, loss="first-positive", temperature=0.3)
    task.calibrate(network, make_table(), Streams(2))
    batch = make_batch()
    views = task.views(batch, Streams(4))
    assert views.targets.shape == (4, 7)
    assert all(len(set(row.tolist())) == 7 for row in views.targets)
    assert len({tuple(row.tolist()) for row in views.targets}) == 4
    assert torch.equal(task.views(batch.rows(torch.tensor([2, 0])), Streams(4)).targets, views.targets[[2, 0]])
    assert not torch.equal(task.views(batch, Streams(5)).targets, views.targets)
    with torch.no_grad():
        outputs = network.features(views.images)
        losses = task.losses(outputs, views)
        z = task.head(outputs).double().numpy()
    expected = literal("first-positive", z, 3, 0.3, task.bank[views.targets].double().numpy())
    assert np.allclose(losses.numpy(), expected, rtol=1e-4)


def test_only_in_batch_negatives_couple():
    assert make_task("contrast").coupled
    assert make_task("contrast", {"loss": "margin"}).coupled
    assert make_task("contrast", {"negatives": "queue"}).coupled
    assert not make_task("contrast", {"negatives": "queue", "loss": "cosine"}).coupled
    assert not make_task("contrast", {"negatives": "bank"}).coupled
    assert not make_task("contrast", {"loss": "cosine"}).coupled


def test_a_bank_that_is_empty_or_too_large_is_refused():
    task, network = make_bound()
    with pytest.raises(SpecError, match="calibrate"):
        task.views(make_batch(), Streams(0))
    with pytest.raises(DataError, match="bank=20"):
        task.calibrate(network, make_table(20), Streams(0))
    with pytest.raises(SpecError, match="drawn=9"):
        make_bound(bank=8, drawn=9)
    with pytest.raises(SpecError, match="loss"):
        make_bound(loss="triplet")
    cosine, network = make_bound(loss="cosine")
    cosine.calibrate(network, make_table(3), Streams(0))
    assert cosine.views(make_batch(), Streams(0)).targets is None


def test_a_head_tells_the_settings_that_describe_it():
    for values in ({"size": 7, "hidden": 9}, {"head_norm": "batch"}, {}):
        task = make_task("contrast", values)
        head = task.head_for({"last": 6}, {})
        again = make_task("contrast", type(task).settings_of(head))
        assert again.head_for({"last": 6}, {}) == head
    assert make_task("contrast", {"head_norm": "batch"}).head_for({"last": 6}, {})["norm"] == "batch"
