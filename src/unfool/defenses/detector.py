"""What a gate decides by: a loss of each image, and the threshold above which the defense acts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A test of images, which an attacker who knows it stays below.

    Args:
        losses: Images (B, C, H, W) → losses (B,), differentiable in them.
        threshold: The defense acts on images whose loss is above it.
        images_per_loss: How many images go through a network for one image's loss.

    Example:
        >>> from unfool.defenses import Detector
        >>> dark = Detector(losses=lambda images: 1 - images.flatten(1).mean(1), threshold=0.8, images_per_loss=0)
        >>> dark.losses(torch.full((2, 3, 8, 8), 0.25)).tolist()
        [0.75, 0.75]
    """

    losses: Callable[[Tensor], Tensor]
    threshold: float
    images_per_loss: int = 1
