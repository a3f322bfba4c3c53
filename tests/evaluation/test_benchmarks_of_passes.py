"""What benchmarks count as passes: every image that goes through a network, however its layers are called."""

import pytest
import torch
from torch import nn

from unfool.attacks import ProxySettings, make_attack
from unfool.attacks.engines import square
from unfool.attacks.engines.square_passes import WindowPasses
from unfool.core.errors import ImagesError
from unfool.core.streams import Streams
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.models.windowed import passes as windowed

COUNT = 6


def small_network():
    spec = TrunkSpec(name="convnet", stem="strided", widths=[4, 6, 8])
    heads = {"labels": {"kind": "linear", "outputs": 4}}
    return Network.build(spec, heads, classifier="labels", streams=Streams(0)).eval()


def attacked(program, attack, dtype):
    """Passes as the benchmarks count them, and the images that the attack says it sent through the network."""
    network, images = small_network(), Streams(3).uniform(torch.arange(COUNT), (3, 16, 16))
    labels, proxy = network(images).argmax(1), ProxySettings(dtype=dtype)
    copied = proxy.copy(network)
    with program("passes").counted() as passes:
        result = make_attack(attack, "linf:0.02")(network, images, labels, proxy=proxy, proxy_model=copied)
    return passes, result.model_images


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("attack", ["pgd-5", "fab:steps=5", "fab-t:steps=5,targets=3", "square-60"])
def test_passes_are_those_that_an_attack_counts(program, attack, dtype):
    passes, model_images = attacked(program, attack, dtype)
    assert passes.forward == model_images
    assert (passes.backward > 0) == (attack != "square-60")


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_windowed_pass_counts_once_however_many_layers_it_calls(program, dtype, monkeypatch):
    for name in ("FEWEST_SAVED", "COPY", "COPY_BF16"):  # Whatever is saved is worth it.
        monkeypatch.setattr(windowed, name, 0)
    kinds, passes_for, calls = [], square.passes_for, []
    monkeypatch.setattr(square, "passes_for", lambda *parts: kinds.append(passes := passes_for(*parts)) or passes)
    convolution = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda *parts: calls.append(len(parts[1])) or convolution(*parts))
    passes, model_images = attacked(program, "square-60", dtype)
    assert any(isinstance(kind, WindowPasses) for kind in kinds)
    assert sum(calls) > model_images, "their layers see more images than that"
    assert passes.forward == model_images


def test_nothing_is_counted_behind_the_end_and_after_an_error(program):
    network, images = small_network(), torch.zeros(COUNT, 3, 16, 16)
    before = windowed.WindowedPasses.__init__, windowed.WindowedPasses.__call__
    with pytest.raises(ImagesError), program("passes").counted() as passes:
        network(images[:, :1])
    with program("passes").counted() as later:
        network(images)
    network(images)
    assert later.forward == COUNT
    assert passes.forward == COUNT, "a call that fails is one"
    assert before == (windowed.WindowedPasses.__init__, windowed.WindowedPasses.__call__)
