"""The context encoder's down-sampling path: published sizes, its layers written out, settings refused."""

import pytest
import torch
import torch.nn.functional as F

from unfool.core.errors import ImagesError, SpecError
from unfool.core.streams import Streams
from unfool.models.trunks import TrunkSpec, build_trunk


def images(side, count=2):
    return Streams(0).uniform(torch.arange(count), (3, side, side))


def make_trunk(**settings):
    return build_trunk(TrunkSpec(name="context-encoder", **{"width": 0.125, **settings})).eval()


@pytest.mark.parametrize(
    ("depth", "side", "channels"),
    [(3, 32, [8, 16, 32]), (4, 64, [8, 16, 32, 64]), (5, 128, [8, 16, 32, 64, 64]), (6, 256, [8, 16, 32, 64, 64, 64])],
)
def test_every_depth_brings_its_images_to_four_by_four(depth, side, channels):
    trunk = make_trunk(depth=depth)
    stages = [f"down{number}" for number in range(1, depth + 1)]
    assert trunk.stages == [*stages, "last"]
    assert trunk.channels == {**dict(zip(stages, channels, strict=True)), "last": 16 * channels[-1]}
    found = trunk.collect(images(side, 1), {*stages, "last"})
    for number, stage in enumerate(stages, 1):
        assert found[stage].shape == (1, channels[number - 1], side >> number, side >> number)
    assert torch.equal(found["last"], found[stages[-1]].flatten(1))


def test_other_images_are_averaged_to_four_by_four():
    trunk = make_trunk()
    expected = F.avg_pool2d(trunk(images(64), "down3"), 2).flatten(1)
    torch.testing.assert_close(trunk(images(64)), expected)
    assert trunk(images(8)).shape == (2, 512)
    with pytest.raises(ImagesError, match="needs 8 or more"):
        trunk(images(7))


def test_a_stage_is_convolution_norm_and_leaky_relu():
    trunk = make_trunk().train()
    convolution = trunk.parts["down1"][0]
    plain = F.conv2d(images(32).double(), convolution.weight.double(), stride=2, padding=1)
    normed = (plain - plain.mean((0, 2, 3), keepdim=True)) / (plain.var((0, 2, 3), False, keepdim=True) + 1e-5).sqrt()
    expected = torch.where(normed > 0, normed, 0.2 * normed)
    torch.testing.assert_close(trunk(images(32), "down1").double(), expected, atol=1e-5, rtol=0)


def test_an_unknown_depth_is_refused():
    with pytest.raises(SpecError, match="trunk 'context-encoder': depth=2 is not allowed"):
        make_trunk(depth=2)
    with pytest.raises(SpecError, match="depth=7"):
        make_trunk(depth=7)
