"""Trunks: shapes and stages against sizes worked out by hand, settings refused, weights without global randomness."""

import copy
import pickle

import pytest
import torch
from torch import nn

from unfool.core.errors import ImagesError, SpecError
from unfool.core.streams import Streams
from unfool.models.trunks import TRUNKS, TrunkSpec, build_trunk, empty_trunk, trunk_spec

CIFAR = TrunkSpec(name="resnet18", stem="cifar", width=0.125)
IMAGENET = TrunkSpec(name="resnet18", stem="imagenet", width=0.125)
DENSE = TrunkSpec(name="convnet", widths=(4, 6, 8))
STRIDED = TrunkSpec(name="convnet", stem="strided", widths=(4, 6, 8))
RESNET_CHANNELS = {"stem": 8, "layer1": 8, "layer2": 16, "layer3": 32, "layer4": 64, "last": 64}
WIDE = TrunkSpec(name="wide-resnet", depth=16, width=0.5)
PREACT = TrunkSpec(name="preact-resnet18", width=0.125)
WIDE_CHANNELS = {"stem": 16, "block1": 8, "block2": 16, "block3": 32, "last": 32}
CONVNET_CHANNELS = {"stem": 4, "block1": 6, "block2": 8, "block3": 8, "last": 8}
RESNET50 = TrunkSpec(name="resnet50", width=0.125)
RESNET50_IMAGENET = TrunkSpec(name="resnet50", stem="imagenet", width=0.125)
RESNET50_CHANNELS = {"stem": 8, "layer1": 32, "layer2": 64, "layer3": 128, "layer4": 256, "last": 256}
ALEXNET = TrunkSpec(name="alexnet", stem="stride-2", width=0.125)
ALEXNET_CHANNELS = {"conv1": 12, "conv2": 32, "conv3": 48, "conv4": 48, "conv5": 32, "last": 128}
VGG = TrunkSpec(name="vgg16", width=0.125)
VGG_CHANNELS = {"pool1": 8, "pool2": 16, "pool3": 32, "pool4": 64, "pool5": 64, "last": 64}
# Sides of every stage but "last", worked out by hand from the published layouts.
CASES = [
    (CIFAR, RESNET_CHANNELS, {32: [32, 32, 16, 8, 4], 64: [64, 64, 32, 16, 8]}),
    (IMAGENET, RESNET_CHANNELS, {32: [8, 8, 4, 2, 1], 64: [16, 16, 8, 4, 2]}),
    (DENSE, CONVNET_CHANNELS, {32: [31, 15, 7, 3], 64: [63, 31, 15, 7]}),
    (STRIDED, CONVNET_CHANNELS, {32: [16, 8, 4, 2], 64: [32, 16, 8, 4]}),
    (WIDE, WIDE_CHANNELS, {32: [32, 32, 16, 8], 64: [64, 64, 32, 16]}),
    (PREACT, RESNET_CHANNELS, {32: [32, 32, 16, 8, 4], 64: [64, 64, 32, 16, 8]}),
    (RESNET50, RESNET50_CHANNELS, {32: [32, 32, 16, 8, 4], 64: [64, 64, 32, 16, 8]}),
    (RESNET50_IMAGENET, RESNET50_CHANNELS, {32: [8, 8, 4, 2, 1], 64: [16, 16, 8, 4, 2]}),
    (ALEXNET, ALEXNET_CHANNELS, {32: [8, 4, 4, 4, 2], 64: [16, 8, 8, 8, 4]}),
    (VGG, VGG_CHANNELS, {32: [16, 8, 4, 2, 1], 64: [32, 16, 8, 4, 2], 96: [48, 24, 12, 6, 3]}),
]


@pytest.mark.parametrize(("spec", "channels", "sides"), CASES)
def test_every_stage_has_its_published_shape(spec, channels, sides):
    trunk = build_trunk(spec).eval()
    assert trunk.stages == list(channels)
    assert trunk.channels == channels
    for pixels, expected in sides.items():
        images = torch.rand(2, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
        for stage, side in zip(trunk.stages, expected, strict=False):
            assert trunk(images, stage).shape == (2, channels[stage], side, side)
        assert trunk(images).shape == (2, channels["last"])


@pytest.mark.parametrize("spec", [CIFAR, DENSE, WIDE, PREACT, RESNET50, VGG])
def test_a_stage_is_the_prefix_of_the_trunk_and_later_stages_do_not_run(spec):
    trunk = build_trunk(spec).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ran = []
    for name, part in trunk.parts.items():
        part.register_forward_hook(lambda *_, name=name: ran.append(name))
    features = images
    for index, name in enumerate(trunk.stages):
        features = trunk.parts[name](features)
        ran.clear()
        assert torch.equal(trunk(images, name), features)
        assert ran == trunk.stages[: index + 1]
    ran.clear()
    found = trunk.collect(images, {trunk.stages[1], trunk.stages[2]})
    assert ran == trunk.stages[:3]
    assert all(torch.equal(found[name], trunk(images, name)) for name in trunk.stages[1:3])


@pytest.mark.parametrize("strided", [False, True])
def test_a_basic_block_is_the_sum_of_residual_and_shortcut(strided):
    part = build_trunk(CIFAR).eval().parts["layer2" if strided else "layer1"][0]
    images = torch.rand(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    first, norm1, _, second, norm2 = part.residual
    stride = 2 if strided else 1
    hidden = norm1(nn.functional.conv2d(images, first.weight, stride=stride, padding=1)).clamp_min(0)
    residual = norm2(nn.functional.conv2d(hidden, second.weight, padding=1))
    shortcut = images
    if strided:
        shortcut = part.shortcut[1](nn.functional.conv2d(images, part.shortcut[0].weight, stride=2))
    torch.testing.assert_close(part(images), (residual + shortcut).clamp_min(0))


@pytest.mark.parametrize(("stem", "count"), [("imagenet", 11_176_512), ("cifar", 11_168_832)])
def test_resnet18_has_the_published_number_of_parameters(stem, count):
    # 11,689,512 of the ImageNet classifier less its 513,000 of the last layer; the CIFAR stem is 7,680 smaller.
    trunk = TRUNKS["resnet18"](TrunkSpec(name="resnet18", stem=stem))
    assert sum(parameter.numel() for parameter in trunk.parameters()) == count


@pytest.mark.parametrize("name", sorted(set(TRUNKS) - {"convnet"}))
def test_every_trunk_can_be_built_at_half_width(name):
    """Half the channels after every stage, about a quarter of the parameters; a wide ResNet's stem has one width."""
    full = empty_trunk(TrunkSpec(name=name))
    half = empty_trunk(TrunkSpec(name=name, width=full.spec.settings.width / 2))
    fixed = {"stem"} if name == "wide-resnet" else set()
    assert half.channels == {key: count if key in fixed else count / 2 for key, count in full.channels.items()}
    counts = [sum(parameter.numel() for parameter in trunk.parameters()) for trunk in (half, full)]
    assert 0.25 < counts[0] / counts[1] < 0.26


def test_the_last_stage_pools_by_mean_in_resnet_and_by_maximum_in_convnet():
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    resnet, convnet = build_trunk(CIFAR).eval(), build_trunk(DENSE).eval()
    torch.testing.assert_close(resnet(images), resnet(images, "layer4").mean((2, 3)))
    torch.testing.assert_close(convnet(images), convnet(images, "block3").amax((2, 3)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnt18"}, "did you mean 'resnet18'"),
        ({"nam": "resnet18"}, "did you mean 'name'"),
        ({"name": 3}, "not a word"),
        ({"stem": "cifr"}, "did you mean 'cifar'"),
        ({"name": "convnet", "stem": "cifar"}, "allowed: dense, strided"),
        ({"widths": (1, 2, 3)}, "unknown setting of trunk 'resnet18': 'widths'; did you mean 'width'"),
        ({"name": "convnet", "width": 0.5}, "unknown setting of trunk 'convnet': 'width'; did you mean 'widths'"),
        ({"width": float("nan")}, "1/64 to 32"),
        ({"width": True}, "1/64 to 32"),
        ({"name": "convnet", "widths": (4, 8)}, "3 whole numbers"),
        ({"name": "convnet", "widths": (4, 8, 0)}, "3 whole numbers"),
        ({"name": "convnet", "widths": "abc"}, "3 whole numbers"),
        ({"channels": 0}, "from 1 to 1024"),
        ({"depth": 28}, "unknown setting of trunk '.*': 'depth'; allowed: channels, name, "),
        ({"name": "wide-resnt"}, "did you mean 'wide-resnet'"),
        ({"name": "wide-resnet", "depth": 29}, "give one of 10, 16, 22 and so on up to 202"),
        ({"name": "wide-resnet", "depth": 4}, "depth=4 is not allowed"),
        ({"name": "wide-resnet", "depth": 28.0}, "depth=28.0 is not allowed"),
        ({"name": "wide-resnet", "depth": "28"}, "depth='28' is not allowed"),
        ({"name": "wide-resnet", "depth": 60004}, "depth=60004 is not allowed"),
        (
            {"name": "wide-resnet", "stem": "cifar"},
            "'wide-resnet': 'stem'; allowed: channels, depth, name, width",
        ),
        ({"name": "preact-resnet18", "depth": 18}, "unknown setting of trunk '.*': 'depth'; allowed: channels, name, "),
        (
            {"name": "vgg16", "stem": "cifar"},
            "unknown setting of trunk 'vgg16': 'stem'; allowed: channels, name, width",
        ),
        ({"name": "alexnet", "stem": "dense"}, "allowed: stride-4, stride-2"),
        ({"name": "resnet50", "stem": "dense"}, "allowed: cifar, imagenet"),
    ],
)
def test_wrong_settings_are_refused_with_a_hint(settings, message):
    with pytest.raises(SpecError, match=message):
        TrunkSpec.from_dict(settings)


@pytest.mark.parametrize("spec", [spec for spec, *_ in CASES] + [TrunkSpec(), TrunkSpec(name="convnet", channels=1)])
def test_a_spec_survives_its_description(spec):
    assert TrunkSpec.from_dict(spec.to_dict()) == spec
    assert hash(TrunkSpec.from_dict(spec.to_dict())) == hash(spec)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("vgg16", TrunkSpec(name="vgg16")),
        ("wide-resnet:depth=16,width=0.5", TrunkSpec(name="wide-resnet", depth=16, width=0.5)),
        (
            "convnet:stem=strided,widths=4-6-8,channels=1",
            TrunkSpec(name="convnet", stem="strided", widths=(4, 6, 8), channels=1),
        ),
        ("alexnet:stem=stride-2", TrunkSpec(name="alexnet", stem="stride-2")),
    ],
)
def test_a_spec_is_read_from_text(text, spec):
    assert TrunkSpec.from_text(text) == spec
    assert trunk_spec(text) == trunk_spec(spec) == trunk_spec(spec.to_dict()) == spec


def test_unknown_stage_and_too_small_images_are_refused():
    trunk = build_trunk(STRIDED).eval()
    with pytest.raises(SpecError, match="did you mean 'block1'"):
        trunk(torch.zeros(1, 3, 32, 32), "blok1")
    with pytest.raises(ImagesError, match="16 or more"):
        trunk(torch.zeros(1, 3, 15, 32))
    assert trunk(torch.zeros(1, 3, 16, 16)).shape == (1, 8)
    assert build_trunk(DENSE).eval()(torch.zeros(1, 3, 9, 9)).shape == (1, 8)


def test_initial_weights_depend_on_the_streams_alone():
    state = torch.random.get_rng_state()
    first = build_trunk(CIFAR, Streams(3)).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(5)
    again, other = build_trunk(CIFAR, Streams(3)).state_dict(), build_trunk(CIFAR, Streams(4)).state_dict()
    torch.random.set_rng_state(state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    weights = [name for name in first if first[name].ndim == 4]
    assert all(not torch.equal(first[name], other[name]) for name in weights)
    assert len({float(first[name].flatten()[0]) for name in weights}) == len(weights)


def test_convolutions_start_with_the_spread_of_he_et_al():
    trunk = build_trunk(TrunkSpec(name="resnet18", width=0.5))
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            expected = (2 / (module.kernel_size[0] ** 2 * module.out_channels)) ** 0.5
            weight = module.weight.detach()
            assert float(weight.std()) == pytest.approx(expected, rel=0.05)
            assert abs(float(weight.mean())) < expected / 20


@pytest.mark.parametrize("spec", [CIFAR, DENSE, WIDE])
def test_trunks_survive_copying_and_pickling(spec):
    trunk = build_trunk(spec).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for twin in (copy.deepcopy(trunk), pickle.loads(pickle.dumps(trunk))):
        assert torch.equal(twin(images), trunk(images))
        assert twin.spec == spec
