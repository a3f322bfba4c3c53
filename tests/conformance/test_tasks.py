"""What every registered task owes the rest of the house; a new task is tested here as soon as it is registered."""

import random

import numpy as np
import pytest
import torch
from task_cases import CASES, NAMES

from unfool.core.batch import Batch, Views
from unfool.core.errors import DataError, SpecError
from unfool.core.streams import Streams
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.models.heads import build_head
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.tasks import make_task

EACH = pytest.mark.parametrize(
    ("name", "values"), CASES, ids=[" ".join([n, *(f"{k}={v[k]}" for k in v)]) for n, v in CASES]
)
CLASSES = {"label": 4, "coarse": 2}
COUNT, SIDE = 6, 20


def make_network(dtype=torch.float32):
    network = Network.build(TrunkSpec(name="convnet", widths=(3, 4, 6)), {}, normalisation="none")
    return network.to(dtype).eval()


def make_batch(dtype=torch.float32, rows=None):
    ids = torch.arange(COUNT) * 5 + 2
    fine = Streams(0).named("labels").integers(ids, 4)
    images = Streams(0).named("images").uniform(ids, (3, SIDE, SIDE)).to(dtype)
    batch = Batch(images=images, ids=ids, columns={"label": fine, "coarse": fine // 2})
    return batch if rows is None else batch.rows(rows)


def make_table():
    pixels = (Streams(8).uniform(torch.arange(20), (3, SIDE, SIDE)) * 255).to(torch.uint8)
    return Table(DecodedPixels(pixels), torch.arange(20), {}, {}, label_column=None, name="noise", split="train")


def make_bound(name, values=None, dtype=torch.float32):
    """The task, calibrated, and the network that carries its head."""
    task, network = make_task(name, values), make_network()
    task.bind(network, name, CLASSES, Streams(0))
    network.to(dtype)
    task.calibrate(network, make_table(), Streams(9))
    return task.eval(), network.eval()


def losses_of(task, network, batch, streams):
    views = task.views(batch, streams)
    return task.losses(network.features(views.images, views.stage), views)


@pytest.mark.parametrize("streams", [None, Streams(4)], ids=["canonical", "drawn"])
@EACH
def test_views_are_images_of_the_same_size_or_parts_of_them(name, values, streams):
    task, network = make_bound(name, values)
    batch = make_batch()
    kept = batch.images.clone()
    views = task.views(batch, streams)
    assert isinstance(views, Views)
    assert views.count >= 1
    assert views.images.shape[:2] == (views.count * COUNT, 3)
    assert set(views.images.shape[2:]) == {SIDE if values.get("form") != "context-free" else 9}
    assert views.images.dtype == batch.images.dtype
    assert views.stage in network.trunk.stages
    assert float(views.images.min()) >= -1e-6
    assert float(views.images.max()) <= 1.0 + 1e-6
    assert torch.equal(batch.images, kept)


@EACH
def test_canonical_views_are_the_same_every_time(name, values):
    task, network = make_bound(name, values)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        views = task.views(make_batch(), None)
        with torch.no_grad():
            found.append((views.images, task.losses(network.features(views.images, views.stage), views)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@EACH
def test_draws_belong_to_the_image_and_to_the_streams(name, values):
    task, network = make_bound(name, values)
    torch.manual_seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = task.views(make_batch(), Streams(4)).images
    losses_of(task, network, make_batch(), Streams(4))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    assert torch.equal(first, task.views(make_batch(), Streams(4)).images)
    rows = torch.tensor([4, 1, 5])
    part = task.views(make_batch(rows=rows), Streams(4)).images
    assert torch.equal(part, first.unflatten(0, (-1, COUNT))[:, rows].flatten(0, 1))


@EACH
def test_there_is_one_finite_loss_per_image_and_one_score(name, values):
    task, network = make_bound(name, values)
    views = task.views(make_batch(), Streams(4))
    outputs = network.features(views.images, views.stage)
    losses = task.losses(outputs, views)
    assert losses.shape == (COUNT,)
    assert torch.isfinite(losses).all()
    assert losses.requires_grad
    assert torch.equal(losses, task.losses(outputs, views))
    assert set(task.scores(outputs.detach(), views)) <= set(task.score_names) - {"loss"}
    for scores in task.scores(outputs.detach(), views).values():
        assert scores.shape == (COUNT,)
        assert torch.isfinite(scores).all()


@EACH
def test_losses_pass_gradcheck_in_float64(name, values):
    task, network = make_bound(name, values, torch.float64)
    views = task.views(make_batch(torch.float64), Streams(4))
    with torch.no_grad():
        outputs = network.features(views.images, views.stage)
    # Moved off the trunk's values, which pooling may have made equal, and which activations may have made zero.
    noise = Streams(5).normal(torch.arange(len(outputs)), tuple(outputs.shape[1:])).double()
    moving = (outputs + 0.3 * noise).requires_grad_()
    assert task.losses(moving, views).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda t: task.losses(t, views), (moving,), fast_mode=True)


@EACH
def test_the_loss_follows_the_image_through_the_views(name, values):
    task, network = make_bound(name, values, torch.float64)
    batch = make_batch(torch.float64)

    def total(images):
        return losses_of(task, network, batch.with_images(images), Streams(4)).sum()

    moving = (batch.images * 0.8 + 0.1).requires_grad_()
    (gradient,) = torch.autograd.grad(total(moving), moving)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()
    step = 1e-5 / float(gradient.norm())
    with torch.no_grad():
        difference = (total(moving + step * gradient) - total(moving - step * gradient)) / (2 * step)
    assert torch.isclose(difference, gradient.square().sum(), rtol=1e-3)


@EACH
def test_only_coupled_tasks_look_at_batch_mates(name, values):
    task, network = make_bound(name, values, torch.float64)
    with torch.no_grad():
        whole = losses_of(task, network, make_batch(torch.float64), Streams(4))
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        shuffled = losses_of(task, network, make_batch(torch.float64, order), Streams(4))
        rows = torch.tensor([4, 1])
        part = losses_of(task, network, make_batch(torch.float64, rows), Streams(4))
    assert torch.allclose(shuffled, whole[order], atol=1e-9)
    assert torch.allclose(part, whole[rows], rtol=0, atol=1e-9) is not task.coupled


@pytest.mark.parametrize("name", NAMES)
def test_the_head_is_described_and_lives_in_the_network(name):
    task, network = make_bound(name)
    description = task.head_for(network.trunk.channels, CLASSES)
    built = build_head(description, Streams(0).named(name))
    assert built.description == description
    assert task.head is network.heads[name]
    assert all(torch.equal(left, right) for left, right in zip(built.parameters(), task.head.parameters(), strict=True))
    assert Network.from_architecture(network.architecture).architecture == network.architecture


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_setting_is_refused_with_the_nearest(name):
    known = next(iter(make_task(name).settings.__dataclass_fields__), None)
    if known is None:
        pytest.skip(f"task {name} has no settings")
    with pytest.raises(SpecError, match=f"did you mean '{known}'"):
        make_task(name, {known + "x": 1})


@pytest.mark.parametrize("name", NAMES)
def test_a_column_that_is_needed_and_missing_is_named(name):
    task, _ = make_bound(name)
    batch = make_batch()
    if not task.needs:
        assert task.views(Batch(images=batch.images, ids=batch.ids), Streams(4)).images.shape[0] >= COUNT
        return
    with pytest.raises(DataError, match=task.needs[0]):
        task.views(Batch(images=batch.images, ids=batch.ids), Streams(4))
    with pytest.raises(SpecError, match=task.needs[0]):
        task.views(Batch(images=batch.images, ids=batch.ids, columns={"other": batch.ids}), Streams(4))
    with pytest.raises(SpecError, match=task.needs[0]):
        task.bind(make_network(), name, {"other": 3}, Streams(0))


def test_an_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(SpecError, match="did you mean 'contrast'"):
        make_task("contrst")
