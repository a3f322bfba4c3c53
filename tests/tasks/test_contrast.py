"""NT-Xent against the paper's algorithm, written out as loops over float64 numbers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unfool.core.batch import Batch, Views
from unfool.core.errors import ImagesError, SpecError
from unfool.core.streams import Streams
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.tasks import make_task
from unfool.tasks.contrast_losses import nt_xent


def cosine(left, right):
    return float(left @ right) / (float(left @ left) ** 0.5 * float(right @ right) ** 0.5)


def algorithm_1(z, temperature):
    """Algorithm 1 of SimCLR for a batch of N images: rows 2k-1 and 2k (1-based) are the two views of image k.

    Returns ℓ(i, j) for every row i, j being its other view.
    """
    rows = len(z)
    s = [[cosine(z[i], z[j]) for j in range(rows)] for i in range(rows)]

    def loss(i, j):
        denominator = sum(math.exp(s[i][k] / temperature) for k in range(rows) if k != i)
        return -math.log(math.exp(s[i][j] / temperature) / denominator)

    return [loss(i, i + 1 if i % 2 == 0 else i - 1) for i in range(rows)]


def several_positives(z, count, images, temperature):
    """View-major z: for every anchor and every other view of its image one term, against all other images' views."""
    losses = []
    for image in range(images):
        terms = []
        for anchor in range(count):
            i = anchor * images + image
            negatives = sum(
                math.exp(cosine(z[i], z[k]) / temperature) for k in range(count * images) if k % images != image
            )
            for other in range(count):
                if other != anchor:
                    positive = math.exp(cosine(z[i], z[other * images + image]) / temperature)
                    terms.append(-math.log(positive / (positive + negatives)))
        losses.append(sum(terms) / len(terms))
    return losses


def make_z(rows, size, seed):
    return np.random.default_rng(seed).normal(size=(rows, size))


@settings(max_examples=20, deadline=None)
@given(
    images=st.integers(2, 6), size=st.integers(1, 8), temperature=st.sampled_from([0.07, 0.5, 2.0]), seed=st.integers(0)
)
def test_two_views_give_algorithm_1(images, size, temperature, seed):
    z = make_z(2 * images, size, seed)
    per_row = algorithm_1(z, temperature)
    view_major = torch.from_numpy(np.concatenate([z[0::2], z[1::2]]))
    losses = nt_xent(view_major, 2, temperature)
    expected = [(per_row[2 * k] + per_row[2 * k + 1]) / 2 for k in range(images)]
    assert losses.dtype == torch.float64
    assert np.allclose(losses.numpy(), expected, rtol=1e-9, atol=1e-12)
    assert math.isclose(float(losses.mean()), sum(per_row) / (2 * images), rel_tol=1e-9, abs_tol=1e-12)


@settings(max_examples=20, deadline=None)
@given(count=st.sampled_from([2, 3, 4]), images=st.integers(2, 5), temperature=st.sampled_from([0.1, 1.0]))
def test_every_other_view_is_a_positive(count, images, temperature):
    z = make_z(count * images, 5, count * images)
    losses = nt_xent(torch.from_numpy(z), count, temperature)
    assert np.allclose(losses.numpy(), several_positives(z, count, images, temperature), rtol=1e-9)


@pytest.mark.parametrize("count", [2, 3])
def test_the_gradient_is_that_of_the_loops(count):
    images, temperature, step = 3, 0.3, 1e-6
    z = make_z(count * images, 4, 7)
    tensor = torch.from_numpy(z).requires_grad_()
    (gradient,) = torch.autograd.grad(nt_xent(tensor, count, temperature).sum(), tensor)
    for index in np.ndindex(*z.shape):
        moved = []
        for sign in (1, -1):
            there = z.copy()
            there[index] += sign * step
            moved.append(sum(several_positives(there, count, images, temperature)))
        assert math.isclose(float(gradient[index]), (moved[0] - moved[1]) / (2 * step), rel_tol=1e-4, abs_tol=1e-7)
    assert torch.autograd.gradcheck(lambda t: nt_xent(t, count, temperature), (tensor,))


def test_extreme_similarities_stay_finite():
    same = torch.ones(8, 4)
    assert torch.allclose(nt_xent(same, 2, 1e-3), torch.full((4,), math.log(7)))
    apart = torch.eye(4).repeat(2, 1).requires_grad_()
    losses = nt_xent(apart, 2, 1e-3)
    (gradient,) = torch.autograd.grad(losses.sum(), apart)
    assert float(losses.detach().max()) < 1e-6
    assert torch.isfinite(gradient).all()
    opposite = torch.cat([torch.eye(4), -torch.eye(4)])
    assert torch.allclose(nt_xent(opposite, 2, 1e-2), torch.full((4,), 100 + math.log(6)), rtol=1e-5)


@pytest.mark.parametrize("count", [2, 3])
def test_a_batch_of_one_is_refused(count):
    with pytest.raises(ImagesError, match="at least 2 images"):
        nt_xent(torch.randn(count, 4), count, 0.5)


def make_bound(**values):
    task = make_task("contrast", {"size": 5, **values})
    trunk = TrunkSpec(name="convnet", widths=(3, 4, 6))
    network = Network.build(trunk, {}, normalisation="none")
    task.bind(network, "contrast", {}, Streams(0))
    return task, network.eval()


def make_batch(count=4):
    ids = torch.arange(count) * 2 + 1
    return Batch(images=Streams(1).uniform(ids, (3, 12, 12)), ids=ids)


@pytest.mark.parametrize("count", [2, 3])
def test_the_task_is_nt_xent_on_projected_features(count):
    task, network = make_bound(views=count, temperature=0.2)
    views = task.views(make_batch(), Streams(2))
    assert views.count == count
    assert views.images.shape == (4 * count, 3, 12, 12)
    assert not torch.equal(views.images[:4], views.images[4:8])
    with torch.no_grad():
        outputs = network.features(views.images, views.stage)
        projected = task.head(outputs).double().numpy()
        losses = task.losses(outputs, views)
    assert np.allclose(losses.numpy(), several_positives(projected, count, 4, 0.2), rtol=1e-4)
    assert task.coupled
    assert task.needs == ()


def test_the_canonical_views_of_an_image_differ_and_stay():
    task, _ = make_bound()
    first, second = task.views(make_batch(), None), task.views(make_batch(), None)
    assert torch.equal(first.images, second.images)
    assert not torch.equal(first.images[:4], first.images[4:])


def test_bf16_features_enter_the_loss_in_fp32():
    task, _ = make_bound()
    features = Streams(0).normal(torch.arange(8), (6,)).to(torch.bfloat16)
    task.head.to(torch.bfloat16)
    losses = task.losses(features, Views(images=torch.empty(8, 3, 1, 1), count=2))
    assert losses.dtype == torch.float32
    task.head.double()
    assert task.losses(features.double(), Views(images=torch.empty(8, 3, 1, 1), count=2)).dtype == torch.float64


@pytest.mark.parametrize(
    ("key", "value"), [("temperature", 0), ("temperature", -1), ("temperature", "nan"), ("views", 1), ("size", 0)]
)
def test_bad_settings_are_refused(key, value):
    with pytest.raises(SpecError, match=key):
        make_task("contrast", {key: value})


def test_the_projection_head_has_the_size_that_was_asked_for():
    task, _ = make_bound()
    assert task.head_for({"last": 6}, {}) == {"kind": "mlp", "inputs": 6, "hidden": 6, "outputs": 5}
    wide = make_task("contrast", {"hidden": 9})
    assert wide.head_for({"last": 6}, {}) == {"kind": "mlp", "inputs": 6, "hidden": 9, "outputs": 128}
