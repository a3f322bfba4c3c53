"""Passes of images with one window redrawn: the logits of whole passes, from what the window reaches."""

import pytest
import torch
from torch import nn

from unfool.core.streams import Streams
from unfool.models.fast import fast_copy
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.models.windowed import passes as windowed
from unfool.models.windowed.chains import chain_of
from unfool.models.windowed.passes import windowed_passes

COUNT = 5


def network_of(name="convnet", seed=0, **settings):
    trunk = TrunkSpec(name=name, **settings)
    network = Network.build(
        trunk, {"labels": {"kind": "linear", "outputs": 4}}, classifier="labels", streams=Streams(seed)
    )
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.copy_(Streams(1).uniform(torch.tensor([0]), (len(norm.running_mean),))[0] / 2)
                norm.bias.copy_(Streams(2).uniform(torch.tensor([0]), (len(norm.bias),))[0] / 2)
    return network.eval()


STRIDED = network_of(stem="strided", widths=[4, 6, 8])
NETWORKS = {
    "strided": STRIDED,
    "dense": network_of(widths=[4, 6, 8]),
    "vgg": network_of("vgg16", width=0.05),
    "folded": fast_copy(STRIDED),
    "bf16": fast_copy(STRIDED, dtype="bf16"),
}


def images_of(height=32, width=32, count=COUNT, seed=3):
    return Streams(seed).uniform(torch.arange(count), (3, height, width))


def free(monkeypatch):
    """Whatever is saved is worth it."""
    monkeypatch.setattr(windowed, "FEWEST_SAVED", 0)
    monkeypatch.setattr(windowed, "COPY", 0)
    monkeypatch.setattr(windowed, "COPY_BF16", 0)


def redrawn(images, windows, top, left):
    changed = images.clone()
    side = windows.shape[2]
    for image, window, y, x in zip(changed, windows, top.tolist(), left.tolist(), strict=True):
        image[:, y : y + side, x : x + side] = window
    return changed


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("side", "sides"), [(1, (32, 32)), (4, (32, 32)), (7, (37, 32)), (10, (32, 41))])
@torch.no_grad()
def test_logits_are_those_of_whole_passes(name, side, sides, monkeypatch):
    free(monkeypatch)
    network, images = NETWORKS[name], images_of(*sides)
    passes = windowed_passes(chain_of(network), network, images, side, 12)
    assert passes is not None
    tolerance = {"rtol": 0, "atol": 0.03 if name == "bf16" else 1e-5}
    streams = Streams(9)
    for step in range(5):
        # Every corner, several windows of one image, and images left out.
        slots = torch.tensor([0, 0, 1, 1, 2, 3, 3, 4, 4])[: 9 - step]
        draws = streams.at(step).uniform(torch.arange(len(slots)), (2,))
        draws[:4] = torch.tensor([[0, 0], [0, 0.999], [0.999, 0], [0.999, 0.999]])
        top, left = (draws[:, 0] * (sides[0] - side + 1)).long(), (draws[:, 1] * (sides[1] - side + 1)).long()
        windows = streams.at(step).uniform(torch.arange(len(slots)) + 50, (3, side, side))
        changed = redrawn(images[slots], windows, top, left)
        torch.testing.assert_close(passes(windows, slots, top, left), network(changed), **tolerance)
        kept = torch.tensor([1, 2, 4]) if step % 2 else torch.tensor([0, 3])
        passes.keep(kept)
        images[slots[kept]] = changed[kept]


@torch.no_grad()
def test_passes_are_whole_where_little_is_saved_or_layers_are_seen_from_outside(monkeypatch):
    images = images_of()
    chain = chain_of(STRIDED)
    assert windowed_passes(chain, STRIDED, images, 4, 5) is None, "a network so narrow is not worth it"
    free(monkeypatch)
    assert windowed_passes(chain, STRIDED, images, 4, 5) is not None
    assert windowed_passes(chain, STRIDED, images, 29, 5) is None
    assert windowed_passes(chain, lambda images: STRIDED(images) * 1.01, images, 4, 5) is None
    assert chain_of(nn.Sequential(nn.Conv2d(3, 4, 3))) is None
    watched = network_of(stem="strided", widths=[4, 6, 8])
    watched.trunk.parts["stem"][0].register_forward_hook(lambda part, inputs, output: output * 2)
    assert chain_of(watched) is None
    learning = network_of(stem="strided", widths=[4, 6, 8])
    learning.trunk.parts["block1"][2].train()
    assert chain_of(learning) is None, "statistics of the batch are those of the windows"
    normalising = network_of(stem="strided", widths=[4, 6, 8])
    normalising.trunk.parts["block1"][2] = nn.BatchNorm2d(6, track_running_stats=False).eval()
    assert len(chain_of(normalising).links) == 2
    assert normalising.trunk.parts["block1"][2] not in [
        part for link in chain_of(normalising).links for part in link.others
    ]


@torch.no_grad()
def test_links_compute_a_part_as_far_as_that_saves_more_than_copying_the_rest():
    images = torch.rand(2, 3, 32, 32)
    wide = chain_of(network_of(stem="strided", widths=[32, 64, 128]))
    assert [windowed._links_that_pay(wide, images, side) for side in (3, 4, 7, 10, 20)] == [4, 4, 4, 3, 0]
    in_bf16 = chain_of(fast_copy(network_of(stem="strided", widths=[32, 64, 128]), dtype="bf16"))
    assert [windowed._links_that_pay(in_bf16, images, side) for side in (3, 7, 20)] == [3, 3, 0]
    residual = chain_of(network_of("resnet18", width=0.5))
    assert len(residual.links) == 1, "a residual block is no link"
    assert windowed._links_that_pay(residual, images, 3) == 0
    assert windowed._links_that_pay(wide, images[:1].expand(100_000, -1, -1, -1), 3) == 0, "all features would be kept"


@torch.no_grad()
def test_a_strided_link_computes_all_where_it_is_the_last_so_that_alone_it_does_not_pay():
    images = torch.rand(2, 3, 64, 64)
    alexnet = chain_of(network_of("alexnet"))
    assert alexnet.links[0].stride > 1
    assert [windowed._links_that_pay(alexnet, images, side) for side in (1, 3, 7)] == [0, 0, 0]


@torch.no_grad()
def test_a_later_layer_may_write_into_what_the_last_link_gives():
    network, images = network_of("vgg16", width=0.05), images_of()
    first = next(iter(network.trunk.parts.values()))
    first[1], first[2] = nn.Identity(), nn.ReLU6(inplace=True)
    network.eval()
    chain = chain_of(network)
    assert len(chain.links) == 1
    passes = windowed.WindowedPasses(chain, 1, images, 4, 5)
    slots, corner = torch.arange(COUNT), torch.zeros(COUNT, dtype=torch.int64)
    for seed in (5, 6):
        windows = images_of(4, 4, seed=seed)
        images = redrawn(images, windows, corner, corner + seed)
        torch.testing.assert_close(passes(windows, slots, corner, corner + seed), network(images), rtol=0, atol=1e-5)
        passes.keep(slots)
