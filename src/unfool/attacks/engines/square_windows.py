"""Windows of pixels, at another place in every image: where they lie, how they are reached, and the shape put there.

Legend: n images, C channels, H×W pixels.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor


@functools.lru_cache(maxsize=64)
def pyramids(side: int, order: int) -> Tensor:
    """The shape of a redrawn window, (2, side, side) float64: upright and turned, of norm 1 in l1 or l2 (``order``).

    The upper half is a pyramid and the lower one a negative pyramid, of norm 1/2 (l1) or 1/√2 (l2) each.
    """
    halves = [_pyramid(side // 2, side, order), -_pyramid(side - side // 2, side, order)]
    upright = torch.cat([half / torch.linalg.vector_norm(half, order) for half in halves if len(half)])
    upright /= torch.linalg.vector_norm(upright, order)
    return torch.stack([upright, upright.T])


def _pyramid(height: int, width: int, order: int) -> Tensor:
    """Ring r around the middle pixel holds Σ k^-2 (l2) or Σ k^-4 (l1) over k = r + 1, ..., M, M the number of rings."""
    rings = max(height, width) // 2 + 1
    steps = torch.arange(1, rings + 1, dtype=torch.float64) ** (-2 if order == 2 else -4)
    heights = steps.flip(0).cumsum(0).flip(0)
    down, across = (torch.arange(length) - length // 2 for length in (height, width))
    return heights[torch.maximum(down.abs()[:, None], across.abs()[None])]


def windows(images: Tensor, side: int) -> Tensor:
    """A view (..., H - side + 1, W - side + 1, side, side) of images (..., H, W): every window, by its upper left."""
    return images.unfold(-2, side, 1).unfold(-2, side, 1)


def corners(images: Tensor, side: int, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Top rows and left columns (n,) from two uniforms each; every place where the window fits is as likely."""
    height, width = images.shape[-2:]
    return (draws[:, 0] * (height - side + 1)).long(), (draws[:, 1] * (width - side + 1)).long()


def shared(down: Tensor, right: Tensor, side: int) -> Tensor:
    """Mask (n, 1, side, side) of a window's pixels that lie in another; it is ``down`` and ``right`` (n,) of that."""
    reach = torch.arange(side, device=down.device)
    rows, columns = down[:, None] + reach, right[:, None] + reach
    inside = [(places >= 0) & (places < side) for places in (rows, columns)]
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
