"""Scripts of fast copies: the same bits, and only of modules that are the same function for every image."""

import pytest
import torch
from torch import nn

from unfool.attacks import ProxySettings
from unfool.models.foreign import adapt
from unfool.models.outside import scripted
from unfool.models.outside.scripted import Scripted


class Small(nn.Module):
    """A classifier that may decide by its images, count its calls or be random."""

    def __init__(self, way=""):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
        self.way, self.calls = way, 0

    def forward(self, images):
        self.calls += 1
        features = self.first(images).relu()
        if self.way == "random":
            features = features + 0.1 * torch.randn_like(features)
        if self.way == "counting":
            features = features * (1 + self.calls % 2)
        if self.way == "deciding" and bool((features.amax() > 0.9).any()):
            features = -features
        return self.head(features.mean((2, 3)))


def images(count):
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize(("way", "possible"), [("", True), ("random", False), ("counting", False), ("deciding", False)])
@torch.no_grad()
def test_what_is_the_same_function_for_every_image_is_scripted_with_the_same_bits(way, possible, monkeypatch):
    monkeypatch.setattr(scripted, "_FIRST_PASSES", 3)
    module = Small(way).eval()
    fast = Scripted(module)
    for _ in range(3):
        fast(images(6))
    assert (fast.script is not None) == possible
    if possible:
        before = module.calls
        for count in (1, 2, 6, 9):
            assert torch.equal(fast(images(count)), module(images(count)))
        assert module.calls == before + 4


def test_gradients_come_from_the_module_and_copies_of_classifiers_are_scripted(monkeypatch):
    monkeypatch.setattr(scripted, "_FIRST_PASSES", 1)
    classifier = adapt(Small().eval(), mean="cifar10", std="cifar10")
    fast = ProxySettings().copy(classifier, images(4))
    with torch.no_grad():
        torch.testing.assert_close(fast(images(4)), classifier(images(4)), atol=1e-5, rtol=1e-5)
    assert fast.module.script is not None
    assert type(classifier.module) is Small
    leaf = images(4).requires_grad_()
    (gradient,) = torch.autograd.grad(fast(leaf).logsumexp(1).sum(), leaf)
    assert gradient.any()
