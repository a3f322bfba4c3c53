"""PyTorch-GAN's encoder: its layers and sizes, counted and written out."""

import pytest
import torch
import torch.nn.functional as F

from unfool.core.errors import ImagesError
from unfool.core.streams import Streams
from unfool.models.trunks import TrunkSpec, build_trunk, empty_trunk


def images(side, count=2):
    return Streams(0).uniform(torch.arange(count), (3, side, side))


def test_it_has_the_published_layers_and_2_8_million_parameters():
    trunk = empty_trunk(TrunkSpec(name="gan-encoder"))
    assert sum(parameter.numel() for parameter in trunk.parameters()) == 2_824_064
    assert trunk.channels == {"down1": 64, "down2": 64, "down3": 128, "down4": 256, "down5": 512, "last": 512}
    kinds = [[type(layer).__name__ for layer in trunk.parts[stage]] for stage in trunk.stages[:2]]
    assert kinds == [["Convolution", "LeakyReLU"], ["Convolution", "BatchNorm2d", "LeakyReLU"]]
    first, _ = trunk.parts["down1"]
    assert (first.kernel_size, first.stride, first.padding, first.bias is None) == ((4, 4), (2, 2), (1, 1), False)


def test_32_pixels_end_at_one_position_and_more_are_averaged():
    trunk = build_trunk(TrunkSpec(name="gan-encoder", width=0.125)).eval()
    stages = trunk.collect(images(32), set(trunk.stages))
    assert [tuple(stages[stage].shape[1:]) for stage in trunk.stages] == [
        (8, 16, 16),
        (8, 8, 8),
        (16, 4, 4),
        (32, 2, 2),
        (64, 1, 1),
        (64,),
    ]
    torch.testing.assert_close(trunk(images(64)), F.avg_pool2d(trunk(images(64), "down5"), 2).flatten(1))
    with pytest.raises(ImagesError, match="needs 32 or more"):
        trunk(images(31))


def test_a_stage_normalises_with_the_published_epsilon_and_begins_with_the_published_weights():
    trunk = build_trunk(TrunkSpec(name="gan-encoder", width=0.25)).train()
    convolution = trunk.parts["down2"][0]
    assert float(convolution.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    below = trunk(images(32, 4), "down1").double()
    plain = F.conv2d(below, convolution.weight.double(), stride=2, padding=1)
    normed = (plain - plain.mean((0, 2, 3), keepdim=True)) / (plain.var((0, 2, 3), False, keepdim=True) + 0.8).sqrt()
    expected = torch.where(normed > 0, normed, 0.2 * normed)
    torch.testing.assert_close(trunk(images(32, 4), "down2").double(), expected, atol=1e-5, rtol=0)
