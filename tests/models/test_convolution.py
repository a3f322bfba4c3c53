"""The matrix product of small images against torch's own convolution: values, gradients, and when it is taken."""

import pytest
import torch
import torch.nn.functional as F

from unfool.core.streams import Streams
from unfool.models import convolution
from unfool.models.convolution import FEWEST_IMAGES, AveragePool, Convolution

CASES = [  # kernel, stride, padding, side; whether every position that comes out sees the whole input
    (3, 1, 1, 1, True),
    (3, 1, 1, 2, True),
    (3, 1, 1, 3, False),
    (3, 2, 1, 2, True),
    (3, 2, 1, 4, False),
    (4, 2, 1, 2, True),
    (4, 2, 1, 4, False),
    (1, 1, 0, 1, True),
    (1, 2, 0, 2, False),
]


def layer(kernel, stride, padding, bias):
    made = Convolution(3, 5, kernel, stride, padding, bias=bias)
    for number, parameter in enumerate(made.parameters()):
        parameter.data = Streams(number).normal(torch.tensor([0]), tuple(parameter.shape))[0]
    return made.double().to(memory_format=torch.channels_last)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding", "side", "whole"), CASES)
def test_values_and_gradients_are_those_of_torch(kernel, stride, padding, side, whole, bias, monkeypatch):
    monkeypatch.setattr(convolution, "FEWEST_WEIGHTS", 0)
    made = layer(kernel, stride, padding, bias)
    images = Streams(2).normal(torch.arange(FEWEST_IMAGES), (3, side, side)).double().requires_grad_()
    product = "AddmmBackward0" if bias else "MmBackward0"
    outputs = made(images)
    assert (product in backward_names(outputs)) == whole
    expected = F.conv2d(images, made.weight, made.bias, stride, padding)
    torch.testing.assert_close(outputs, expected)
    sources = [images, *made.parameters()]
    cotangent = Streams(3).normal(torch.arange(len(outputs)), tuple(outputs.shape[1:])).double()
    gradients = torch.autograd.grad(outputs, sources, cotangent)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, sources, cotangent), strict=True):
        torch.testing.assert_close(gradient, wanted)
    assert gradients[1].stride() == made.weight.stride()


@pytest.mark.parametrize(("kernel", "stride", "side"), [(3, 1, 2), (3, 2, 2)])
def test_gradients_have_gradients(kernel, stride, side, monkeypatch):
    monkeypatch.setattr(convolution, "FEWEST_WEIGHTS", 0)
    monkeypatch.setattr(convolution, "FEWEST_IMAGES", 0)
    made = layer(kernel, stride, 1, False)
    images = Streams(2).normal(torch.arange(2), (3, side, side)).double().requires_grad_()
    outputs = lambda weight, images: torch.func.functional_call(made, {"weight": weight}, (images,))  # noqa: E731
    assert torch.autograd.gradgradcheck(outputs, (made.weight.detach().requires_grad_(), images), fast_mode=True)


def test_weights_are_gathered_in_the_precision_of_the_product(monkeypatch):
    monkeypatch.setattr(convolution, "FEWEST_WEIGHTS", 0)
    made, images = layer(3, 1, 1, False).float(), Streams(2).normal(torch.arange(FEWEST_IMAGES), (3, 2, 2))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = made(images)
        expected = F.conv2d(images, made.weight, None, 1, 1)
    assert outputs.dtype is expected.dtype is torch.bfloat16
    torch.testing.assert_close(outputs, expected)
    outputs.float().square().sum().backward()
    assert made.weight.grad is not None
    assert made.weight.grad.dtype is torch.float32


def backward_names(outputs):
    waiting, names = [outputs.grad_fn], set()
    while waiting:
        node = waiting.pop()
        names.add(type(node).__name__)
        waiting += [parent for parent, _ in node.next_functions if parent is not None]
    return names


def test_small_layers_and_few_images_are_left_to_torch(monkeypatch):
    small = layer(3, 1, 1, False)
    images = torch.ones(FEWEST_IMAGES, 3, 1, 1, dtype=torch.float64)
    assert small._windows(images) is None
    monkeypatch.setattr(convolution, "FEWEST_WEIGHTS", 0)
    assert small._windows(images) is not None
    pairs = images.expand(-1, -1, 2, 2)
    assert small._windows(pairs) is not None
    assert small._windows(pairs[:8]) is None


@pytest.mark.parametrize("settings", [{"groups": 3}, {"dilation": 2}, {"padding_mode": "reflect"}, {"padding": "same"}])
def test_other_convolutions_compute_as_torch_does(settings, monkeypatch):
    monkeypatch.setattr(convolution, "FEWEST_WEIGHTS", 0)
    made = Convolution(3, 6, 3, **{"padding": 2, **settings})
    images = Streams(2).normal(torch.arange(2), (3, 3, 3))
    expected = torch.nn.Conv2d.forward(made, images)
    assert not made._is_plain()
    assert torch.equal(made(images), expected)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("kernel", "padding", "height", "width"), [(4, 1, 8, 8), (7, 3, 9, 6), (3, 0, 8, 7), (2, 2, 5, 5)]
)
def test_the_gradient_of_images_is_that_of_torch(kernel, padding, height, width, frozen, monkeypatch):
    monkeypatch.setattr(convolution, "FEWEST_OUTPUTS", 0)
    made = layer(kernel, 2, padding, True).requires_grad_(not frozen)
    images = Streams(2).normal(torch.arange(2), (3, height, width)).double().requires_grad_()
    outputs = made(images)
    assert "_HalvedBackward" in backward_names(outputs)
    expected = F.conv2d(images, made.weight, made.bias, 2, padding)
    assert torch.equal(outputs, expected)
    sources = [images] if frozen else [images, *made.parameters()]
    cotangent = Streams(3).normal(torch.arange(2), tuple(outputs.shape[1:])).double()
    gradients = torch.autograd.grad(outputs, sources, cotangent, retain_graph=True)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, sources, cotangent), strict=True):
        torch.testing.assert_close(gradient, wanted)
    if not frozen:
        function = lambda weight, images: torch.func.functional_call(made, {"weight": weight}, (images,))  # noqa: E731
        assert torch.autograd.gradgradcheck(function, (made.weight.detach().requires_grad_(), images), fast_mode=True)


@pytest.mark.parametrize(("kernel", "stride", "side"), [(3, 1, 2), (4, 2, 8)])
def test_gradients_of_several_weights_at_once(kernel, stride, side, monkeypatch):
    for limit in ("FEWEST_WEIGHTS", "FEWEST_IMAGES", "FEWEST_OUTPUTS"):
        monkeypatch.setattr(convolution, limit, 0)
    made = layer(kernel, stride, 1, False)
    weights = torch.stack([made.weight.detach(), 2 * made.weight.detach()])
    images = Streams(2).normal(torch.arange(2), (3, side, side)).double()

    def loss(weight, images):
        return torch.func.functional_call(made, {"weight": weight}, (images,)).square().sum()

    together = torch.func.vmap(torch.func.grad(loss, (0, 1)), (0, None))(weights, images)
    for gradients, single in zip(zip(*together, strict=True), weights, strict=True):
        for gradient, wanted in zip(gradients, torch.func.grad(loss, (0, 1))(single, images), strict=True):
            torch.testing.assert_close(gradient, wanted)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_exported_layer_computes_the_same(monkeypatch):
    monkeypatch.setattr(convolution, "FEWEST_WEIGHTS", 0)
    made, images = layer(3, 1, 1, False), torch.ones(2, 3, 1, 1, dtype=torch.float64)
    traced = torch.jit.trace(made, images)
    torch.testing.assert_close(traced(images), made(images))
    assert "Python" not in str(traced.graph)


@pytest.mark.parametrize("side", [1, 2, 3, 8])
def test_averages_are_those_of_torch(side):
    features = Streams(0).normal(torch.arange(3), (5, side, side)).double().requires_grad_()
    outputs, expected = AveragePool(4)(features), F.adaptive_avg_pool2d(features, 4)
    assert torch.equal(outputs, expected)
    cotangent = Streams(1).normal(torch.arange(3), (5, 4, 4)).double()
    gradients = (torch.autograd.grad(values, features, cotangent)[0] for values in (outputs, expected))
    torch.testing.assert_close(*gradients)
