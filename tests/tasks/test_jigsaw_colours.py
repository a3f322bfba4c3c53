"""Jigsaw tiles whose colour channels are shifted, and images that are shown in grey."""

import itertools

import pytest
import torch

from unfool.core.batch import Batch
from unfool.core.streams import Streams
from unfool.data.colour import LUMA
from unfool.tasks import make_task
from unfool.tasks.tiles import normalised

TILES = {"form": "context-free", "grid": 3, "count": 30, "gap": 0, "jitter": 0.147}
SIDE, TILE, RANGE = 64, 18, 4


def make_batch(count=4):
    ids = torch.arange(count) * 3 + 1
    return Batch(images=Streams(1).uniform(ids, (3, SIDE, SIDE)), ids=ids)


def offsets_of(shown, image, cell):
    """Where in its cell each channel (S, S) of a tile comes from."""
    places = []
    for channel in range(3):
        for down, across in itertools.product(range(RANGE), repeat=2):
            top, left = cell // 3 * SIDE // 3 + down, cell % 3 * SIDE // 3 + across
            patch = image[None, channel : channel + 1, top : top + TILE, left : left + TILE]
            if torch.allclose(normalised(patch)[0, 0], shown[channel], atol=1e-5):
                places.append((down, across))
    return places


@pytest.mark.parametrize("shift", [1, 2])
def test_each_channel_of_a_tile_is_moved_by_itself_and_stays_in_its_cell(shift):
    task, batch = make_task("jigsaw", {**TILES, "shift": shift}), make_batch()
    views = task.views(batch, Streams(4))
    order, apart = task.permutations[views.targets], []
    for place, image in itertools.product(range(9), range(len(batch))):
        shown = views.images[place * len(batch) + image]
        places = offsets_of(shown, batch.images[image], int(order[image, place]))
        assert len(places) == 3
        apart += [
            abs(a - b) for one, other in itertools.combinations(places, 2) for a, b in zip(one, other, strict=True)
        ]
    assert max(apart) == min(2 * shift, RANGE - 1)
    assert 0 < sum(distance == 0 for distance in apart) < len(apart)


def test_a_share_of_the_images_is_grey():
    batch = make_batch(200)
    shown = make_task("jigsaw", {**TILES, "grey": 0.3}).views(batch, Streams(4)).images
    grey = (shown[:, :1] - shown).abs().amax((1, 2, 3)).unflatten(0, (9, 200)) < 1e-5
    assert torch.equal(grey.all(0), grey.any(0))
    assert 40 < int(grey[0].sum()) < 80  # 60 expected, with a deviation of 6.5
    every = make_task("jigsaw", {**TILES, "jitter": 0, "grey": 1.0}).views(batch, Streams(4)).images[:200]
    luma = sum(weight * batch.images[:, channel] for channel, weight in enumerate(LUMA))
    task = make_task("jigsaw", {**TILES, "jitter": 0, "grey": 0.0})
    plain = task.views(batch.with_images(luma[:, None].expand(-1, 3, -1, -1)), Streams(4)).images[:200]
    torch.testing.assert_close(every, plain, atol=1e-4, rtol=0)


def test_canonical_views_have_neither():
    plain, coloured = (make_task("jigsaw", {**TILES, **more}) for more in ({}, {"shift": 2, "grey": 1.0}))
    assert torch.equal(plain.views(make_batch(), None).images, coloured.views(make_batch(), None).images)
