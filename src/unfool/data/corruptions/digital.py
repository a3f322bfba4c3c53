"""Contrast, elastic transform and pixelate; JPEG compression has a file of its own.

Legend: B images, C channels, H×W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unfool.core.streams import Streams
from unfool.data.corruptions.base import Strength, corruption
from unfool.data.corruptions.filters import gaussian_blurred


@corruption("contrast", factor=Strength(small=(0.75, 0.5, 0.4, 0.3, 0.15), large=(0.4, 0.3, 0.2, 0.1, 0.05)))
def contrast(images: Tensor, ids: Tensor, streams: Streams, factor: float) -> Tensor:
    """Move every value towards the mean of its image and channel, to ``factor`` of its distance."""
    means = images.mean(dim=(2, 3), keepdim=True)
    return means + factor * (images - means)


def warped(images: Tensor, x: Tensor, y: Tensor, *, repeat_edge: bool) -> Tensor:
    """Read images (B, C, H, W) bilinearly at columns ``x`` and rows ``y`` (B, H, W), in pixels, reflected outside.

    The reflection repeats the edge pixel or not, as SciPy's "reflect" and "mirror" do.
    """
    height, width = images.shape[2:]
    spread = 0.5 if repeat_edge else 0.0
    grid = torch.stack(
        [(position + spread) / (side - 1 + 2 * spread) * 2 - 1 for position, side in ((x, width), (y, height))], dim=-1
    ).to(images.dtype)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=not repeat_edge)


def _affine(ids: Tensor, streams: Streams, height: int, width: int, shift: float) -> tuple[Tensor, Tensor]:
    """Where each pixel of a random affine image comes from: columns and rows (B, H, W), float64.

    Three corners of a square around the middle move by up to ``shift`` pixels; the map takes them back.
    """
    half = min(height, width) // 3
    signs = torch.tensor([[1, 1], [1, -1], [-1, -1]], dtype=torch.float64, device=ids.device)
    before = half * signs + torch.tensor([width // 2, height // 2], device=ids.device)
    after = before + shift * streams.uniform(ids, (3, 2), -1, 1).double()
    matrices = torch.linalg.solve(torch.cat([after, torch.ones_like(after[:, :, :1])], dim=2), before.expand_as(after))
    rows, columns = torch.meshgrid(
        *(torch.arange(side, dtype=torch.float64, device=ids.device) for side in (height, width)), indexing="ij"
    )
    places = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1)
    vectors = torch.einsum("hwk,bkc->bchw", places, matrices)
    return vectors[:, 0], vectors[:, 1]


@corruption(
    "elastic-transform",
    amplitude=Strength(small=(0, 0.05, 0.08, 0.1, 0.1), large=(2, 2, 0.05, 0.07, 0.12)),
    sigma=Strength(small=(0, 0.2, 0.06, 0.04, 0.03), large=(0.7, 0.08, 0.01, 0.01, 0.01)),
    shift=Strength(small=(0.08, 0.07, 0.06, 0.05, 0.03), large=(0.1, 0.2, 0.02, 0.02, 0.02)),
)
def elastic_transform(
    images: Tensor, ids: Tensor, streams: Streams, amplitude: float, sigma: float, shift: float
) -> Tensor:
    """A random affine map, then a smooth random displacement of every pixel; parameters are shares of the shorter side.

    ``amplitude`` multiplies uniform displacements in [-1, 1] that were smoothed by a Gaussian of ``sigma``; ``shift``
    is how far the affine map moves a corner. Departures: shares of 224 px where the published code wrote 244; the
    columns and rows of images that are not square are told apart.
    """
    height, width = images.shape[2:]
    side = min(height, width)
    images = warped(images, *_affine(ids, streams.named("affine"), height, width, shift * side), repeat_edge=False)
    field = streams.named("field").uniform(ids, (2, height, width), -1, 1)
    field = amplitude * side * gaussian_blurred(field, sigma * side, edges="reflect", truncate=3)
    columns = torch.arange(width, device=images.device) + field[:, 0]
    rows = torch.arange(height, device=images.device)[:, None] + field[:, 1]
    return warped(images, columns, rows, repeat_edge=True)


def _boxes(side: int, size: int) -> np.ndarray:
    """The matrix (side, side) that shrinks a line to ``size`` pixels and enlarges it again, as Pillow's box filter.

    A small pixel is the mean of the pixels whose centres lie in it; a large pixel copies the one its centre lies in.
    """
    scale = side / size
    pixels, middles = np.arange(side), ((np.arange(size) + 0.5) * scale)[:, None]
    # Centres may lie on a border, and rounding decides; so each number is computed the way Pillow does.
    first, last = (np.trunc(middles + sign * 0.5 * scale + 0.5) for sign in (-1, 1))
    offsets = (pixels - middles + 0.5) * (1 / scale)
    shrink = ((offsets > -0.5) & (offsets <= 0.5) & (pixels >= first) & (pixels < last)).astype(float)
    shrink /= shrink.sum(axis=1, keepdims=True)
    return shrink[((pixels + 0.5) * (size / side)).astype(int)]


@corruption("pixelate", share=Strength(small=(0.95, 0.9, 0.85, 0.75, 0.65), large=(0.6, 0.5, 0.4, 0.3, 0.25)))
def pixelate(images: Tensor, ids: Tensor, streams: Streams, share: float) -> Tensor:
    """Shrink both sides to a ``share`` of their pixels, rounded down, and enlarge them again, by box filters."""
    down, right = (torch.from_numpy(_boxes(side, int(side * share))).to(images) for side in images.shape[2:])
    return down @ images @ right.T
