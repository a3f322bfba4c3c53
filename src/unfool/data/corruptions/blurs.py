"""Defocus, glass, motion and zoom blur.

Legend: B images, C channels, H×W pixels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unfool.core.streams import Streams
from unfool.data.corruptions.base import LARGE_SIDE, SMALL_SIDE, Strength, corruption
from unfool.data.corruptions.filters import gather_pixels, gaussian_blurred, motion_blurred, zoomed


def disc(radius: float, softness: float, subpixels: int) -> np.ndarray:
    """A disc of ``radius`` pixels whose edge is softened by a Gaussian of ``softness`` pixels; sums to 1.

    A pixel counts by the share of its ``subpixels``² points that lie inside; 1 asks for its centre alone.
    """
    reach = math.ceil(radius)
    points = np.arange(-reach - 0.5, reach + 0.5, 1 / subpixels) + 0.5 / subpixels
    inside = (points[:, None] ** 2 + points**2 <= radius**2).astype(float)
    inside = inside.reshape(2 * reach + 1, subpixels, 2 * reach + 1, subpixels).mean(axis=(1, 3))
    taps = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    weights = np.exp(-0.5 * (taps / softness) ** 2)
    blur = weights / weights.sum()
    spread = np.apply_along_axis(np.convolve, 0, np.apply_along_axis(np.convolve, 1, inside, blur), blur)
    return spread / spread.sum()


@corruption(
    "defocus-blur",
    radius=Strength(small=(0.3, 0.4, 0.5, 1, 1.5), large=(3, 4, 6, 8, 10), length=True),
    softness=Strength(small=(0.4, 0.5, 0.6, 0.2, 0.1), large=(0.1, 0.5, 0.5, 0.5, 0.5)),
)
def defocus_blur(images: Tensor, ids: Tensor, streams: Streams, radius: float, softness: float) -> Tensor:
    """Convolve with a disc, edges reflected.

    At the two published sizes a pixel belongs to the disc or not; at others it counts by its share inside, or most
    radii below 1 would leave the image as it is.
    """
    side = min(images.shape[2:])
    kernel = disc(radius, softness, 1 if side <= SMALL_SIDE or side == LARGE_SIDE else 8)
    reach = len(kernel) // 2
    planes = functional.pad(images, (reach,) * 4, mode="reflect").flatten(0, 1)[:, None]
    return functional.conv2d(planes, torch.from_numpy(kernel).to(images)[None, None]).view_as(images)


def scattered(images: Tensor, down: Tensor, right: Tensor, reach: int) -> Tensor:
    """Give pixels of images (B, C, H, W) the colours of neighbours ``down``, ``right`` (B, H, W) of them, in order.

    The pixels ``reach`` from the edge take turns from the last to the first, so that a neighbour that had its turn
    gives a colour that it got itself. Every chain of such neighbours is followed by doubling the steps.
    """
    height, width = images.shape[2:]
    pixels = torch.arange(height * width, device=images.device).view(height, width)
    inner = torch.zeros_like(pixels, dtype=torch.bool)
    inner[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] = True
    givers = torch.where(inner, pixels + down * width + right, pixels).flatten(1)
    pixels = pixels.flatten().expand_as(givers)
    last = torch.where(givers > pixels, givers, pixels)
    while not torch.equal(further := last.gather(1, last), last):
        last = further
    return gather_pixels(images, givers.gather(1, last).view(-1, height, width))


@corruption(
    "glass-blur",
    sigma=Strength(small=(0.05, 0.25, 0.4, 0.25, 0.4), large=(0.7, 0.9, 1, 1.1, 1.5), length=True),
    reach=Strength(small=(1, 1, 1, 1, 1), large=(1, 2, 2, 3, 4), length=True),
    passes=Strength(small=(1, 1, 1, 2, 2), large=(2, 1, 3, 2, 2)),
)
def glass_blur(images: Tensor, ids: Tensor, streams: Streams, sigma: float, reach: float, passes: float) -> Tensor:
    """Blur, scatter pixels among neighbours up to ``reach`` away, ``passes`` times, and blur again.

    The paper swaps a pixel with its neighbour. The published code exchanges two views of one array, which copies the
    neighbour's colour and changes nothing else; its images show that, and so do these.
    """
    most = round(reach)
    images = gaussian_blurred(images, sigma, edges="nearest", truncate=4)
    for turn in range(round(passes)):
        offsets = streams.at(turn).integers(ids, 2 * most, (2, *images.shape[2:])) - most
        images = scattered(images, offsets[:, 0], offsets[:, 1], most)
    return gaussian_blurred(images, sigma, edges="nearest", truncate=4)


@corruption(
    "motion-blur",
    radius=Strength(small=(6, 6, 6, 8, 9), large=(10, 15, 15, 15, 20), length=True),
    sigma=Strength(small=(1, 1.5, 2, 2, 2.5), large=(3, 5, 8, 12, 15), length=True),
)
def motion_blur(images: Tensor, ids: Tensor, streams: Streams, radius: float, sigma: float) -> Tensor:
    """Smear each image along a direction of its own, at most 45 degrees from the horizontal."""
    return motion_blurred(images, streams.uniform(ids, (), -45, 45), radius, sigma)


@corruption(
    "zoom-blur",
    below=Strength(small=(1.06, 1.11, 1.16, 1.21, 1.26), large=(1.11, 1.16, 1.21, 1.26, 1.31)),
    step=Strength(small=(0.01, 0.01, 0.01, 0.01, 0.01), large=(0.01, 0.01, 0.02, 0.02, 0.03)),
)
def zoom_blur(images: Tensor, ids: Tensor, streams: Streams, below: float, step: float) -> Tensor:
    """The mean of the image and of zooms into its middle, by factors from 1, a ``step`` apart, ``below`` a limit."""
    factors = np.arange(1, below, step).tolist()
    return sum((zoomed(images, factor) for factor in factors), images) / (len(factors) + 1)
