"""Gaussian blur with a deviation per image, as one pair of grouped convolutions.

Legend: B images, C channels, H×W pixels, K taps.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST_WEIGHT = 1e-12
"""Smaller taps change no float32 pixel, but their products are denormal numbers, which slow a CPU down threefold."""


def blurred(images: Tensor, sigma: Tensor, chosen: Tensor, kernel: float) -> Tensor:
    """Blur images (B, C, H, W) where ``chosen`` (B,) with deviations ``sigma`` (B,) in pixels, edges reflected.

    The kernel has 2r + 1 taps, r = half of ``kernel`` (a share of the shorter side, rounded down), at least 1, as in
    SimCLR code; an image that is not chosen gets the identity kernel.
    """
    count, channels, height, width = images.shape
    radius = min(max(1, int(kernel * min(height, width)) // 2), min(height, width) - 1)
    taps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)
    weights = torch.where(weights < SMALLEST_WEIGHT, 0.0, weights)
    weights = torch.where(chosen[:, None], weights / weights.sum(dim=1, keepdim=True), (taps == 0).to(images.dtype))
    weights = weights.repeat_interleave(channels, dim=0)
    groups = count * channels
    padded = functional.pad(images, (radius, radius, radius, radius), mode="reflect")
    flat = padded.reshape(1, groups, height + 2 * radius, width + 2 * radius)
    flat = functional.conv2d(flat, weights.view(groups, 1, 1, -1), groups=groups)
    return functional.conv2d(flat, weights.view(groups, 1, -1, 1), groups=groups).view_as(images)
