"""Rotation: exact turns, their targets, the loss; and the life of the task in training and in a reversal."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unfool.core.batch import Batch
from unfool.core.errors import ImagesError, SpecError
from unfool.core.streams import Streams
from unfool.data.augment import augmented
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.defenses import make_defense
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.tasks import make_task
from unfool.tasks.rotation import turned
from unfool.training import RunConfig, StageConfig, TaskConfig, train
from unfool.training.stage import Stage

TRUNK = TrunkSpec(name="convnet", widths=(4, 6, 8))
COUNT = 12


def make_batch(side=12, count=COUNT):
    ids = torch.arange(count) * 3 + 1
    return Batch(images=Streams(1).uniform(ids, (3, side, side)), ids=ids)


def make_bound(**values):
    task, network = make_task("rotation", values), Network.build(TRUNK, {}, normalisation="none")
    task.bind(network, "rotation", {}, Streams(0))
    return task, network.eval()


@given(turns=st.lists(st.integers(0, 3), min_size=1, max_size=6), side=st.integers(1, 5), channels=st.integers(1, 3))
def test_each_image_is_turned_by_its_own_number_of_quarters(turns, side, channels):
    images = Streams(2).uniform(torch.arange(len(turns)), (channels, side, side))
    found = turned(images, torch.tensor(turns))
    for image, turn, one in zip(images.numpy(), turns, found.numpy(), strict=True):
        assert np.array_equal(one, np.rot90(image, turn, axes=(1, 2)))


def test_the_gradient_is_turned_back():
    turns = torch.tensor([0, 1, 2, 3])
    images, weights = (Streams(seed).normal(torch.arange(4), (2, 5, 5)) for seed in (1, 2))
    images.requires_grad_()
    (gradient,) = torch.autograd.grad((turned(images, turns) * weights).sum(), images)
    assert torch.equal(gradient, turned(weights, -turns % 4))


def test_all_four_turns_of_the_augmented_image_are_shown():
    task, _ = make_bound()
    views = task.views(make_batch(), Streams(4))
    images = augmented(make_batch(), "crop-flip", 1, Streams(4))
    assert views.count == task.settings.views == 4
    for turn in range(4):
        part = slice(turn * COUNT, (turn + 1) * COUNT)
        assert np.array_equal(views.images[part].numpy(), np.rot90(images.numpy(), turn, axes=(2, 3)))
        assert views.targets[part].tolist() == [turn] * COUNT


def test_one_turn_is_drawn_for_each_image():
    task, _ = make_bound(turns="one", augmentation="none")
    batch = make_batch(count=200)
    views = task.views(batch, Streams(4))
    assert views.count == task.settings.views == 1
    for image, turn, one in zip(batch.images.numpy(), views.targets.tolist(), views.images.numpy(), strict=True):
        assert np.array_equal(one, np.rot90(image, turn, axes=(1, 2)))
    assert views.targets.bincount(minlength=4).min() > 30
    assert not torch.equal(views.targets, task.views(batch, Streams(5)).targets)


@pytest.mark.parametrize("turns", ["all", "one"])
def test_the_canonical_views_are_all_turns_of_the_image_itself(turns):
    task, _ = make_bound(turns=turns)
    batch = make_batch()
    views = task.views(batch, None)
    assert views.count == 4
    assert torch.equal(views.images, torch.cat([batch.images.rot90(turn, (2, 3)) for turn in range(4)]))
    assert views.targets.tolist() == [turn for turn in range(4) for _ in range(COUNT)]


@pytest.mark.parametrize("turns", ["all", "one"])
def test_the_loss_is_the_mean_cross_entropy_over_views(turns):
    task, network = make_bound(turns=turns)
    views = task.views(make_batch(), Streams(4))
    with torch.no_grad():
        outputs = network.features(views.images)
        logits = task.head(outputs).double().numpy()
        losses, scores = task.losses(outputs, views), task.scores(outputs, views)["accuracy"]
    assert logits.shape == (views.count * COUNT, 4)
    for image in range(COUNT):
        rows = [(logits[row], int(views.targets[row])) for row in range(image, len(logits), COUNT)]
        expected = np.mean([math.log(np.exp(row).sum()) - row[target] for row, target in rows])
        assert math.isclose(float(losses[image]), expected, rel_tol=1e-5)
        assert math.isclose(float(scores[image]), np.mean([row.argmax() == target for row, target in rows]))
    task.head.bfloat16()
    assert task.losses(outputs.bfloat16(), views).dtype == torch.float32
    assert task.needs == ()
    assert not task.coupled


@pytest.mark.parametrize("turns", ["all", "one"])
def test_images_that_are_not_square_are_refused(turns):
    task, _ = make_bound(turns=turns)
    batch = Batch(images=torch.zeros(2, 3, 8, 6), ids=torch.arange(2))
    with pytest.raises(ImagesError, match="8×6 pixels, and a quarter turn would change their shape; give square"):
        task.views(batch, Streams(0))


def test_bad_settings_are_refused():
    with pytest.raises(SpecError, match="turns='two' is not allowed"):
        make_task("rotation", {"turns": "two"})


@pytest.mark.parametrize("turns", ["all", "one"])
def test_turns_are_learnt(turns):
    # Bright above, dark below: every turn puts the bright side elsewhere, and a corner pixel or two tell it.
    images = torch.linspace(1, 0, 12)[None, None, :, None].expand(32, 3, 12, 12).contiguous()
    batch = Batch(images=images, ids=torch.arange(32))
    task = TaskConfig(task="rotation", settings={"turns": turns, "augmentation": "none"})
    stage = Stage(StageConfig(tasks={"rotation": task}), Network.build(TRUNK, {}), {}, Streams(0))
    optimizer = torch.optim.Adam(stage.parameters(), lr=0.02)
    losses = []
    for step in range(30):
        found, scores = stage(batch, Streams(0).at(step))
        losses.append(float(found["rotation"].mean().detach()))
        optimizer.zero_grad()
        stage.total(found).backward()
        optimizer.step()
    assert losses[-1] < 0.3 < losses[0]
    assert float(scores["accuracy/rotation"].mean()) == 1.0


@pytest.mark.parametrize("perturb", [None, "pgd-2"])
def test_pretext_tasks_train_together_and_under_attack(tmp_path, perturb):
    ids = torch.arange(16)
    pixels = (Streams(0).uniform(ids, (3, 16, 16)) * 255).to(torch.uint8)
    table = Table(DecodedPixels(pixels), ids, {}, {}, label_column=None, name="noise", split="train")
    names = ("rotation", "jigsaw", "contrast")
    stage = StageConfig(tasks={name: TaskConfig(task=name) for name in names}, batch_size=8, perturb=perturb)
    config = RunConfig(data="noise", stages=(stage,), trunk={"name": "convnet", "widths": [3, 4, 6]})
    run = train(config, table, tmp_path)
    assert set(run.network.heads) == set(names)
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert {"loss/rotation", "loss/jigsaw", "accuracy/rotation", "accuracy/jigsaw"} <= set(header.split(","))


@pytest.mark.parametrize(("turns", "views"), [("all", 4), ("one", 1)])
def test_a_reversal_descends_the_rotation_loss(turns, views):
    heads = {"labels": {"kind": "linear", "outputs": 3}, "rotation": {"kind": "linear", "outputs": 4}}
    network = Network.build(TRUNK, heads, classifier="labels", normalisation="none").eval()
    text = f"reverse:task=rotation,turns={turns},steps=6,step_size=0.01,eps=0.05,redraw=false"
    defense = make_defense(text, network, {"label": 3})
    batch = make_batch()
    found = defense.purify(batch.images, batch.ids)
    assert float(found.losses[-1].mean()) < float(found.losses[0].mean())
    assert float((found.images - batch.images).abs().max()) <= 0.05 + 1e-6
    assert found.model_images == 7 * views * COUNT
    assert defense.images_per_prediction == 6 * views + 1
    assert not defense.batch_dependent
    assert defense(batch.images, batch.ids).shape == (COUNT, 3)
