"""Layers that mask gradients, and a small network to put them in."""

import torch
from torch import nn

from unfool.core.streams import Streams

SIDE = 6
CLASSES = 4


def drawn(module, seed=0):
    """The module in eval mode, its weights drawn from a seed."""
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            rows = torch.arange(len(parameter))
            spread = 1 / max(1, parameter[0].numel()) ** 0.5
            parameter.copy_(Streams(seed).at(index).normal(rows, tuple(parameter.shape[1:])) * spread)
    return module.eval()


def network(layer=None, *, front=None, channels=3, seed=0):
    """Two convolutions and a linear layer, with a layer between or before them."""
    before = [] if front is None else [front]
    after = [] if layer is None else [layer]
    first = nn.Conv2d(channels, 6, 3, padding=1)
    second = nn.Conv2d(6, 6, 3, stride=2, padding=1)
    linear = nn.Linear(6 * 9, CLASSES)
    drawn(nn.ModuleList([first, second, linear]), seed)
    with torch.no_grad():  # About as many images of each class.
        plain = nn.Sequential(*before, first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), linear)
        linear.bias -= plain(images(64)).mean(0)
    return nn.Sequential(*before, first, *after, nn.ReLU(inplace=True), second, nn.ReLU(), nn.Flatten(), linear).eval()


def images(count=16, seed=3):
    """Random images."""
    return Streams(seed).uniform(torch.arange(count), (3, SIDE, SIDE))


class MeanSparse(nn.Module):
    """Activations near the mean of their channel become the mean; the true gradient there is zero."""

    def __init__(self, threshold=0.5, mean=0.1):
        super().__init__()
        self.threshold = threshold
        self.mean = torch.as_tensor(mean)

    def forward(self, x):
        return torch.where((x - self.mean).abs() < self.threshold, self.mean, x)


class SteppedSparse(nn.Module):
    """The same, and what is further off keeps whole thresholds alone: the true gradient is zero everywhere."""

    def __init__(self, threshold=0.02):
        super().__init__()
        self.threshold = threshold

    def forward(self, x):
        return 0.1 + ((x - 0.1) / self.threshold).round() * self.threshold


class TopK(nn.Module):
    """The largest third of an image's activations."""

    def forward(self, x):
        flat = x.flatten(1)
        least = flat.abs().topk(flat.shape[1] // 3, 1).values[:, -1:]
        return (flat * (flat.abs() >= least)).view_as(x)


class Rounding(nn.Module):
    def forward(self, x):
        return (x * 8).round() / 8


class Detached(nn.Module):
    def forward(self, x):
        return 2 * x.detach()


class Sign(nn.Module):
    def forward(self, x):
        return x.sign()


class Backwards(torch.autograd.Function):
    """The identity with a gradient of the other sign."""

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return -gradient


class FailsBackwards(torch.autograd.Function):
    """The identity, whose way back fails as a user's may."""

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        raise KeyError("mine")


class WrongGradient(nn.Module):
    def forward(self, x):
        return Backwards.apply(x)


class Residual(nn.Module):
    """A sum of two paths, sparsified by functions and not by a module."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.last = nn.Linear(3 * SIDE * SIDE, CLASSES)

    def forward(self, x):
        both = self.left(x) + self.right(x)
        return self.last(torch.where(both.abs() < 0.5, 0.0, both).flatten(1))


class Functional(nn.Module):
    """No submodule at all: rounds, and multiplies by its weights."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(CLASSES, 3 * SIDE * SIDE))

    def forward(self, x):
        return torch.round(x * 8).flatten(1) @ self.weight.T


class Behind(nn.Module):
    """A network behind a function that is no module."""

    def __init__(self, change, inner):
        super().__init__()
        self.change = change
        self.inner = inner

    def forward(self, x):
        return self.inner(self.change(x))
