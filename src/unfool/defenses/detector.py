"""What a gate decides by: a loss of each image, and the threshold above which the defense acts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A test of images, which an attacker who knows it stays below.

    Attributes:
        losses: Images (B, C, H, W) → losses (B,), differentiable in them.
        threshold: The defense acts on images whose loss is above it.
        images_per_loss: How many images go through a network for one image's loss.
    """

    losses: Callable[[Tensor], Tensor]
    threshold: float
    images_per_loss: int = 1
