"""Classifiers that hide their gradients, or are no fixed function, around a robust one.

`lean.py --masked` evaluates each: lean must escalate on every one, and say why. Each also knows how it is seen through:
the classifier that an attacker who has read its code attacks in its place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NOISE = 8 / 255
SEEN_DRAWS = 8
"""Draws that an attacker averages, of a classifier that draws."""


class Masked(nn.Module):
    """A robust network behind something that hides its gradients; ``random``: it draws at every call; ``confirms``: a
    call on some images says what the classifier gives them, whatever it was called on before and beside."""

    random = False
    confirms = True

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def seen_through(self, images: Tensor) -> nn.Module:
        """What an attacker who knows it attacks in its place; ``images`` (B, C, H, W) are those to be attacked."""
        return self.network


class Calls(nn.Module):
    """A function of images as a module, which holds the network inside."""

    def __init__(self, network: nn.Module, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.network = network
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


def straight(changed: Tensor, images: Tensor) -> Tensor:
    """Values of the one with the gradient of the other."""
    return changed.detach() + images - images.detach()


class Quantised(Masked):
    """Sixteen levels a channel: no gradient at all."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images * 15).round() / 15)

    def seen_through(self, images: Tensor) -> nn.Module:
        return Calls(self.network, lambda images: self.network(straight((images * 15).round() / 15, images)))


class Temperature(Masked):
    """Logits so far apart that the cross-entropy is exactly zero."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) * 1e3


class Probabilities(Masked):
    """Probabilities in place of logits."""

    def forward(self, images: Tensor) -> Tensor:
        return (self.network(images) * 100).softmax(1)


class TopHalf(Masked):
    """The darker half of all values becomes zero."""

    def changed(self, images: Tensor) -> Tensor:
        """What the network sees."""
        flat = images.flatten(1)
        least = flat.topk(flat.shape[1] // 2, 1).values[:, -1:]
        return torch.where(flat >= least, flat, torch.zeros_like(flat)).view_as(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.changed(images))

    def seen_through(self, images: Tensor) -> nn.Module:
        return Calls(self.network, lambda images: self.network(straight(self.changed(images), images)))


class Rounded(Masked):
    """Logits in quarters."""

    def forward(self, images: Tensor) -> Tensor:
        return (self.network(images) * 4).round() / 4


class Drawing(Masked):
    """Draws at every call from torch's global random state; an attacker fixes some draws and averages them."""

    random = True
    confirms = False

    def seen_through(self, images: Tensor) -> nn.Module:
        def average(images: Tensor) -> Tensor:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return torch.stack([self.members(images).mean(0) for _ in range(SEEN_DRAWS)]).mean(0)

        return Calls(self.network, average)

    def members(self, images: Tensor) -> Tensor:
        """Logits (M, B, K) of one draw before they are aggregated."""
        return self(images)[None]


class Noisy(Drawing):
    """Noise of the size of the ball."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images + torch.randn_like(images) * NOISE).clamp(0, 1))


class Resized(Drawing):
    """A random size, and back."""

    def forward(self, images: Tensor) -> Tensor:
        side = int(images.shape[-1] * (0.8 + 0.4 * float(torch.rand(()))))
        return self.network(resized(images, side))


class Ensemble(Drawing):
    """Noisy copies in three resolutions, whose logits CrossMax aggregates (after Fort and Lakshminarayanan, 2024).

    Values are the aggregate's; the gradient passes straight through to the coarsest copy alone.
    """

    def members(self, images: Tensor) -> Tensor:
        sides = [images.shape[-1] // part for part in (1, 2, 4)]
        noisy = [(resized(images, side) + torch.randn_like(images) * NOISE / 2).clamp(0, 1) for side in sides]
        return torch.stack([self.network(copies) for copies in noisy])

    def forward(self, images: Tensor) -> Tensor:
        logits = self.members(images)
        crossed = logits - logits.amax(2, keepdim=True)
        crossed = crossed - crossed.amax(0, keepdim=True)
        return straight(crossed.median(0).values, logits[-1])


def resized(images: Tensor, side: int) -> Tensor:
    """Images in another resolution, and back in their own."""
    other = F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
    return F.interpolate(other, size=images.shape[-2:], mode="bilinear", align_corners=False)


class OfItsBatch(Masked):
    """Shifted by the mean of the batch."""

    confirms = False

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.shifted(images, images))

    def shifted(self, images: Tensor, batch: Tensor) -> Tensor:
        """What the network sees of images in a batch."""
        return (images - 0.3 * batch.mean((0, 2, 3), keepdim=True) + 0.15).clamp(0, 1)

    def seen_through(self, images: Tensor) -> nn.Module:
        return Calls(self.network, lambda attacked: self.network(self.shifted(attacked, images)))


class StraightThrough(Masked):
    """The gradient of the mirrored image."""

    def forward(self, images: Tensor) -> Tensor:
        return straight(self.network(images), self.network(images.flip(2)))


class MeanSparse(Masked):
    """Activations within half a standard deviation of their mean become the mean (Amini et al., MeanSparse, 2024)."""

    def __init__(self, network: nn.Module):
        super().__init__(_sparse(network, _sparser))
        self.bare = [network]  # In a list: it is no part of the classifier.

    def seen_through(self, images: Tensor) -> nn.Module:
        def straightened(module: nn.Module, inputs: object, outputs: Tensor) -> Tensor:
            return straight(_sparser(module, inputs, outputs), outputs)

        return _sparse(self.bare[0], straightened)


def _sparse(network: nn.Module, hook: Callable[[nn.Module, object, Tensor], Tensor]) -> nn.Module:
    """A copy of a network with a hook behind every batch norm."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            module.register_forward_hook(hook)
    return network


def _sparser(module: nn.BatchNorm2d, inputs: object, outputs: Tensor) -> Tensor:
    mean, width = (values.view(1, -1, 1, 1) for values in (module.bias, 0.5 * module.weight.abs()))
    return torch.where((outputs - mean).abs() < width, mean.expand_as(outputs), outputs)


MASKED: dict[str, type[Masked]] = {
    "quantised": Quantised,
    "temperature": Temperature,
    "probabilities": Probabilities,
    "top-half": TopHalf,
    "rounded": Rounded,
    "noisy": Noisy,
    "resized": Resized,
    "ensemble": Ensemble,
    "of-its-batch": OfItsBatch,
    "straight-through": StraightThrough,
    "mean-sparse": MeanSparse,
}
