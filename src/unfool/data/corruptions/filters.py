"""Linear filters that several corruptions share; the same arithmetic for every image of a batch.

Legend: B images, C channels, H×W pixels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

SMALLEST_WEIGHT = 1e-8
"""Smaller taps change no float32 pixel."""


def gaussian_blurred(images: Tensor, sigma: float, *, edges: str, truncate: float) -> Tensor:
    """Blur (..., H, W) with a Gaussian of ``sigma`` pixels, cut off at ``truncate`` sigmas; 0 changes nothing.

    ``edges`` is SciPy's name of what lies outside. Each side is one matrix, since a wide Gaussian may be reflected more
    than once.
    """
    if not sigma:
        return images
    from scipy.ndimage import gaussian_filter1d  # here, because it takes long to import

    down, right = (
        torch.from_numpy(gaussian_filter1d(np.eye(size), sigma, axis=0, mode=edges, truncate=truncate)).to(images)
        for size in images.shape[-2:]
    )
    return down @ images @ right.T


def motion_blurred(images: Tensor, angles: Tensor, radius: float, sigma: float) -> Tensor:
    """Smear images (B, C, H, W) along directions ``angles`` (B,) in degrees: 0 reads from the right, 90 from below.

    As ImageMagick's motion blur: 2·⌈radius⌉ + 1 taps of half a Gaussian of ``sigma`` pixels, each at a whole pixel, the
    edge repeated outside.
    """
    taps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-0.5 * (taps / sigma) ** 2)
    weights /= weights.sum()
    radians = torch.deg2rad(angles)
    filtered = torch.zeros_like(images)
    for tap, weight in enumerate(weights[weights > SMALLEST_WEIGHT].tolist()):
        down, right = (torch.ceil(tap * part - 0.5).long() for part in (torch.sin(radians), torch.cos(radians)))
        filtered.add_(_read(images, down, right), alpha=weight)
    return filtered


def _read(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Images (B, C, H, W) read ``down`` rows lower and ``right`` columns further right, (B,) int64 each."""
    height, width = images.shape[2:]
    rows = (torch.arange(height, device=images.device) + down[:, None]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + right[:, None]).clamp(0, width - 1)
    return gather_pixels(images, rows[:, :, None] * width + columns[:, None, :])


def gather_pixels(images: Tensor, places: Tensor) -> Tensor:
    """Images (B, C, H, W) whose pixels come from ``places`` (B, H, W): row-major pixel numbers."""
    places = places.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, places).view_as(images)


def zoomed(images: Tensor, factor: float) -> Tensor:
    """The middle of images (B, C, H, W), enlarged ``factor`` (at least 1) times to the same size.

    As in the published code: the middle is a whole number of pixels, enlarged bilinearly from corner pixel to corner
    pixel and cut to size; each side by itself where the images are not square.
    """
    sides = images.shape[2:]
    inner = [math.ceil(side / factor) for side in sides]
    outer = [round(size * factor) for size in inner]
    top, left = ((side - size) // 2 for side, size in zip(sides, inner, strict=True))
    cut_top, cut_left = ((size - side) // 2 for side, size in zip(sides, outer, strict=True))
    middle = images[:, :, top : top + inner[0], left : left + inner[1]]
    large = functional.interpolate(middle, size=outer, mode="bilinear", align_corners=True)
    return large[:, :, cut_top : cut_top + sides[0], cut_left : cut_left + sides[1]]
