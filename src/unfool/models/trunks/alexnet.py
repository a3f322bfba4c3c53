"""AlexNet (Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NeurIPS 2012)."""

from __future__ import annotations

from typing import Literal

from torch import nn

from unfool.core.config import configured
from unfool.models.trunks.base import TRUNKS, Trunk, TrunkSpec, scaled
from unfool.models.trunks.resnet import convolution_and_norm
from unfool.models.trunks.settings import Width

_CONVOLUTIONS = ((96, 11, True), (256, 5, True), (384, 3, False), (384, 3, False), (256, 3, True))
"""Channels and kernel of each convolution, and whether a max-pool follows it."""

LAST_SIDE = 2
"""Side to which the last features are averaged before they are flattened."""


@TRUNKS.add("alexnet")
class AlexNet(Trunk):
    """Stages conv1 to conv5, of which 1, 2 and 5 end in a max-pool, and last (averages of the four quarters).

    ``stem`` is the first stride: ``stride-4`` as in the paper, ``stride-2`` for tiles of an image (Noroozi & Favaro,
    ECCV 2016, section 3.1), whose 64 pixels then leave the paper's 4×4 features at conv5. Departs from Krizhevsky et
    al.: one tower without groups; batch norm behind every convolution, where they normalise across channels behind the
    first two alone; every layer is padded by half its kernel, so that no image is too small; no fully connected layers,
    whose place the heads take, which read the mean of each quarter: 4·256·width features.
    """

    @configured
    class Settings:
        """Stride of the first convolution, and a multiplier of all widths."""

        stem: Literal["stride-4", "stride-2"] = "stride-4"
        width: Width = 1.0

    def __init__(self, spec: TrunkSpec):
        settings: AlexNet.Settings = spec.settings
        parts: dict[str, nn.Module] = {}
        channels: dict[str, int] = {}
        inputs, stride = spec.channels, 4 if settings.stem == "stride-4" else 2
        for index, (base, kernel, pooled) in enumerate(_CONVOLUTIONS, start=1):
            outputs = scaled(base, settings.width)
            pool = [nn.MaxPool2d(3, stride=2, padding=1)] if pooled else []
            parts[f"conv{index}"] = nn.Sequential(
                *convolution_and_norm(inputs, outputs, kernel, stride), nn.ReLU(inplace=True), *pool
            )
            channels[f"conv{index}"] = outputs
            inputs, stride = outputs, 1
        parts["last"] = nn.Sequential(nn.AdaptiveAvgPool2d(LAST_SIDE), nn.Flatten())
        super().__init__(spec, parts, {**channels, "last": LAST_SIDE**2 * inputs})
