"""Parts of a model without a usable gradient are found by probing, and honest ones are not."""

import numpy as np
import pytest
import torch
from masking_layers import (
    Backwards,
    Behind,
    Detached,
    Functional,
    MeanSparse,
    Residual,
    Rounding,
    Sign,
    SteppedSparse,
    TopK,
    WrongGradient,
    drawn,
    images,
    network,
)
from torch import nn

from unfool.models.network import Network
from unfool.models.surrogates.probing import probe
from unfool.models.surrogates.straight_through import StraightThrough
from unfool.models.trunks import TrunkSpec

EPS = 0.05


def probed(model, batch=None):
    batch = images() if batch is None else batch
    signs = (batch * 1e6).round().remainder(2) * 2 - 1
    return probe(model, batch, [(batch + share * EPS * signs).clamp(0, 1) for share in (1 / 64, 1 / 16, 1 / 4, 1)])


def gradient(model, batch):
    """The gradient of logits by images, of some weighted sum."""
    leaves = batch.clone().requires_grad_()
    weights = torch.arange(4.0) - 1.3
    return torch.autograd.grad((model(leaves) * weights).sum(), leaves, allow_unused=True)[0]


@pytest.mark.parametrize(
    "layer",
    [None, nn.Sigmoid(), nn.GELU(), nn.Hardtanh(-0.1, 0.1), nn.MaxPool2d(3, 1, 1), nn.Softmax(1), nn.Dropout(0.5)],
    ids=lambda layer: type(layer).__name__,
)
def test_honest_layers_are_left_alone(layer):
    assert probed(network(layer)).masked == ()


def test_an_honest_network_of_this_library_is_left_alone():
    spec = TrunkSpec(name="convnet", widths=(4, 8, 8))
    model = Network.build(spec, {"labels": {"kind": "linear", "outputs": 4}}, classifier="labels").eval()
    assert probed(model, torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))).masked == ()


@pytest.mark.parametrize(
    "layer",
    [MeanSparse(0.2), MeanSparse(0.5), SteppedSparse(), TopK(), Rounding(), Sign(), WrongGradient()],
    ids=lambda layer: type(layer).__name__,
)
def test_a_masking_layer_is_named_and_led_past(layer):
    model = network(layer)
    blocked = probed(model)
    assert [piece.words for piece in blocked.masked] == [f"1 ({type(layer).__name__})"]
    assert blocked.can_help
    surrogate, batch = blocked.surrogate(model), images(seed=4)
    assert torch.equal(surrogate(batch), model(batch))
    led = gradient(surrogate, batch)
    # The gradient of the network without the layer, where the layer changes little.
    around = blocked.masked[0].bridge.sources[0][1]
    assert min(around if isinstance(around, tuple) else (around,)) > 0
    assert led.abs().sum() > 0
    if around == 1.0:
        values = network(nn.Identity())
        cosine = torch.cosine_similarity(led.flatten(1), gradient(values, batch).flatten(1))
        assert cosine.mean() > 0.4


class ScaledSparse(nn.Module):
    """A scale for each channel, and a sparsifier behind it in the same module."""

    def forward(self, x):
        scaled = x * torch.tensor([0.3, 1.0, 2.0, -0.7, 4.0, 0.6]).view(1, -1, 1, 1)
        return torch.where(scaled.abs() < 0.1, 0.0, scaled)


def test_each_channel_is_led_past_by_the_scale_that_shows_where_its_gradient_passes():
    class Straight(ScaledSparse):
        def forward(self, x):
            scaled = x * torch.tensor([0.3, 1.0, 2.0, -0.7, 4.0, 0.6]).view(1, -1, 1, 1)
            return scaled + (super().forward(x) - scaled).detach()

    model, batch = network(ScaledSparse()), images()
    led = gradient(probed(model).surrogate(model), batch)
    assert torch.allclose(led, gradient(network(Straight()), batch), atol=1e-5)


def test_what_is_led_past_is_the_straight_through_gradient():
    model = network(SteppedSparse())
    batch = images()

    class Straight(nn.Module):
        def forward(self, x):
            return x + (SteppedSparse()(x) - x).detach()

    assert torch.allclose(gradient(probed(model).surrogate(model), batch), gradient(network(Straight()), batch))


@pytest.mark.parametrize(
    ("change", "slope"),
    [(lambda x: (x * 5).round() / 5, 1.0), (lambda x: x.detach() * 0.9 + 0.05, 0.9), (Backwards.apply, 1.0)],
)
def test_functions_before_a_network_are_led_past(change, slope):
    model = Behind(change, network())
    blocked = probed(model)
    assert [piece.words for piece in blocked.masked] == ["what comes before inner.0 (Conv2d)"]
    batch = images(seed=4)
    reached = change(batch).detach()
    assert torch.allclose(gradient(blocked.surrogate(model), batch), slope * gradient(network(), reached), atol=1e-5)


def test_a_sparsified_sum_of_two_paths_gets_the_gradient_of_both():
    model = drawn(Residual())
    blocked = probed(model, images(64))
    assert len(blocked.masked) == 1
    assert {place.module for place, _ in blocked.masked[0].bridge.sources} <= {"left", "right", ""}
    led = gradient(blocked.surrogate(model), images())
    assert (led == 0).sum() == 0


def test_functions_that_round_are_passed_through_where_no_layer_shows_them():
    model = drawn(Functional())
    batch = images()
    assert not gradient(model, batch).any()
    blocked = probed(model)
    assert blocked.uncut
    surrogate = blocked.surrogate(model)
    assert torch.equal(surrogate(batch), model(batch))
    weights = torch.arange(4.0) - 1.3
    expected = (8 * weights @ model.weight).view(1, 3, 6, 6).expand(16, -1, -1, -1)
    assert torch.allclose(gradient(surrogate, batch), expected, atol=1e-5)


def read_in_numpy(x):
    return torch.from_numpy(np.round(x.detach().numpy() * 5).astype(np.float32) / 5)


class WithoutGradient(nn.Module):
    """The network, whose first layers run where nothing records a gradient."""

    def __init__(self, cut):
        super().__init__()
        self.inner, self.cut = network(), cut

    def forward(self, x):
        if self.cut == "no_grad":
            with torch.no_grad():
                features = self.inner[:4](x)
        elif self.cut == "set_grad_enabled":
            torch.set_grad_enabled(False)
            features = self.inner[:4](x)
            torch.set_grad_enabled(True)
        else:
            features = {"detach": lambda y: y.detach(), "data": lambda y: y.data}[self.cut](self.inner[:4](x))
        return self.inner[4:](features)


@pytest.mark.parametrize("cut", ["no_grad", "set_grad_enabled", "detach", "data"])
def test_gradients_flow_where_a_model_turns_them_off(cut):
    model, batch = WithoutGradient(cut), images(seed=4)
    assert not model(batch.clone().requires_grad_()).requires_grad or not gradient(model, batch)
    blocked = probed(model)
    assert blocked.masked
    surrogate = blocked.surrogate(model)
    assert torch.equal(surrogate(batch.clone().requires_grad_()), model(batch))
    assert torch.allclose(gradient(surrogate, batch), gradient(network(), batch), atol=1e-6)
    assert torch.is_grad_enabled()


class Doubled(nn.Module):
    """What `Detached` gives, with its gradient."""

    def forward(self, x):
        return 2 * x


def test_a_layer_that_detaches_is_named_and_has_the_gradient_of_what_it_gives():
    blocked = probed(network(Detached()))
    assert [piece.words for piece in blocked.masked] == ["1 (Detached)"]
    assert blocked.can_help
    surrogate, batch = blocked.surrogate(network(Detached())), images(seed=4)
    assert torch.equal(surrogate(batch.clone().requires_grad_()), network(Detached())(batch))
    assert torch.allclose(gradient(surrogate, batch), gradient(network(Doubled()), batch), atol=1e-6)


@pytest.mark.parametrize(
    "quantised",
    [
        lambda x: (x * 7 + 0.5).to(torch.uint8).float() / 7,
        lambda x: (x * 7 + 0.5).int() / 7,
        lambda x: (x * 7).round() / 7,
    ],
    ids=["bytes", "integers", "rounded"],
)
@pytest.mark.parametrize(
    "first", [lambda x: x.flip(3), lambda x: x[:, [2, 1, 0]], lambda x: x.mean(1, keepdim=True).expand(-1, 3, -1, -1)]
)
def test_quantisers_behind_moved_pixels_get_the_gradient_of_what_they_quantise(first, quantised):
    model, batch = Behind(lambda x: quantised(first(x)), network()), images(seed=4)
    straight = Behind(lambda x: first(x) + (quantised(first(x)) - first(x)).detach(), network())
    blocked = probed(model)
    assert [piece.words for piece in blocked.masked] == ["what comes before inner.0 (Conv2d)"]
    surrogate = blocked.surrogate(model)
    assert torch.equal(surrogate(batch.clone().requires_grad_()), model(batch))
    assert torch.allclose(gradient(surrogate, batch), gradient(straight, batch), atol=1e-5)


def test_what_leaves_torch_is_bridged_where_gradients_are_off_elsewhere_too():
    class Both(WithoutGradient):
        def forward(self, x):
            return super().forward(read_in_numpy(x))

    model, batch = Both("no_grad"), images(seed=4)
    surrogate = probed(model).surrogate(model)
    assert torch.equal(surrogate(batch.clone().requires_grad_()), model(batch))
    assert torch.allclose(gradient(surrogate, batch), gradient(network(), read_in_numpy(batch)), atol=1e-5)


def test_integers_whose_arithmetic_floats_do_not_have_keep_the_models_values():
    model = Behind(lambda x: ((x * 255).to(torch.uint8) * 2).float() / 255, network())
    batch = images(seed=4)
    assert torch.equal(probed(model).surrogate(model)(batch.clone().requires_grad_()), model(batch))


def test_buffers_that_count_what_is_detached_are_left_without_a_gradient():
    class Counts(WithoutGradient):
        def __init__(self):
            super().__init__("no_grad")
            self.register_buffer("sum", torch.zeros(()))

        def forward(self, x):
            self.sum += x.detach().sum()
            return super().forward(x)

    model = Counts()
    blocked = probed(model)
    assert blocked.uncut
    gradient(blocked.surrogate(model), images())
    assert not model.sum.requires_grad


class Vote(nn.Module):
    """The classes of two networks, which small moves of the images do not change."""

    def __init__(self):
        super().__init__()
        self.first, self.second = network(), network()

    def forward(self, x):
        return sum(nn.functional.one_hot(part(x).argmax(1), 4).float() for part in (self.first, self.second))


def test_votes_that_do_not_change_are_led_past():
    model, batch = Vote(), images()
    assert not model(batch.clone().requires_grad_()).requires_grad
    blocked = probed(model)
    assert [piece.words for piece in blocked.masked] == ["what gives the logits of Vote"]
    led = gradient(blocked.surrogate(model), batch)
    own = gradient(network(), batch)
    assert torch.cosine_similarity(led.flatten(1), own.flatten(1)).min() > 0.99


def test_the_model_is_left_as_it_was():
    model = network(Rounding())
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    gradient(probed(model).surrogate(model), images())
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(part.training for part in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_a_random_one_is_probed_with_its_draws_pinned():
    assert probed(Behind(lambda x: x + 0.1 * torch.randn_like(x), network())).masked == ()
    dithered = Behind(lambda x: (x * 8 + torch.rand_like(x)).floor() / 8, network())
    assert [piece.words for piece in probed(dithered).masked] == ["what comes before inner.0 (Conv2d)"]


def test_one_that_changes_from_pass_to_pass_or_takes_gradients_is_not_judged():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.passes, self.inner = 0, network()

        def forward(self, x):
            self.passes += 1
            return self.inner(x * (1 + 0.1 * self.passes))

    class Dynamic(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            with torch.enable_grad():
                moving = x.detach().clone().requires_grad_()
                slope = torch.autograd.grad(self.inner(moving).amax(1).sum(), moving)[0]
            return self.inner(x + 0.01 * slope.sign())

    assert probed(Counts()).masked == probed(Dynamic()).masked == ()


def test_a_model_that_keeps_what_it_is_given_does_not_cut_the_images_from_their_gradient():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("last", torch.zeros(1))

        def forward(self, x):
            self.last = x.detach()
            return x.flatten(1)[:, :4]

    leaf = torch.rand(2, 1, 2, 2).requires_grad_()
    logits = StraightThrough(Keeps(), [], uncut=True)(leaf)
    assert leaf.requires_grad
    assert torch.equal(torch.autograd.grad(logits.sum(), leaf)[0], torch.ones_like(leaf))
