"""Classifiers whose code relies on contiguous images train, are attacked and are copied as they are."""

import pytest
import torch
from torch import nn

import unfool
from unfool import Linf, ProxySettings, adapt, attacks
from unfool.core.streams import Streams
from unfool.models.fast import fast_copy
from unfool.models.foreign_network import foreign_network, load_foreign, probed_network
from unfool.models.network import Network, memory_format_of
from unfool.models.trunks import TrunkSpec
from unfool.training.probing.features import FeaturePass

IMAGES = Streams(0).uniform(torch.arange(6), (3, 8, 8))
LABELS = torch.tensor([0, 1, 2] * 2)
TABLE = unfool.Table.from_tensors(IMAGES, LABELS.tolist(), name="noise", split="train")


class Viewing(nn.Module):
    """A classifier that takes a view of its features, and one of its images."""

    def __init__(self, of_images: bool = False):
        super().__init__()
        self.of_images = of_images
        self.body = nn.Conv2d(3, 4, 3, 2, 1)
        self.out = nn.Linear(4 * 16, 3)
        for number, parameter in enumerate(self.parameters()):
            drawn = Streams(number).uniform(torch.arange(1), tuple(parameter.shape), -0.5, 0.5)
            parameter.data.copy_(drawn[0])

    def forward(self, x):
        x = x.view(len(x), -1).view(x.shape) if self.of_images else x
        return self.out(self.body(x).relu().view(len(x), -1))


class Pooling(Viewing):
    """The same without views."""

    def forward(self, x):
        return self.out(self.body(x).relu().flatten(1))


@pytest.mark.parametrize("of_images", [False, True])
def test_a_foreign_network_is_attacked_though_it_takes_views(of_images):
    module = Viewing(of_images)
    network = foreign_network(adapt(module), IMAGES)
    assert network.memory_format is torch.contiguous_format
    attack = attacks.PGD(Linf(0.1), steps=2)
    alone = attack(module, IMAGES, LABELS)
    for proxy in (None, ProxySettings()):
        attacked = attack(network, IMAGES, LABELS, proxy=proxy)
        assert torch.allclose(attacked.images, alone.images, atol=1e-6)
    assert torch.allclose(fast_copy(network)(IMAGES), module(IMAGES), atol=1e-5)
    assert torch.allclose(fast_copy(adapt(module))(IMAGES), module(IMAGES), atol=1e-5)
    crafted = unfool.craft(network, TABLE, attack, batch_size=4)
    assert crafted.images.shape == IMAGES.shape


@pytest.mark.parametrize("of_images", [False, True])
def test_a_classifier_trains_though_it_takes_views(of_images, tmp_path):
    stage = unfool.StageConfig(
        tasks={"labels": unfool.TaskConfig(task="labels")},
        steps=2,
        batch_size=4,
        perturb="pgd-1",
        threat="linf:8/255",
    )
    run = unfool.train(
        unfool.RunConfig(data="noise", stages=(stage,)), TABLE, tmp_path / "run", model=adapt(Viewing(of_images))
    )
    assert run.network(IMAGES).shape == (6, 3)
    again = load_foreign(adapt(Viewing(of_images)), tmp_path / "run" / "weights.safetensors")
    assert torch.equal(again(IMAGES), run.network(IMAGES))


def test_features_are_probed_though_the_classifier_takes_views():
    network = probed_network(adapt(Viewing(True), features="body"), IMAGES, ["body", "logits"])
    features = FeaturePass(network, ["body", "logits"], precision="fp32", device="cpu").of(TABLE, slice(0, 6))
    assert torch.allclose(features["logits"], Viewing()(IMAGES), atol=1e-5)


def test_channels_last_is_kept_where_a_classifier_takes_it():
    network = foreign_network(adapt(Pooling()), IMAGES)
    assert network.memory_format is torch.channels_last
    assert attacks.PGD(Linf(0.1))(network, IMAGES, LABELS).images.shape == IMAGES.shape
    own = Network.build(TrunkSpec(name="convnet", widths=(4, 6, 8)), {})
    assert memory_format_of(own) is torch.channels_last
    assert memory_format_of(adapt(Pooling())) is torch.preserve_format


def test_the_order_of_memory_is_no_part_of_a_networks_identity():
    network = foreign_network(adapt(Pooling()), IMAGES)
    before = unfool.identity(network)
    network.trunk.memory_format = torch.contiguous_format
    assert unfool.identity(network) == before


class Random(Pooling):
    """A classifier that gives other logits each time."""

    def forward(self, x):
        return super().forward(x) + torch.rand(len(x), 3)


def test_a_random_classifier_keeps_its_order_and_the_random_state():
    model = adapt(Random())
    state = torch.get_rng_state()
    assert foreign_network(model, IMAGES).memory_format is torch.contiguous_format
    assert torch.equal(torch.get_rng_state(), state)
