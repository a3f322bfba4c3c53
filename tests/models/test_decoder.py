"""Decoders and their discriminator: shapes, the channel-wise layer against NumPy, and who gets gradients."""

import numpy as np
import pytest
import torch

from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.models.fast import fast_copy
from unfool.models.heads import build_head
from unfool.models.heads.decoder import SIDES
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.models.weights import load_network, save_network

PLAIN = {"kind": "decoder", "stage": "block2", "inputs": 6, "width": 8, "side": 16, "outputs": 3}
JUDGED = {**PLAIN, "kind": "judged-decoder", "discriminator": 4}


def features(count=3, side=5, channels=6):
    return Streams(1).normal(torch.arange(count), (channels, side, side))


def pictures(count=3, side=8):
    return Streams(2).uniform(torch.arange(count), (3, side, side))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("given", [1, 3, 4, 7, 8])
def test_a_picture_has_the_side_that_was_asked_for_whatever_the_features(side, given):
    head = build_head({**PLAIN, "side": side}).eval()
    with torch.no_grad():
        found = head(features(2, given))
    assert found.shape == (2, 3, side, side)
    assert 0 <= float(found.min()) < float(found.max()) <= 1


def test_width_is_halved_as_often_as_the_size_is_doubled():
    head = build_head({**PLAIN, "width": 10, "side": 64})
    widths = [layer.out_channels for layer in head[0] if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [10, 160, 5, 2, 1, 1, 3]


def test_the_channel_wise_layer_is_fully_connected_within_a_channel_and_not_across():
    head = build_head(PLAIN).eval()
    layer = head[0][4]
    found = head[0][4:7](features(2, 4, 8)).detach().numpy()
    weight = layer.weight.detach().double().numpy().reshape(8, 16, 16)
    for view, image in zip(found, features(2, 4, 8).double().numpy(), strict=True):
        for channel in range(8):
            expected = weight[channel] @ image[channel].reshape(16)
            assert np.allclose(view[channel].reshape(16), expected, atol=1e-5)


@pytest.mark.parametrize("description", [PLAIN, JUDGED])
def test_a_decoder_survives_a_weights_file_and_a_fast_copy(tmp_path, description):
    trunk = TrunkSpec(name="convnet", widths=(3, 6, 6))
    network = Network.build(trunk, {"fill": description}, streams=Streams(3)).train()
    with torch.no_grad():
        network.heads["fill"](features(8))
    save_network(network.eval(), tmp_path / "weights.safetensors")
    again = load_network(tmp_path / "weights.safetensors")
    assert again.heads["fill"].description == description
    assert torch.equal(again.heads["fill"](features()), network.heads["fill"](features()))
    twin = fast_copy(network).heads["fill"]
    torch.testing.assert_close(twin(features()), network.heads["fill"](features()), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"side": 20}, "give one of 8, 16, 32"),
        ({"side": 1 << 20}, "give one of 8, 16, 32"),
        ({"width": 0}, "width of head 'decoder' is 0"),
        ({"stage": 3}, "stage of head 'decoder' is 3; give a name"),
        ({"stage": ""}, "give a name"),
        ({"stage": "x" * 81}, "give a name"),
        ({"stag": "block2"}, "did you mean 'stage'"),
        ({"discriminator": 4}, "unknown setting of head 'decoder'"),
        ({"kind": "judged-decoder"}, "discriminator of head 'judged-decoder' is None"),
    ],
)
def test_wrong_descriptions_are_refused(changed, message):
    with pytest.raises(SpecError, match=message):
        build_head({**PLAIN, **changed})


@pytest.mark.parametrize("side", [8, 11, 16, 32])
def test_verdicts_are_one_number_a_picture_whatever_its_mates(side):
    head = build_head(JUDGED).train()
    found = head.discriminate(pictures(4, side))
    assert found.shape == (4,)
    torch.testing.assert_close(head.discriminate(pictures(4, side)[2:3]), found[2:3], atol=1e-5, rtol=0)
    assert len(set(found.tolist())) == 4


def test_the_discriminator_gets_gradients_only_if_it_learns():
    head = build_head(JUDGED)
    shown = pictures().requires_grad_()
    (still,) = torch.autograd.grad(head.discriminate(shown).sum(), shown, retain_graph=True)
    head.discriminate(shown).sum().backward()
    assert all(parameter.grad is None for parameter in head.discriminator.parameters())
    (learning,) = torch.autograd.grad(head.discriminate(shown, learning=True).sum(), shown)
    assert float(still.abs().sum()) > 0
    torch.testing.assert_close(still, learning)
    head.discriminate(shown, learning=True).sum().backward()
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in head.discriminator.parameters())
