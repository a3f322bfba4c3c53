"""Classifiers that hide their gradients, or are no fixed function, around a robust one.

`lean.py --masked` evaluates each: lean must escalate on every one, and say why.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Masked(nn.Module):
    """A robust network behind something that hides its gradients."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


class Quantised(Masked):
    """Sixteen levels a channel: no gradient at all."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images * 15).round() / 15)


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

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        least = flat.topk(flat.shape[1] // 2, 1).values[:, -1:]
        return self.network(torch.where(flat >= least, flat, torch.zeros_like(flat)).view_as(images))


class Rounded(Masked):
    """Logits in quarters."""

    def forward(self, images: Tensor) -> Tensor:
        return (self.network(images) * 4).round() / 4


class Noisy(Masked):
    """Noise of the size of the ball."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images + torch.randn_like(images) * 8 / 255).clamp(0, 1))


class Resized(Masked):
    """A random size, and back."""

    def forward(self, images: Tensor) -> Tensor:
        side = int(images.shape[-1] * (0.8 + 0.4 * float(torch.rand(()))))
        other = F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
        return self.network(F.interpolate(other, size=images.shape[-2:], mode="bilinear", align_corners=False))


class OfItsBatch(Masked):
    """Shifted by the mean of the batch."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - 0.3 * images.mean((0, 2, 3), keepdim=True) + 0.15).clamp(0, 1))


class StraightThrough(Masked):
    """The gradient of the mirrored image."""

    def forward(self, images: Tensor) -> Tensor:
        mirrored = self.network(images.flip(2))
        return self.network(images).detach() + mirrored - mirrored.detach()


class MeanSparse(Masked):
    """Activations within half a standard deviation of their mean become the mean (Amini et al., MeanSparse, 2024)."""

    def __init__(self, network: nn.Module):
        super().__init__(network)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                module.register_forward_hook(_sparser)


def _sparser(module: nn.Module, inputs: object, outputs: Tensor) -> Tensor:
    mean, width = (values.view(1, -1, 1, 1) for values in (module.bias, 0.5 * module.weight.abs()))
    return torch.where((outputs - mean).abs() < width, mean.expand_as(outputs), outputs)


MASKED = {
    "quantised": Quantised,
    "temperature": Temperature,
    "probabilities": Probabilities,
    "top-half": TopHalf,
    "rounded": Rounded,
    "noisy": Noisy,
    "resized": Resized,
    "of-its-batch": OfItsBatch,
    "straight-through": StraightThrough,
    "mean-sparse": MeanSparse,
}
