"""Jigsaw as the context-free network: a view a tile, a head that joins them, and all that a task can be used for."""

import math

import numpy as np
import pytest
import torch

from unfool.core.batch import Batch
from unfool.core.errors import ImagesError, SpecError
from unfool.core.streams import Streams
from unfool.defenses import make_defense
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.tasks import make_task
from unfool.tasks.tiles import normalised
from unfool.training import StageConfig, TaskConfig
from unfool.training.stage import Stage

TRUNK = TrunkSpec(name="convnet", widths=(4, 6, 8))
STRIDED = TrunkSpec(name="convnet", stem="strided", widths=(4, 6, 8))
ALEXNET = TrunkSpec(name="alexnet", stem="stride-2", width=1 / 32)
PAPER = {"form": "context-free", "grid": 3, "count": 30, "gap": 0, "jitter": 0.147}
SMALL = {"form": "context-free", "hidden": 64}


def make_batch(side, count=4, channels=3):
    ids = torch.arange(count) * 3 + 1
    return Batch(images=Streams(1).uniform(ids, (channels, side, side)), ids=ids)


def make_bound(trunk=TRUNK, **values):
    task, network = make_task("jigsaw", values), Network.build(trunk, {}, normalisation="none")
    task.bind(network, "jigsaw", {}, Streams(0))
    return task.eval(), network.eval()


def read(task, network, batch, streams):
    views = task.views(batch, streams)
    return task.losses(network.features(views.images, views.stage), views)


@pytest.mark.parametrize(("side", "cell", "tile"), [(225, 75, 64), (64, 21, 18), (32, 10, 9)])
def test_tiles_have_the_papers_size_or_its_proportion(side, cell, tile):
    task, _ = make_bound(**PAPER)
    assert side // 3 == cell
    views = task.views(make_batch(side, count=2), Streams(4))
    assert views.count == task.settings.views == 9
    assert views.images.shape == (9 * 2, 3, tile, tile)


@pytest.mark.parametrize(("trunk", "side"), [(TRUNK, 32), (STRIDED, 64), (ALEXNET, 225)])
def test_a_canonical_tile_is_the_middle_of_its_cell_normalised_by_itself(trunk, side):
    task, _ = make_bound(trunk, **PAPER)
    batch = make_batch(side)
    views = task.views(batch, None)
    tile, middle = views.images.shape[2], math.floor(0.147 * (side // 3)) // 2
    for image, order in enumerate(task.permutations[views.targets].tolist()):
        for place, cell in enumerate(order):
            top, left = (index * side // 3 + middle for index in divmod(cell, 3))
            expected = normalised(batch.images[image : image + 1, :, top : top + tile, left : left + tile])[0]
            torch.testing.assert_close(views.images[place * len(batch) + image], expected)


def test_a_drawn_tile_moves_inside_its_cell_by_itself():
    task, _ = make_bound(**PAPER)
    count, side = 30, 64
    moving = make_batch(side, count, channels=1)
    moving.images.requires_grad_()
    views = task.views(moving, Streams(4))
    order, starts = task.permutations[views.targets], []
    for place in range(9):
        (gradient,) = torch.autograd.grad(
            views.images.unflatten(0, (9, count))[place].pow(3).sum(), moving.images, retain_graph=True
        )
        for image, shown in enumerate(gradient[:, 0].numpy() != 0):
            rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
            down, across = divmod(int(order[image, place]), 3)
            assert len(rows) == len(columns) == 18
            starts.append((rows[0] - down * side // 3, columns[0] - across * side // 3))
    assert {number for pair in starts for number in pair} == {0, 1, 2, 3}
    assert len(set(starts)) == 16


def test_the_head_joins_what_the_trunk_gives_for_each_tile_alone():
    task, network = make_bound(**SMALL)
    batch = make_batch(32)
    views = task.views(batch, Streams(4))
    first, second, last = (task.head[index] for index in (0, 3, 5))
    with torch.no_grad():
        losses, scores = read(task, network, batch, Streams(4)), {}
        scores = task.scores(network.features(views.images), views)
        for image in range(len(batch)):
            tiles = [network.features(views.images[place * len(batch) + image][None])[0] for place in range(4)]
            hidden = second(torch.cat([first(tile).relu() for tile in tiles])).relu()
            logits = last(hidden).double().numpy()
            target = int(views.targets[image])
            assert math.isclose(losses[image], math.log(np.exp(logits).sum()) - logits[target], rel_tol=1e-4)
            assert float(scores["accuracy"][image]) == float(logits.argmax() == target)


@pytest.mark.parametrize(
    ("trunk", "side", "stage", "channels"),
    [(TRUNK, 32, "block2", (8, 8)), (ALEXNET, 64, "conv4", (12, 8))],
)
def test_an_own_convolution_reads_the_trunk_before_its_last_one(trunk, side, stage, channels):
    task, network = make_bound(trunk, own_convolution=True, **SMALL)
    assert task.views(make_batch(side), Streams(4)).stage == stage
    description = task.head.description
    assert (description["inputs"], description["channels"]) == channels
    network.zero_grad()
    read(task, network, make_batch(side), Streams(4)).sum().backward()
    moved = {name for name, part in network.trunk.parts.items() for p in part.parameters() if p.grad is not None}
    assert stage in moved
    assert moved == set(network.trunk.stages[: network.trunk.stages.index(stage) + 1])


def test_shared_convolutions_learn_from_the_tiles():
    task, network = make_bound(ALEXNET, **SMALL)
    read(task, network, make_batch(64), Streams(4)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.trunk.parameters())


def test_tiles_smaller_than_the_trunk_takes_are_refused():
    task, _ = make_bound(STRIDED, **PAPER)
    with pytest.raises(
        ImagesError, match="32×32 pixels into tiles of 9×9, and the trunk needs 16 or more a side; give"
    ):
        task.views(make_batch(32), None)
    assert task.views(make_batch(64), None).images.shape[2] == 18


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"form": "contextfree"}, "form='contextfree' is not allowed"),
        ({"own_convolution": True}, "set form=context-free"),
        ({"hidden": 12}, "hidden=12 is not allowed"),
        ({"hidden": 0}, "hidden=0 is not allowed"),
    ],
)
def test_bad_settings_are_refused(values, message):
    with pytest.raises(SpecError, match=message):
        make_task("jigsaw", values)


@pytest.mark.parametrize(("own", "perturb"), [(False, None), (True, None), (False, "pgd-2")])
def test_permutations_of_tiles_are_learnt_beside_labels(own, perturb):
    """Four pictures, each of another direction of stripes: the tiles differ in nothing that brightness tells."""
    down, across = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    stripes = [down, across, down + across, down - across]
    tiles = torch.stack([(stripe // 2 % 2).float() for stripe in stripes]).reshape(2, 2, 16, 16)
    image = (tiles.permute(0, 2, 1, 3).reshape(1, 32, 32) * 0.6 + 0.2).expand(16, 3, 32, 32)
    ids = torch.arange(16)
    batch = Batch(images=image.contiguous(), ids=ids, columns={"label": ids % 2})
    tasks = {
        "puzzle": TaskConfig(task="jigsaw", settings={**SMALL, "count": 4, "own_convolution": own}),
        "labels": TaskConfig(task="labels", weight=0.1),
    }
    config = StageConfig(tasks=tasks, perturb=perturb, threat="linf:2/255")
    stage = Stage(config, Network.build(TRUNK, {}), {"label": 2}, Streams(0)).train()
    optimizer = torch.optim.Adam(stage.parameters(), lr=0.01)
    losses = []
    for step in range(30):
        found, _ = stage(batch, Streams(0).at(step))
        losses.append(float(found["puzzle"].mean().detach()))
        optimizer.zero_grad()
        stage.total(found).backward()
        optimizer.step()
    assert stage.model_images == 30 * 16 * (4 + 1) * (1 if perturb is None else 3)
    assert losses[-1] < 0.5 < 1 < losses[0]
    # What was learnt is there in eval mode too, where tiles meet the statistics of the whole images beside them.
    task = stage.tasks["puzzle"]
    stage.eval()
    views = task.views(batch, Streams(0).at(step))
    outputs = stage.network.features(views.images, views.stage)
    assert float(task.losses(outputs, views).mean().detach()) < 0.5


def test_beside_whole_images_tiles_go_through_the_running_statistics():
    """Beside labels only whole images move them; a puzzle alone moves them by its tiles."""
    tasks = {"puzzle": TaskConfig(task="jigsaw", settings=SMALL), "labels": TaskConfig(task="labels")}
    for names in (("puzzle", "labels"), ("puzzle",)):
        network = Network.build(TRUNK, {})
        stage = Stage(
            StageConfig(tasks={name: tasks[name] for name in names}), network, {"label": 2}, Streams(0)
        ).train()
        norm = next(part for part in network.trunk.modules() if isinstance(part, torch.nn.BatchNorm2d))
        seen = []
        norm.register_forward_pre_hook(lambda part, args, seen=seen: seen.append((len(args[0]), part.training)))
        batch = make_batch(32)
        stage(Batch(images=batch.images, ids=batch.ids, columns={"label": batch.ids % 2}), Streams(0))
        whole = [(len(batch), True)] if "labels" in names else []
        assert sorted(seen) == sorted([(4 * len(batch), not whole), *whole])
        assert int(norm.num_batches_tracked) == 1
        assert norm.training


def test_a_step_moves_the_statistics_of_the_head_s_own_convolution_once():
    tasks = {"puzzle": TaskConfig(task="jigsaw", settings={**SMALL, "own_convolution": True})}
    stage = Stage(StageConfig(tasks=tasks), Network.build(TRUNK, {}), {}, Streams(0)).train()
    stage(make_batch(32), Streams(0))
    (norm,) = [part for part in stage.network.heads["puzzle"] if isinstance(part, torch.nn.BatchNorm2d)]
    assert int(norm.num_batches_tracked) == 1


@pytest.mark.parametrize("own", [False, True])
def test_a_reversal_reads_the_form_from_the_head(own):
    values = {**SMALL, "count": 24, "own_convolution": own}
    task, network = make_bound(TRUNK, **values)
    network.heads["labels"] = Network.build(TRUNK, {"labels": {"kind": "linear", "outputs": 3}}).heads["labels"]
    network.classifier = "labels"
    defense = make_defense("reverse:task=jigsaw,steps=6,step_size=0.01,eps=0.05,redraw=false", network, {"label": 3})
    assert defense.task.settings == task.settings
    batch = make_batch(32)
    found = defense.purify(batch.images, batch.ids)
    assert float(found.losses[-1].mean()) < float(found.losses[0].mean())
    assert found.model_images == 7 * 4 * 4
    assert defense.images_per_prediction == 6 * 4 + 1
    assert defense(batch.images, batch.ids).shape == (4, 3)
