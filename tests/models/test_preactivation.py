"""Pre-activation networks: published sizes, and the block against the paper's formula in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unfool.models.network import Network
from unfool.models.trunks import TRUNKS, TrunkSpec, build_trunk, empty_trunk
from unfool.models.trunks.preact_resnet import PreactivationBlock


@pytest.mark.parametrize(
    ("settings", "classes", "count"),
    [
        # Zagoruyko & Komodakis 2016, table 4: 36.5 M; the exact figures are those of the published checkpoints.
        ({"name": "wide-resnet"}, 10, 36_479_194),
        ({"name": "wide-resnet", "depth": 28, "width": 10}, 100, 36_536_884),
        ({"name": "wide-resnet", "depth": 34, "width": 10}, 10, 46_160_474),
        ({"name": "wide-resnet", "depth": 40, "width": 2}, 10, 2_243_546),
        ({"name": "preact-resnet18"}, 10, 11_172_170),
    ],
)
def test_the_number_of_parameters_is_the_published_one(settings, classes, count):
    trunk = empty_trunk(TrunkSpec.from_dict(settings))
    head = nn.Linear(trunk.channels["last"], classes, device="meta")
    assert all(parameter.is_meta for parameter in trunk.parameters())
    assert sum(parameter.numel() for part in (trunk, head) for parameter in part.parameters()) == count


def normalised(features, norm):
    return F.batch_norm(features, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps).relu()


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 6, 1), (4, 4, 2), (4, 8, 2)])
def test_a_block_adds_its_residual_to_what_came_in(inputs, outputs, stride):
    generator = torch.Generator().manual_seed(0)
    block = PreactivationBlock(inputs, outputs, stride).double().eval()
    with torch.no_grad():
        for tensor in block.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) - 0.3)
        for norm in (block.entry[0], block.residual[1]):
            norm.running_var.add_(0.5)
    images = torch.randn(2, inputs, 6, 6, generator=generator, dtype=torch.float64)
    given = images.clone()
    activated = normalised(images, block.entry[0])
    hidden = F.conv2d(activated, block.residual[0].weight, stride=stride, padding=1)
    residual = F.conv2d(normalised(hidden, block.residual[1]), block.residual[3].weight, padding=1)
    same = inputs == outputs and stride == 1
    assert (block.shortcut is None) == same
    # The shortcut starts behind the activation where the shape changes, before it where it does not.
    shortcut = images if same else F.conv2d(activated, block.shortcut.weight, stride=stride)
    torch.testing.assert_close(block(images), residual + shortcut)
    assert torch.equal(images, given)


@pytest.mark.parametrize(
    ("spec", "before", "blocks"),
    [
        (TrunkSpec(name="wide-resnet", depth=22, width=0.25), "block3", [3, 3, 3]),
        (TrunkSpec(name="preact-resnet18", width=0.0625), "layer4", [2, 2, 2, 2]),
    ],
)
def test_the_last_stage_normalises_activates_and_averages(spec, before, blocks):
    trunk = build_trunk(spec).eval()
    trunk.parts["last"][0].running_mean.fill_(0.1)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = normalised(trunk(images, before), trunk.parts["last"][0]).mean((2, 3))
    torch.testing.assert_close(trunk(images), expected)
    assert [len(part) for name, part in trunk.parts.items() if name not in ("stem", "last")] == blocks


SMALL = {"width": 0.125, "widths": (4, 6, 8)}


@pytest.mark.parametrize("name", sorted(TRUNKS))
def test_every_registered_trunk_keeps_the_contract(name):
    """A trunk of one new file is judged here by itself: stages, sizes, gradients, its description."""
    small = {key: value for key, value in SMALL.items() if key in TRUNKS[name].Settings.__pydantic_fields__}
    spec = TrunkSpec(name=name, **small, **({"depth": 10} if name == "wide-resnet" else {}))
    network = Network.build(spec, {"labels": {"kind": "linear", "outputs": 3}}, classifier="labels")
    assert network.trunk.stages[-1] == "last"
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    found = network.features_at(images, set(network.trunk.stages))
    assert {stage: features.shape[1] for stage, features in found.items()} == network.trunk.channels
    assert [features.ndim for features in found.values()] == [4] * (len(found) - 1) + [2]
    network(images).logsumexp(1).sum().backward()
    assert images.grad is not None
    assert bool((images.grad.flatten(1).abs().amax(1) > 0).all())
    assert all(parameter.grad is not None for parameter in network.parameters())
    rebuilt = Network.from_architecture(network.architecture)
    assert rebuilt.trunk.spec == spec
    assert rebuilt.state_dict().keys() == network.state_dict().keys()
