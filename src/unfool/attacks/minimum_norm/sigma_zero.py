"""Sigma-zero: a smooth count of the changed pixels is minimised beside the margin, and small changes are dropped.

Cinà et al., "Sigma-zero: gradient-based optimization of l0-norm adversarial examples", ICLR 2025, algorithm 1.

Legend: n images on their way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.attacks.minimum_norm.search import Look, Path, PathSearch, annealed, column
from unfool.core.errors import SpecError

LAST_STEP = 0.1
"""The last step, as a share of the first (as published)."""

BETAS = 0.9, 0.999
"""Decays of Adam's averages, as usual."""


@dataclass(frozen=True, kw_only=True)
class SigmaZeroSearch(PathSearch):
    """Sigma-zero, in l0, on a loss that is above 0 across the boundary.

    Args:
        step_size: The first step of Adam, which moves each value.
        sigma: A change whose square is sigma counts as half a pixel.
        threshold: The first size below which a pixel's change is dropped.
        threshold_step: By how much the threshold changes with each step, as a share of the step size.
    """

    step_size: float = 1.0
    sigma: float = 0.001
    threshold: float = 0.3
    threshold_step: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threat.norm_name != "l0":
            raise SpecError(f"sigma-zero has no form for {self.threat}; give it an l0 threat model")
        if not (self.step_size > 0 and self.sigma > 0 and 0 <= self.threshold <= 1 and self.threshold_step >= 0):
            raise SpecError(
                f"step_size {self.step_size}, sigma {self.sigma}, threshold {self.threshold}, threshold_step "
                f"{self.threshold_step} are not allowed; give a step and a sigma above 0, a threshold from 0 to 1, and "
                "a threshold_step of 0 or more"
            )

    def path(self, origins: Tensor, points: Tensor) -> Path:
        """Paths under Adam."""
        return _Sparse(self, origins, points)


class _Sparse(Path):
    """Points under Adam, with each image's ``threshold`` (n,) below which the change of a pixel is dropped."""

    def __init__(self, settings: SigmaZeroSearch, origins: Tensor, points: Tensor):
        super().__init__(origins, points)
        self.settings = settings
        self.threshold = torch.full((len(origins),), settings.threshold, device=origins.device)
        self.mean = torch.zeros_like(origins, dtype=torch.float32)
        self.square = torch.zeros_like(self.mean)
        self.moves = 0

    def move(self, look: Look) -> None:
        """A step of Adam down both terms; then the new threshold drops the small changes."""
        settings = self.settings
        step = annealed(settings.step_size, LAST_STEP * settings.step_size, look.share)
        delta = (self.points - self.origins).float()
        slope = pixel_count_slope(delta, settings.sigma)
        # Across the boundary the margin is enough: only the count goes on falling.
        slope -= look.gradient.float() * column(~look.fooled, slope)
        slope /= column(slope.flatten(1).abs().amax(1).clamp(min=1e-12), slope)
        self.moves += 1
        self.mean = self.mean.lerp(slope, 1 - BETAS[0])
        self.square = self.square.lerp(slope.square(), 1 - BETAS[1])
        spread = (self.square / (1 - BETAS[1] ** self.moves)).sqrt_().add_(1e-8)
        delta -= step / (1 - BETAS[0] ** self.moves) * self.mean / spread
        change = step * settings.threshold_step
        self.threshold = (self.threshold + torch.where(look.fooled, change, -change)).clamp(0.0, 1.0)
        ahead = (self.origins + delta).clamp_(0.0, 1.0)
        size = (ahead - self.origins).abs().amax(1, keepdim=True)
        self.points = torch.where(size < column(self.threshold, size), self.origins, ahead)


def pixel_count_slope(delta: Tensor, sigma: float) -> Tensor:
    """The gradient (n, C, H, W) of the smooth count of changed pixels, as a share of all pixels.

    A pixel with the squared change s, summed over its channels, counts s / (s + sigma) (the paper's equation 6).
    """
    squares = delta.square().sum(1, keepdim=True)
    pixels = delta.shape[2] * delta.shape[3]
    return 2 * delta * sigma / (squares + sigma).square() / pixels
