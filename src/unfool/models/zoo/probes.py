"""Generated images on which every machine can compare a network's logits with those that its card holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

COUNT = 8
TOLERANCE = 1e-3
"""Largest difference of two logits that rounding explains, over the largest logit or 1."""


def probe_images(side: int, channels: int = 3) -> Tensor:
    """Waves in all directions, (COUNT, channels, side, side) in [0,1]; no draw and no picture of any data set."""
    steps = torch.arange(side, dtype=torch.float64) / side
    number = torch.arange(COUNT, dtype=torch.float64)[:, None, None, None]
    channel = torch.arange(channels, dtype=torch.float64)[None, :, None, None]
    rows, columns = steps[None, None, :, None], steps[None, None, None, :]
    phase = (1 + number) * 2.3 * rows + (COUNT - number) * 1.7 * columns + 1.1 * channel * (number % 3)
    return (0.5 + 0.5 * torch.sin(2 * phase + number)).float()


def probe_logits(network: nn.Module, side: int) -> list[list[float]]:
    """The logits of the generated images, to five decimals."""
    with torch.no_grad():
        logits: Tensor = network(probe_images(side))
    return [[round(float(value), 5) for value in row] for row in logits]


def largest_difference(logits: list[list[float]], stored: tuple[tuple[float, ...], ...]) -> float:
    """The largest difference of two logits over the largest stored one or 1; infinite for other shapes."""
    if [len(row) for row in logits] != [len(row) for row in stored]:
        return float("inf")
    ours, theirs = torch.tensor(logits, dtype=torch.float64), torch.tensor(stored, dtype=torch.float64)
    return float(((ours - theirs).abs().amax() / theirs.abs().amax().clamp(min=1.0)).item()) if len(stored) else 0.0
