"""ResNet-50: published size, the bottleneck against the paper's formula in float64, folded copies."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unfool.models.fast import fast_copy
from unfool.models.trunks import TrunkSpec, build_trunk, empty_trunk
from unfool.models.trunks.resnet import BottleneckBlock


def unsettle(module):
    """Float64 and as after training: random statistics, scales and biases in every batch norm."""
    generator = torch.Generator().manual_seed(2)
    for part in module.double().eval().modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.running_mean, part.running_var, part.weight.data, part.bias.data):
                tensor.copy_(torch.rand(part.num_features, generator=generator) - 0.2)
            part.running_var.add_(1.0)
    return module


def make_images(channels=3, pixels=32):
    return torch.rand(2, channels, pixels, pixels, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("stem", "count"), [("imagenet", 23_508_032), ("cifar", 23_500_352)])
def test_the_number_of_parameters_is_the_published_one(stem, count):
    # 25,557,032 of the ImageNet classifier less its 2,049,000 of the last layer; the CIFAR stem is 7,680 smaller.
    trunk = empty_trunk(TrunkSpec(name="resnet50", stem=stem))
    assert all(parameter.is_meta for parameter in trunk.parameters())
    assert sum(parameter.numel() for parameter in trunk.parameters()) == count


def normalised(features, norm):
    return F.batch_norm(features, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)


@pytest.mark.parametrize(("inputs", "width", "stride"), [(8, 2, 1), (2, 2, 1), (8, 2, 2), (8, 4, 2)])
def test_a_bottleneck_is_the_sum_of_residual_and_shortcut(inputs, width, stride):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = unsettle(BottleneckBlock(inputs, width, stride))
    images = make_images(inputs, 7) - 0.5
    given = images.clone()
    narrow, norm1, _, middle, norm2, _, wide, norm3 = block.residual
    hidden = normalised(F.conv2d(images, narrow.weight), norm1).clamp_min(0)
    hidden = normalised(F.conv2d(hidden, middle.weight, stride=stride, padding=1), norm2).clamp_min(0)
    residual = normalised(F.conv2d(hidden, wide.weight), norm3)
    same = inputs == 4 * width and stride == 1
    assert (len(block.shortcut) == 0) == same
    shortcut = images
    if not same:
        shortcut = normalised(F.conv2d(images, block.shortcut[0].weight, stride=stride), block.shortcut[1])
    torch.testing.assert_close(block(images), (residual + shortcut).clamp_min(0))
    assert torch.equal(images, given)


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_a_fast_copy_folds_every_batch_norm_and_gives_the_same_features(stem):
    trunk = unsettle(build_trunk(TrunkSpec(name="resnet50", stem=stem, width=0.0625)))
    twin, images = fast_copy(trunk), make_images()
    # One for each of the 49 convolutions of the name and four of shortcuts; the fiftieth layer is a head.
    assert sum(isinstance(part, nn.BatchNorm2d) for part in trunk.modules()) == 49 + 4
    assert not any(isinstance(part, nn.BatchNorm2d) for part in twin.modules())
    for stage in trunk.stages:
        torch.testing.assert_close(twin(images, stage), trunk(images, stage))
    torch.testing.assert_close(trunk(images), trunk(images, "layer4").mean((2, 3)))


def test_layers_have_the_published_blocks():
    trunk = empty_trunk(TrunkSpec(name="resnet50"))
    assert [len(trunk.parts[f"layer{index}"]) for index in (1, 2, 3, 4)] == [3, 4, 6, 3]
