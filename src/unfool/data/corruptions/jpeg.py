"""JPEG compression: every lossy step of a baseline encoder and decoder; the lossless coding of bits is left out.

The standard is ITU-T T.81; where it leaves a choice, libjpeg's is made: BT.601 colours, 4:2:0 subsampling, quality
numbers, and chroma enlarged by a triangle filter. Computed in float64, so that no coefficient is rounded the other way
in another batch.

Legend: B images, H×W pixels; planes hold bytes as float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from unfool.core.streams import Streams
from unfool.data.corruptions.base import Strength, corruption

BRIGHTNESS_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Quantisation steps of luminance, T.81 table K.1; rows are vertical frequencies."""
COLOUR_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
"""Quantisation steps of chrominance, T.81 table K.2."""

_TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))
_TIE = 1e-6
"""Added before rounding, so that halves go up whatever the last bit of a sum of products says."""


def steps_at(standard: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """A table of quantisation steps (8, 8) at libjpeg's ``quality`` 1 to 100; float64 whole numbers."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return torch.floor((torch.tensor(standard, dtype=torch.float64) * scale + 50) / 100).clamp_(1, 255)


def _cosines(device: torch.device) -> Tensor:
    """The orthonormal cosine transform of 8 samples (frequency, sample), T.81 A.3.3."""
    points = torch.arange(8, dtype=torch.float64, device=device)
    matrix = torch.cos((2 * points + 1) * points[:, None] * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def _padded(planes: Tensor, rows: int, columns: int) -> Tensor:
    """Planes (B, H, W) with the last row and column repeated until the sides are multiples of these."""
    height, width = planes.shape[1:]
    return functional.pad(planes, (0, -width % columns, 0, -height % rows), mode="replicate")


def _rounded(planes: Tensor) -> Tensor:
    return torch.floor(planes + (0.5 + _TIE))


def _quantised(planes: Tensor, steps: Tensor) -> Tensor:
    """Planes (B, H, W) after the cosine transform of 8×8 blocks, quantisation with ``steps`` (8, 8), and back."""
    count, height, width = planes.shape
    whole = _padded(planes, 8, 8)
    blocks = whole.unflatten(2, (-1, 8)).unflatten(1, (-1, 8)).transpose(2, 3) - 128
    cosines = _cosines(planes.device)
    waves = cosines @ blocks @ cosines.T
    # libjpeg's transform gives whole eighths, which decide what lies near the middle between two steps
    eighths = _rounded(8 * waves.abs()) / 8
    waves = waves.sign() * _rounded(eighths / steps) * steps
    blocks = _rounded(cosines.T @ waves @ cosines + 128).clamp_(0, 255)
    return blocks.transpose(2, 3).reshape(count, *whole.shape[1:])[:, :height, :width]


def _halved(planes: Tensor) -> Tensor:
    """Planes (B, H, W), sides even, with each 2×2 square as one mean; halves go down and up in turn, as in libjpeg."""
    sums = functional.avg_pool2d(planes[:, None], 2, divisor_override=1)[:, 0]
    return torch.floor((sums + 1 + torch.arange(sums.shape[2], device=planes.device) % 2) / 4)


def _doubled(planes: Tensor) -> Tensor:
    """Planes (B, H, W) at twice the size: three quarters of the nearest sample, one of the next, along each side."""
    rows = functional.pad(planes, (0, 0, 1, 1), mode="replicate")
    near = 3 * rows[:, 1:-1]
    tall = torch.stack([near + rows[:, :-2], near + rows[:, 2:]], dim=2).flatten(1, 2)
    columns = functional.pad(tall, (1, 1), mode="replicate")
    near = 3 * columns[:, :, 1:-1]
    left, right = near + columns[:, :, :-2] + 8, near + columns[:, :, 2:] + 7
    return torch.floor(torch.stack([left, right], dim=3).flatten(2, 3) / 16)


def _colour(planes: Tensor, steps: Tensor) -> Tensor:
    """Planes (B, H, W) of one colour difference, subsampled, quantised and enlarged again."""
    height, width = planes.shape[1:]
    small = _halved(_padded(planes, 2, 16))
    small = _quantised(small, steps)[:, :, : (width + 1) // 2]
    return _doubled(small)[:, :height, :width]


@corruption("jpeg-compression", quality=Strength(small=(80, 65, 58, 50, 40), large=(25, 18, 15, 10, 7)))
def jpeg_compression(images: Tensor, ids: Tensor, streams: Streams, quality: float) -> Tensor:
    """What is left of images, rounded to bytes, after JPEG at ``quality``; grey ones have no colour to subsample."""
    bytes_ = _rounded(images.double() * 255)
    brightness, colour = (
        steps_at(standard, round(quality)).to(images.device) for standard in (BRIGHTNESS_STEPS, COLOUR_STEPS)
    )
    if images.shape[1] == 1:
        return (_quantised(bytes_[:, 0], brightness)[:, None] / 255).to(images.dtype)
    centre = torch.tensor([0.0, 128.0, 128.0], dtype=torch.float64, device=images.device)[:, None, None]
    forward, back = (torch.tensor(matrix, dtype=torch.float64, device=images.device) for matrix in (_TO_YCC, _TO_RGB))
    y, cb, cr = _rounded(torch.einsum("ij,bjhw->bihw", forward, bytes_) + centre).clamp_(0, 255).unbind(1)
    kept = torch.stack([_quantised(y, brightness), _colour(cb, colour), _colour(cr, colour)], dim=1) - centre
    return (_rounded(torch.einsum("ij,bjhw->bihw", back, kept)).clamp_(0, 255) / 255).to(images.dtype)
