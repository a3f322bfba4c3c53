"""AlexNet: its published size, its formula in float64 at either stem, its sides for tiles and for whole images."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unfool.models.fast import fast_copy
from unfool.models.trunks import TrunkSpec, build_trunk, empty_trunk

CHANNELS = {"conv1": 96, "conv2": 256, "conv3": 384, "conv4": 384, "conv5": 256}


def unsettled(stem):
    """A float64 trunk as after training: random statistics, scales of both signs and biases in every batch norm."""
    trunk = build_trunk(TrunkSpec(name="alexnet", stem=stem, width=0.0625)).double().eval()
    generator = torch.Generator().manual_seed(2)
    for part in trunk.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.running_mean, part.running_var, part.weight.data, part.bias.data):
                tensor.copy_(torch.rand(part.num_features, generator=generator) - 0.2)
            part.running_var.add_(1.0)
    return trunk


def make_images(side):
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_number_of_parameters_follows_from_the_published_one():
    # 60,965,224 of the published classifier, less its three fully connected layers and its biases, which batch norm
    # replaces; its second, fourth and fifth convolutions have two groups, and so half of the weights here.
    layers = (9216 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000
    biases = sum(CHANNELS.values())
    halves = 25 * 256 * 48 + 9 * 384 * 192 + 9 * 256 * 192
    trunk = empty_trunk(TrunkSpec(name="alexnet"))
    count = sum(parameter.numel() for parameter in trunk.parameters())
    assert count == 60_965_224 - layers - biases + halves + 2 * biases


@pytest.mark.parametrize(("stem", "stride"), [("stride-4", 4), ("stride-2", 2)])
@pytest.mark.parametrize("side", [18, 64])
def test_stages_follow_the_paper(stem, stride, side):
    trunk, images = unsettled(stem), make_images(side)
    features, state = images, iter(trunk.state_dict().values())
    for stage, kernel, pooled in (("conv1", 11, 1), ("conv2", 5, 1), ("conv3", 3, 0), ("conv4", 3, 0), ("conv5", 3, 1)):
        weight, scale, bias, mean, variance, _ = (next(state) for _ in range(6))
        assert weight.shape[0] == CHANNELS[stage] * 0.0625
        assert weight.shape[2:] == (kernel, kernel)
        features = F.conv2d(features, weight, stride=stride if stage == "conv1" else 1, padding=kernel // 2)
        features = F.batch_norm(features, mean, variance, scale, bias, eps=1e-5).clamp_min(0)
        if pooled:
            features = F.max_pool2d(features, 3, stride=2, padding=1)
        torch.testing.assert_close(trunk(images, stage), features)
    assert next(state, None) is None
    torch.testing.assert_close(trunk(images), F.adaptive_avg_pool2d(features, 2).flatten(1))


def test_the_last_features_are_the_means_of_the_four_quarters():
    trunk, images = unsettled("stride-2"), make_images(64)
    quarters = trunk(images, "conv5").reshape(2, 16, 2, 2, 2, 2).mean((3, 5))
    torch.testing.assert_close(trunk(images), quarters.flatten(1))
    assert trunk.channels["last"] == 4 * 16


@pytest.mark.parametrize(
    ("stem", "side", "sides"),
    [
        ("stride-4", 224, [28, 14, 14, 14, 7]),
        ("stride-2", 64, [16, 8, 8, 8, 4]),
        ("stride-2", 18, [5, 3, 3, 3, 2]),
        ("stride-4", 1, [1, 1, 1, 1, 1]),
    ],
)
def test_sides_for_whole_images_and_for_tiles(stem, side, sides):
    trunk = empty_trunk(TrunkSpec(name="alexnet", stem=stem)).eval()
    found = trunk.collect(torch.empty(2, 3, side, side, device="meta"), set(trunk.stages))
    assert trunk.stages == [*CHANNELS, "last"]
    for (stage, channels), expected in zip(CHANNELS.items(), sides, strict=True):
        assert found[stage].shape == (2, channels, expected, expected)
    assert found["last"].shape == (2, trunk.channels["last"]) == (2, 1024)


def test_a_fast_copy_folds_every_batch_norm_and_gives_the_same_features():
    trunk, images = unsettled("stride-2"), make_images(32)
    twin = fast_copy(trunk)
    assert sum(isinstance(part, nn.BatchNorm2d) for part in trunk.modules()) == 5
    assert not any(isinstance(part, nn.BatchNorm2d) for part in twin.modules())
    for stage in trunk.stages:
        torch.testing.assert_close(twin(images, stage), trunk(images, stage))
