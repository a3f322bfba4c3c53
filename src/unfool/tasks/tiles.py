# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Tiles of images: cut out, put together again or shown one by one, and normalised by themselves.

Legend: B images, G×G tiles of each (T = G²), S×S pixels a tile, C channels, H×W pixels an image.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

LEVEL, SPREAD = 0.5, 0.2
"""Mean and deviation of a normalised tile, in pixel units: 2.5 deviations to either end of [0,1]."""

FLAT = 1 / 255
"""Deviation below which a tile counts as flat: one grey level of noise is not blown up to a picture."""


def cut(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The tiles at rows and columns (B, G, G, S) of images (B, C, H, W), by place: (B, C, G, S, G, S)."""
    # (B, G, S, G, S): place and pixel down, place and pixel across.
    index = rows.transpose(2, 3)[..., None] * images.shape[3] + columns[:, :, None]
    tiles = images.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, images.shape[1], -1))
    return tiles.unflatten(2, index.shape[1:])


def together(tiles: Tensor, size: tuple[int, int]) -> Tensor:
    """Tiles as `cut` gives them as one image each, resized bilinearly to ``size``: (B, C, H, W)."""
    shown = tiles.flatten(4).flatten(2, 3)
    if shown.shape[2:] == size:
        return shown
    return F.interpolate(shown, size=size, mode="bilinear", align_corners=False)


def one_by_one(tiles: Tensor) -> Tensor:
    """Tiles as `cut` gives them as images of their own, (T·B, C, S, S), those of the first place first."""
    return tiles.permute(2, 4, 0, 1, 3, 5).flatten(0, 2)


def normalised(tiles: Tensor) -> Tensor:
    """Images (N, C, S, S), every channel of each brought to the same mean and deviation over its own pixels.

    Noroozi & Favaro (ECCV 2016, section 3.2) normalise each tile, so that no colour or contrast that tiles have in
    common reveals where they come from. Here the result stays an image: its mean is `LEVEL` and its deviation `SPREAD`,
    and what then lies outside [0,1] is cut off. Differentiable, flat tiles too.
    """
    level = tiles.mean((2, 3), keepdim=True)
    centred = tiles - level
    spread = (centred.square().mean((2, 3), keepdim=True) + FLAT**2).sqrt()
    return (LEVEL + SPREAD * centred / spread).clamp(0.0, 1.0)


def laid_out(tiles: Tensor) -> Tensor:
    """One image (C, G·S, G·S) of tiles (G·G, C, S, S) in the order of their places, row by row."""
    grid = math.isqrt(len(tiles))
    return tiles.unflatten(0, (grid, grid)).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
