"""VGG-16 with batch norm: published size, its formula in float64, what a probe of each stage reads."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unfool.core.errors import ImagesError
from unfool.models.fast import fast_copy
from unfool.models.trunks import TrunkSpec, build_trunk, empty_trunk

CONFIGURATION = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]
"""Column D of the paper's table 1; "M" is a max-pool."""


def unsettled(width=0.0625):
    """A float64 trunk as after training: random statistics, scales of both signs and biases in every batch norm."""
    trunk = build_trunk(TrunkSpec(name="vgg16", width=width)).double().eval()
    generator = torch.Generator().manual_seed(2)
    for part in trunk.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.running_mean, part.running_var, part.weight.data, part.bias.data):
                tensor.copy_(torch.rand(part.num_features, generator=generator) - 0.2)
            part.running_var.add_(1.0)
    return trunk


def make_images(pixels=32):
    return torch.rand(2, 3, pixels, pixels, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_number_of_parameters_is_the_published_one():
    # 138,365,992 of the published ImageNet classifier with batch norm, less its three fully connected layers, is
    # 14,723,136 (14.72 M); 4,224 of these are biases of convolutions, which batch norm cancels.
    classifier = 25_088 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
    biases = sum(channels for channels in CONFIGURATION if channels != "M")
    trunk = empty_trunk(TrunkSpec(name="vgg16"))
    assert all(parameter.is_meta for parameter in trunk.parameters())
    assert biases == 4224
    assert sum(parameter.numel() for parameter in trunk.parameters()) == 138_365_992 - classifier - biases


@pytest.mark.parametrize("pixels", [32, 64])
def test_stages_follow_the_configuration_of_the_paper(pixels):
    trunk, features = unsettled(), make_images(pixels)
    images, state = features.clone(), iter(trunk.state_dict().values())
    stage = 0
    for entry in CONFIGURATION:
        if entry == "M":
            features, stage = F.max_pool2d(features, 2), stage + 1
            torch.testing.assert_close(trunk(images, f"pool{stage}"), features)
            continue
        weight, scale, bias, mean, variance, _ = (next(state) for _ in range(6))
        assert weight.shape[0] == entry * 0.0625
        features = F.conv2d(features, weight, padding=1)
        features = F.batch_norm(features, mean, variance, scale, bias, eps=1e-5).clamp_min(0)
    assert stage == 5
    assert next(state, None) is None
    torch.testing.assert_close(trunk(images), features.mean((2, 3)))


@pytest.mark.parametrize("width", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("pixels", [32, 64, 96])
def test_probes_read_as_many_numbers_as_the_source_says(pixels, width):
    trunk = empty_trunk(TrunkSpec(name="vgg16", width=width)).eval()
    found = trunk.collect(torch.empty(2, 3, pixels, pixels, device="meta"), set(trunk.stages))
    numbers = []
    for stage, side in trunk.probe_sizes.items():
        # Averages, never copies: no stage is smaller than what the probe takes from it.
        assert side <= found[stage].shape[-1]
        numbers.append(F.adaptive_avg_pool2d(found[stage], side).flatten(1).shape[1])
    assert list(trunk.probe_sizes) == trunk.stages[:-1]
    assert numbers == [count * width for count in (6400, 3200, 1024, 2048, 512)]


def test_of_the_three_sizes_only_64_pixels_give_the_sides_with_whole_windows():
    sides = empty_trunk(TrunkSpec(name="vgg16")).probe_sizes.values()

    def tiles(pixels):
        stages = [pixels // 2**pool for pool in range(1, 6)]
        return all(
            any(stage // window == side for window in range(1, stage + 1))
            for stage, side in zip(stages, sides, strict=True)
        )

    assert [pixels for pixels in (32, 64, 96) if tiles(pixels)] == [64]


def test_a_fast_copy_folds_every_batch_norm_and_gives_the_same_features():
    trunk, images = unsettled(), make_images(64)
    twin = fast_copy(trunk)
    assert sum(isinstance(part, nn.BatchNorm2d) for part in trunk.modules()) == 13
    assert not any(isinstance(part, nn.BatchNorm2d) for part in twin.modules())
    for stage in trunk.stages:
        torch.testing.assert_close(twin(images, stage), trunk(images, stage))


@pytest.mark.parametrize("shape", [(31, 32), (32, 31)])
def test_images_below_32_pixels_are_refused(shape):
    with pytest.raises(ImagesError, match="'vgg16' needs 32 or more"):
        empty_trunk(TrunkSpec(name="vgg16"))(torch.empty(1, 3, *shape, device="meta"))
