"""Jigsaw: what is cut, where it is shown, what is never shown; and the task's loss and reversal."""

import hashlib
import math
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unfool.core.batch import Batch
from unfool.core.errors import ImagesError, SpecError
from unfool.core.streams import Streams
from unfool.defenses import make_defense
from unfool.models.heads.tiles import PuzzleHead
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.tasks import make_task
from unfool.tasks.permutations import PermutationRule
from unfool.training import StageConfig, TaskConfig
from unfool.training.stage import Stage

TRUNK = TrunkSpec(name="convnet", widths=(4, 6, 8))
SHAPES = [(2, 32), (3, 32), (2, 64), (3, 64), (2, 96), (3, 96)]


def make_batch(side=32, count=6, channels=3):
    ids = torch.arange(count) * 3 + 1
    return Batch(images=Streams(1).uniform(ids, (channels, side, side)), ids=ids)


def make_bound(**values):
    task, network = make_task("jigsaw", values), Network.build(TRUNK, {}, normalisation="none")
    task.bind(network, "jigsaw", {}, Streams(0))
    return task, network.eval()


def put_together(image, order, grid, start, tile):
    """The tiles of one image (C, H, W), each ``start`` pixels into its cell, in that order, by loops over the cells."""
    rows = []
    for down in range(grid):
        row = []
        for across in range(grid):
            cell = int(order[down * grid + across])
            top, left = (index * image.shape[1] // grid + start for index in divmod(cell, grid))
            row.append(image[:, top : top + tile, left : left + tile])
        rows.append(np.concatenate(row, axis=2))
    return np.concatenate(rows, axis=1)


@pytest.mark.parametrize(("grid", "side"), [(2, 32), (2, 64), (3, 96), (2, 96)])
@pytest.mark.parametrize("streams", [None, Streams(4)], ids=["canonical", "drawn"])
def test_without_gap_and_jitter_whole_cells_change_places(grid, side, streams):
    task, _ = make_bound(grid=grid, gap=0, jitter=0)
    batch = make_batch(side)
    views = task.views(batch, streams)
    orders = task.permutations[views.targets]
    for image, order, found in zip(batch.images.numpy(), orders, views.images.numpy(), strict=True):
        assert np.array_equal(found, put_together(image, order, grid, 0, side // grid))


@pytest.mark.parametrize(("grid", "side"), SHAPES)
def test_the_canonical_view_has_centred_tiles_resized_to_the_whole(grid, side):
    task, _ = make_bound(grid=grid)
    batch = make_batch(side)
    views = task.views(batch, None)
    cell = side // grid
    gap, jitter = math.ceil(cell / 8), math.floor(cell / 8)
    for index, order in enumerate(task.permutations[views.targets]):
        tile = cell - gap - jitter
        together = put_together(batch.images[index].numpy(), order, grid, gap // 2 + jitter // 2, tile)
        assert together.shape[1:] == (grid * tile, grid * tile)
        resized = F.interpolate(torch.from_numpy(together)[None], (side, side), mode="bilinear", align_corners=False)
        assert torch.allclose(views.images[index], resized[0], atol=1e-6)


@pytest.mark.parametrize(("grid", "side"), SHAPES)
def test_neighbouring_tiles_never_come_closer_than_the_gap(grid, side):
    task, _ = make_bound(grid=grid)
    batch = make_batch(side, count=40, channels=1)
    moving = batch.images.requires_grad_()
    # Only pixels that are shown have a gradient, and all of these have.
    (gradient,) = torch.autograd.grad(task.views(batch, Streams(4)).images.sum(), moving)
    cell = side // grid
    gap, jitter = math.ceil(cell / 8), math.floor(cell / 8)
    tile = cell - gap - jitter
    starts = np.zeros((len(batch), grid, grid, 2), dtype=int)
    for index, shown in enumerate(gradient[:, 0].numpy() > 0):
        assert shown.sum() == (grid * tile) ** 2
        edges = [line * side // grid for line in range(grid + 1)]
        for down in range(grid):
            for across in range(grid):
                part = shown[edges[down] : edges[down + 1], edges[across] : edges[across + 1]]
                rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
                assert len(rows) == len(columns) == tile
                assert part[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
                starts[index, down, across] = edges[down] + rows[0], edges[across] + columns[0]
    assert (starts[:, 1:, :, 0] - starts[:, :-1, :, 0] - tile >= gap).all()
    assert (starts[:, :, 1:, 1] - starts[:, :, :-1, 1] - tile >= gap).all()
    offsets = starts.reshape(len(batch), -1)
    assert (np.ptp(offsets, axis=0) == jitter).all()
    # Each tile moves by itself: no two of these numbers go together.
    assert np.abs(np.corrcoef(offsets.T) - np.eye(offsets.shape[1])).max() < 0.7


@pytest.mark.parametrize(("grid", "side"), SHAPES)
def test_the_target_tells_which_tile_is_where(grid, side):
    task, _ = make_bound(grid=grid, count=24)
    # Cell k is all k / T: what is seen in the middle of a place tells where it came from.
    index = torch.arange(side) * grid // side
    image = (index[:, None] * grid + index) / grid**2
    batch = Batch(images=image.expand(50, 1, side, side), ids=torch.arange(50))
    views = task.views(batch, Streams(4))
    middle = ((torch.arange(grid) + 0.5) * side / grid).long()
    seen = views.images[:, 0][:, middle][:, :, middle].flatten(1) * grid**2
    assert torch.allclose(seen, task.permutations[views.targets].float(), atol=1e-4)
    assert len(views.targets.unique()) > 15
    assert not torch.equal(views.targets, task.views(batch, Streams(5)).targets)


def test_the_loss_is_cross_entropy_over_the_permutations():
    task, network = make_bound(count=7)
    views = task.views(make_batch(), Streams(4))
    with torch.no_grad():
        outputs = network.features(views.images)
        logits = task.head(outputs).double().numpy()
        losses, scores = task.losses(outputs, views), task.scores(outputs, views)["accuracy"]
    assert logits.shape == (6, 7)
    for row, target, loss, score in zip(logits, views.targets.tolist(), losses, scores, strict=True):
        assert math.isclose(float(loss), math.log(np.exp(row).sum()) - row[target], rel_tol=1e-5)
        assert float(score) == float(row.argmax() == target)
    assert task.needs == ()
    assert not task.coupled


def test_the_permutations_are_those_of_the_reading():
    far = make_task("jigsaw", {"permutations": "original", "count": 9}).permutations
    assert not (far == torch.arange(4)).any()
    apart = make_task("jigsaw", {"count": 4}).permutations
    assert all((apart[:, place].sort().values == torch.arange(4)).all() for place in range(4))


@pytest.mark.parametrize(
    ("grid", "reading", "digest"),
    [
        (2, "pairwise", "bd65fd31e2a0a3c7"),
        (2, "original", "867123a5a502b2b2"),
        (3, "pairwise", "f0cc0b2ea9a8ac03"),
        (3, "original", "dde4aa0d9f798436"),
    ],
)
def test_the_sets_that_saved_heads_name_never_change(grid, reading, digest):
    """A head carries the reading of its set and the number of permutations: others, and old weights solve nothing."""
    found = make_task("jigsaw", {"grid": grid, "count": 24, "permutations": reading}).permutations
    assert hashlib.sha256(found.numpy().astype(np.uint8).tobytes()).hexdigest()[:16] == digest


def test_a_head_may_carry_every_reading():
    assert PuzzleHead.words["permutations"] == get_args(PermutationRule)


def test_permutations_are_learnt():
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]).T.reshape(3, 2, 2)
    image = colours.repeat_interleave(6, 1).repeat_interleave(6, 2)
    batch = Batch(images=image.expand(32, 3, 12, 12).contiguous(), ids=torch.arange(32))
    task = TaskConfig(task="jigsaw", settings={"count": 4})
    stage = Stage(StageConfig(tasks={"jigsaw": task}), Network.build(TRUNK, {}), {}, Streams(0))
    optimizer = torch.optim.Adam(stage.parameters(), lr=0.02)
    losses = []
    for step in range(40):
        found, _ = stage(batch, Streams(0).at(step))
        losses.append(float(found["jigsaw"].mean().detach()))
        optimizer.zero_grad()
        stage.total(found).backward()
        optimizer.step()
    assert losses[-1] < 0.3 < 1 < losses[0]


def test_a_reversal_takes_the_number_of_permutations_from_the_head_of_an_older_file():
    heads = {"labels": {"kind": "linear", "outputs": 3}, "jigsaw": {"kind": "linear", "outputs": 30}}
    network = Network.build(TRUNK, heads, classifier="labels", normalisation="none").eval()
    text = "reverse:task=jigsaw,grid=3,steps=6,step_size=0.01,eps=0.05,redraw=false"
    defense = make_defense(text, network, {"label": 3})
    assert defense.task.permutations.shape == (30, 9)
    batch = make_batch(16)
    found = defense.purify(batch.images, batch.ids)
    assert float(found.losses[-1].mean()) < float(found.losses[0].mean())
    assert found.model_images == 7 * 6
    assert defense.images_per_prediction == 7
    assert defense(batch.images, batch.ids).shape == (6, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"grid": 4}, "grid=4 is not allowed"),
        ({"grid": 1}, "grid=1 is not allowed"),
        ({"count": 25}, "25 permutations of 4 things"),
        ({"count": 1}, "count=1 is not allowed"),
        ({"gap": 1.0}, "gap=1.0 is not allowed"),
        ({"jitter": -0.1}, "jitter=-0.1 is not allowed"),
        ({"permutations": "far"}, "permutations='far' is not allowed"),
    ],
)
def test_bad_settings_are_refused(values, message):
    with pytest.raises(SpecError, match=message):
        make_task("jigsaw", values)


def test_images_too_small_to_cut_are_refused():
    task, _ = make_bound(gap=0.5, jitter=0.5)
    with pytest.raises(
        ImagesError, match="8 pixels into 2 cells of 4, of which gap 2 and jitter 2 leave no tile; give"
    ):
        task.views(make_batch(8), None)
    with pytest.raises(ImagesError, match="1 pixels into 2 cells of 0"):
        make_bound()[0].views(make_batch(1), None)
