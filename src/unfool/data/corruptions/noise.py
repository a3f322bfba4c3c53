"""Gaussian, shot and impulse noise: every pixel of every channel by itself.

Legend: B images, C channels, H×W pixels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from unfool.core.streams import Streams
from unfool.data.corruptions.base import Strength, corruption


def _shape(images: Tensor) -> tuple[int, ...]:
    return tuple(images.shape[1:])


@corruption(
    "gaussian-noise", deviation=Strength(small=(0.04, 0.06, 0.08, 0.09, 0.10), large=(0.08, 0.12, 0.18, 0.26, 0.38))
)
def gaussian_noise(images: Tensor, ids: Tensor, streams: Streams, deviation: float) -> Tensor:
    """Add normal noise of a standard ``deviation`` in units of the pixel range."""
    return images + deviation * streams.normal(ids, _shape(images))


@corruption("shot-noise", photons=Strength(small=(500, 250, 100, 75, 50), large=(60, 25, 12, 5, 3)))
def shot_noise(images: Tensor, ids: Tensor, streams: Streams, photons: float) -> Tensor:
    """Replace each value x by Poisson(x · photons) / photons; x is rounded to a byte first, as published sets are.

    Counts come from uniforms by the inverse of the Poisson distribution: the 256 distribution functions are laid end to
    end, the one of byte v in [v, v + 1], so that one sorted search finds every pixel's count.
    """
    from scipy.special import pdtr  # here, because it takes long to import

    size = math.ceil(photons + 10 * math.sqrt(photons) + 10)
    bytes_ = np.arange(256)[:, None]
    reached = pdtr(np.arange(size), photons * bytes_ / 255)
    reached[:, -1] = 1.0
    levels = torch.round(images * 255).to(torch.int64).contiguous()
    luck = streams.uniform(ids, _shape(images)).double()
    steps = torch.from_numpy(reached + bytes_).flatten().to(images.device)
    counts = torch.searchsorted(steps, levels + luck, right=True) - levels * size
    return (counts / photons).to(images.dtype)


@corruption("impulse-noise", share=Strength(small=(0.01, 0.02, 0.03, 0.05, 0.07), large=(0.03, 0.06, 0.09, 0.17, 0.27)))
def impulse_noise(images: Tensor, ids: Tensor, streams: Streams, share: float) -> Tensor:
    """Set a ``share`` of the values to 0 or 1, either with equal probability."""
    luck = streams.uniform(ids, _shape(images))
    return images.masked_fill(luck < share / 2, 0.0).masked_fill(luck >= 1 - share / 2, 1.0)
