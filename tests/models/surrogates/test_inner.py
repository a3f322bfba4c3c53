"""The classifier inside a model that wraps one is found, whatever is around it; an ordinary network has none."""

import pytest
import torch
import torch.nn.functional as F
from masking_layers import Behind, Rounding, images, network
from torch import nn

import unfool
from unfool.models.surrogates.inner import inner_classifiers


class Around(nn.Module):
    """Members, and what is made of their logits."""

    def __init__(self, make, *members):
        super().__init__()
        self.make = make
        self.members = nn.ModuleList(members)

    def forward(self, x):
        return self.make([member(x) for member in self.members])


def vote(outputs):
    return torch.stack([F.one_hot(output.argmax(1), 4).float() for output in outputs]).mean(0)


class Purifying(nn.Module):
    """Takes its own gradient, moves the image along it, and classifies."""

    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, x):
        with torch.enable_grad():
            moving = x.detach().clone().requires_grad_()
            slope = torch.autograd.grad(self.network(moving).amax(1).sum(), moving)[0]
        return self.network((x + 0.02 * slope.sign()).clamp(0, 1).detach())


class NoisyCopies(nn.Module):
    """Averages the network's logits over noisy copies."""

    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, x):
        copies = torch.cat([x + 0.05 * step for step in (-1, 0, 1)]).clamp(0, 1)
        return self.network(copies).softmax(1).view(3, len(x), -1).mean(0)


class Heads(nn.Module):
    """Two linear heads on features, whose smaller logit counts for each class."""

    def __init__(self):
        super().__init__()
        whole = network()
        self.body, self.first, self.second = whole[:-1], whole[-1], network()[-1]

    def forward(self, x):
        features = self.body(x)
        return torch.minimum(self.first(features), self.second(features)).clamp(max=0.1)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (Behind(lambda x: (x * 6).round() / 6, network()), ("inner",)),
        (Purifying(), ("network",)),
        (NoisyCopies(), ("network",)),
        (Around(vote, network(), network()), ("members.0", "members.1")),
        (Around(lambda outputs: outputs[0].softmax(1), network()), ("members.0",)),
        (Behind(lambda x: (x - 0.5) / 0.25, Behind(lambda x: x + 0.3 * (x * 60).sin(), network())), ("inner.inner",)),
    ],
    ids=["quantised", "purifying", "copies", "voting", "softmax", "nested"],
)
def test_what_is_around_a_classifier_is_left_out(model, names):
    inner = inner_classifiers(model.eval(), images())
    assert inner.names == names
    assert not inner.heads
    assert inner.bare(model)(images()).shape == (16, 4)
    same = inner.bare(model)(images()).argmax(1) == model(images()).argmax(1)
    assert same.double().mean() >= 0.6


def test_a_bare_classifier_gets_images_in_the_scale_that_the_model_gives_it():
    scaled = network()
    with torch.no_grad():
        scaled[0].weight /= 4
    model = Behind(lambda x: ((x * 8).round() / 8 - 0.1) * 4, scaled)
    inner = inner_classifiers(model, images())
    same = inner.bare(model)(images()).argmax(1) == model(images()).argmax(1)
    assert same.double().mean() > 0.8


def test_heads_on_features_are_averaged_in_the_models_own_pass():
    model = Heads().eval()
    inner = inner_classifiers(model, images())
    assert inner.heads
    features = model.body(images())
    expected = (model.first(features) + model.second(features)) / 2
    assert torch.equal(inner.bare(model)(images()), expected)


@pytest.mark.parametrize(
    "model",
    [
        network(),
        nn.Sequential(nn.Sequential(network()[:3]), network()[3:]),
        Behind(lambda x: (x - 0.5) / 0.25, network()),
        Around(lambda outputs: 1000 * outputs[0], network()),
        Around(lambda outputs: outputs[0] + outputs[1], network(), network(seed=1)),
        network(Rounding()),
    ],
    ids=["plain", "nested", "normalised", "sharpened", "summed", "masked"],
)
def test_nothing_is_found_where_nothing_is_wrapped(model):
    assert inner_classifiers(model.eval(), images()) is None


def test_an_adapted_module_and_a_network_of_this_library_wrap_nothing():
    adapted = unfool.adapt(network(), mean=[0.5] * 3, std=[0.25] * 3)
    assert inner_classifiers(adapted, images()) is None
    spec = unfool.TrunkSpec(name="convnet", widths=(4, 8, 8))
    own = unfool.Network.build(spec, {"labels": {"kind": "linear", "outputs": 4}}, classifier="labels").eval()
    assert inner_classifiers(own, images().repeat(1, 1, 3, 3)) is None


def test_what_is_found_leaves_the_model_as_it_was():
    model = Purifying()
    inner_classifiers(model, images())
    assert not any(part._forward_hooks for part in model.modules())
    assert model.training


class Misleading(nn.Module):
    """Has the network's logits, and the gradient of the network on mirrored images, or none."""

    def __init__(self, mirrored):
        super().__init__()
        self.network = network()
        self.mirrored = mirrored

    def forward(self, x):
        if not self.mirrored:
            return self.network(x.detach())
        other = self.network(1 - x.flip(2, 3))
        return self.network(x).detach() + other - other.detach()


@pytest.mark.parametrize("mirrored", [True, False])
def test_a_network_behind_the_gradient_of_another_function_is_found(mirrored):
    model = Misleading(mirrored)
    inner = inner_classifiers(model, images(8))
    assert inner is not None
    assert inner.names == ("network",)
    assert torch.allclose(inner.bare(model)(images(8)), model(images(8)), atol=1e-5)
