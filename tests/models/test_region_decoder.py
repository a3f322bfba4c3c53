"""PyTorch-GAN's decoder and discriminator: counted, their odd layer against torch's own, and a life in a file."""

import pytest
import torch
import torch.nn.functional as F

from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.models.fast import fast_copy
from unfool.models.heads import build_head, empty_head
from unfool.models.heads.region_decoder import UpConvolution
from unfool.models.initial import initialise
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec, empty_trunk
from unfool.models.weights import load_network, save_network

PLAIN = {"kind": "region-decoder", "stage": "down5", "inputs": 16, "width": 20, "outputs": 3}
JUDGED = {**PLAIN, "kind": "judged-region-decoder", "discriminator": 4}


def features(count=3, side=1, channels=16):
    return Streams(1).normal(torch.arange(count), (channels, side, side))


def pictures(count=3, side=16):
    return Streams(2).uniform(torch.arange(count), (3, side, side))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_generator_and_discriminator_have_the_published_layers():
    sizes = {"inputs": 512, "width": 4000, "discriminator": 64}
    head = empty_head({**JUDGED, **sizes})
    assert count(head[0]) + count(empty_trunk(TrunkSpec(name="gan-encoder"))) == 40_401_187
    assert [layer.out_channels for layer in head[0] if hasattr(layer, "out_channels")] == [4000, 512, 256, 128, 64, 3]
    convolutions = [layer for layer in head.discriminator if isinstance(layer, torch.nn.Conv2d)]
    assert [(layer.out_channels, layer.stride[0]) for layer in convolutions] == [
        (64, 2),
        (128, 2),
        (256, 2),
        (512, 1),
        (1, 1),
    ]
    assert sum(isinstance(layer, torch.nn.InstanceNorm2d) for layer in head.discriminator) == 3
    assert count(head.discriminator) == 1_555_585


@pytest.mark.parametrize("side", [1, 2])
def test_a_picture_has_sixteen_times_the_side_of_the_features_and_lies_in_the_unit_range(side):
    head = build_head(PLAIN).train()
    picture = head(100 * features(4, side)).detach()
    assert picture.shape == (4, 3, 16 * side, 16 * side)
    assert 0 <= float(picture.min()) < float(picture.max()) <= 1


def test_what_a_single_position_does_not_see_of_a_kernel_is_not_multiplied_and_the_result_is_the_same():
    layer = initialise(UpConvolution(6, 5), Streams(3))
    with torch.no_grad():
        layer.bias.normal_(generator=torch.Generator().manual_seed(0))
    for side in (1, 2, 3):
        given = features(4, side, 6).requires_grad_()
        expected = F.conv_transpose2d(given, layer.weight, layer.bias, stride=2, padding=1)
        shown = layer(given)
        torch.testing.assert_close(shown, expected, atol=1e-5, rtol=0)
        gradients = [torch.autograd.grad(out.square().sum(), [given, layer.weight]) for out in (shown, expected)]
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_transposed_convolutions_keep_the_size_of_what_goes_through_them():
    layer = initialise(torch.nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1), Streams(0))
    shown = layer(features(8, 8, 64).relu())[:, :, 2:-2, 2:-2]
    assert float(shown.detach().square().mean()) == pytest.approx(1.0, rel=0.15)  # E relu(z)² is 1/2, and the gain is 2


@pytest.mark.parametrize("description", [PLAIN, JUDGED])
def test_it_survives_a_weights_file_and_a_fast_copy(tmp_path, description):
    network = Network.build(TrunkSpec(name="gan-encoder", width=1 / 32), {"fill": description}, streams=Streams(3))
    with torch.no_grad():
        network.train().heads["fill"](features(8))
    save_network(network.eval(), tmp_path / "weights.safetensors")
    again = load_network(tmp_path / "weights.safetensors")
    assert again.heads["fill"].description == description
    assert torch.equal(again.heads["fill"](features()), network.heads["fill"](features()))
    twin = fast_copy(network).heads["fill"]
    torch.testing.assert_close(twin(features()), network.heads["fill"](features()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [9, 16, 32])
def test_verdicts_are_one_a_patch_and_no_business_of_batch_mates(side):
    head = build_head(JUDGED).train()
    verdicts = head.discriminate(pictures(4, side))
    assert verdicts.shape == (4, -(-side // 8), -(-side // 8))
    torch.testing.assert_close(head.discriminate(pictures(4, side)[2:3]), verdicts[2:3], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"inputs": 7}, "give 8 or more"), ({"width": 0}, "width of head"), ({"side": 16}, "unknown setting of head")],
)
def test_wrong_descriptions_are_refused(changed, message):
    with pytest.raises(SpecError, match=message):
        build_head({**PLAIN, **changed})
