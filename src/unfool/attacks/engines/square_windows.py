# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Windows of pixels, at another position in every image, and the shape that the Square attack puts there.

Legend: n images, C channels, H×W pixels.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor


@functools.lru_cache(maxsize=64)
def pyramids(side: int, order: int) -> Tensor:
    """Shape of a redrawn window, (2, side, side) float64, upright and transposed; its l1 or l2 norm (``order``) is 1.

    The upper half is a pyramid and the lower one a negative pyramid, of norm 1/2 (l1) or 1/√2 (l2) each.
    """
    halves = [_pyramid(side // 2, side, order), -_pyramid(side - side // 2, side, order)]
    upright = torch.cat([half / torch.linalg.vector_norm(half, order) for half in halves if len(half)])
    upright /= torch.linalg.vector_norm(upright, order)
    return torch.stack([upright, upright.T])


def _pyramid(height: int, width: int, order: int) -> Tensor:
    """A pyramid: in ring r of M around the middle pixel the value Σ k^-2 (l2) or Σ k^-4 (l1) over k = r + 1, ..., M."""
    rings = max(height, width) // 2 + 1
    steps = torch.arange(1, rings + 1, dtype=torch.float64) ** (-2 if order == 2 else -4)
    heights = steps.flip(0).cumsum(0).flip(0)
    down, across = (torch.arange(length) - length // 2 for length in (height, width))
    return heights[torch.maximum(down.abs()[:, None], across.abs()[None])]


def windows(images: Tensor, side: int) -> Tensor:
    """Every window of images (..., H, W), by its top row and left column.

    A view (..., H - side + 1, W - side + 1, side, side).
    """
    return images.unfold(-2, side, 1).unfold(-2, side, 1)


def corners(images: Tensor, side: int, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Top rows and left columns (n,) from two uniform draws each; all positions where the window fits are as likely."""
    height, width = images.shape[-2:]
    return (draws[:, 0] * (height - side + 1)).long(), (draws[:, 1] * (width - side + 1)).long()


def overlap(down: Tensor, right: Tensor, side: int) -> Tensor:
    """Which pixels (n, 1, side, side) of a window another contains that is ``down`` and ``right`` (n,) less far."""
    offsets = torch.arange(side, device=down.device)
    rows, columns = down[:, None] + offsets, right[:, None] + offsets
    inside = [(positions >= 0) & (positions < side) for positions in (rows, columns)]
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
