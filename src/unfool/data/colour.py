# pyright: reportUnknownMemberType=false
"""Colour jitter and grey as one affine map of RGB per image.

In the plane of luma y = w·rgb and chroma, brightness b, contrast c and saturation s scale, and hue turns:

    rgb' = b c (1 wᵀ + s cos(h) P + s sin(h) Q) rgb + (1 - c) b m,      P = 1 - 1 wᵀ

where m is the image's mean luma and Q turns chroma by a quarter in the YIQ plane. Luma is kept by saturation and hue,
so the four compose into one 3×3 matrix and one offset. Grey is s = 0.

Legend: B images, H×W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unfool.core.errors import ImagesError, SpecError

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601 weights of red, green and blue, as in Pillow's greyscale conversion."""

_TO_YIQ = np.array([LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)])
_QUARTER = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
_KEEP = np.outer(np.ones(3), LUMA)
_CHROMA = np.eye(3) - _KEEP
_TURN = np.linalg.solve(_TO_YIQ, _QUARTER @ _TO_YIQ)


@dataclass(frozen=True, kw_only=True)
class ColourJitter:
    """How far factors go: brightness, contrast, saturation from max(0, 1 - s) to 1 + s; hue ± turns, at most 0.5."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self):
        values = (self.brightness, self.contrast, self.saturation, self.hue)
        if not all(0.0 <= value < math.inf for value in values) or self.hue > 0.5:
            raise SpecError(f"colour jitter {values} is not allowed; give 0 or more, hue at most 0.5")


def recoloured(images: Tensor, strengths: ColourJitter, draws: Tensor, *, jittered: Tensor, greyed: Tensor) -> Tensor:
    """Jitter the colours of images (B, 3, H, W) in [0,1] where ``jittered`` (B,), turn them grey where ``greyed`` (B,).

    ``draws`` (B, 4) are uniforms in [0,1) for brightness, contrast, saturation and hue. The result is clamped to [0,1].
    Raises ImagesError unless there are three channels.
    """
    if images.shape[1] != 3:
        raise ImagesError(f"images have {images.shape[1]} channels; colour jitter and grey take 3 (RGB)")
    brightness, contrast, saturation = (
        torch.where(jittered, _factor(strength, draws[:, column]), 1.0)
        for column, strength in enumerate((strengths.brightness, strengths.contrast, strengths.saturation))
    )
    hue = torch.where(jittered, (2.0 * draws[:, 3] - 1.0) * (strengths.hue * 2.0 * math.pi), 0.0)
    saturation = torch.where(greyed, 0.0, saturation)
    gain = brightness * contrast
    parts = torch.stack([gain, gain * saturation * torch.cos(hue), gain * saturation * torch.sin(hue)], dim=1)
    basis = torch.from_numpy(np.stack([_KEEP, _CHROMA, _TURN]).reshape(3, 9)).to(images)
    matrices = (parts @ basis).view(-1, 3, 3)
    flat = images.flatten(2)
    mean_luma = (flat.mean(dim=2) * images.new_tensor(LUMA)).sum(dim=1)
    offsets = (1.0 - contrast) * brightness * mean_luma
    return torch.baddbmm(offsets[:, None, None], matrices, flat).view_as(images).clamp_(0.0, 1.0)


def _factor(strength: float, unit: Tensor) -> Tensor:
    low = max(0.0, 1.0 - strength)
    return low + (1.0 + strength - low) * unit
