"""The encoder of the context encoder in PyTorch-GAN, a public re-implementation with a generator of its own."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from unfool.core.config import configured
from unfool.models.convolution import Convolution
from unfool.models.trunks.base import TRUNKS, Trunk, TrunkSpec, scaled
from unfool.models.trunks.settings import Width

CHANNELS = (64, 64, 128, 256, 512)
"""Channels of the five stages."""

NORM_EPS = 0.8
"""What the batch norms of that code add to the variance; their second argument there, meant as a momentum perhaps."""

INITIAL_SPREAD = 0.02
"""The deviation of its convolutions' initial weights."""


@TRUNKS.add("gan-encoder")
class GanEncoder(Trunk):
    """Stages down1 to down5, each a 4×4 convolution of stride 2, batch norm but in the first, and leaky ReLU; and last.

    Images of 32 pixels end at 512 channels of 1×1, which last flattens; features of larger ones are averaged. At width
    1 it has 2,824,064 parameters.
    """

    initial_spread: ClassVar[float] = INITIAL_SPREAD

    @configured
    class Settings:
        """A multiplier of all widths."""

        width: Width = 1.0

    def __init__(self, spec: TrunkSpec):
        settings: GanEncoder.Settings = spec.settings
        parts: dict[str, nn.Module] = {}
        channels: dict[str, int] = {}
        inputs = spec.channels
        for index, base in enumerate(CHANNELS, start=1):
            outputs = scaled(base, settings.width)
            norms = [nn.BatchNorm2d(outputs, eps=NORM_EPS)] if index > 1 else []
            parts[f"down{index}"] = nn.Sequential(
                Convolution(inputs, outputs, 4, stride=2, padding=1), *norms, nn.LeakyReLU(0.2, inplace=True)
            )
            channels[f"down{index}"] = inputs = outputs
        parts["last"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(spec, parts, {**channels, "last": inputs}, smallest=1 << len(CHANNELS))
