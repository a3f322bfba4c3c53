"""VGG-16 (Simonyan & Zisserman, "Very Deep Convolutional Networks", ICLR 2015, table 1, D) with batch norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from unfool.core.config import configured
from unfool.models.trunks.base import TRUNKS, Trunk, TrunkSpec, scaled
from unfool.models.trunks.resnet import convolution_and_norm
from unfool.models.trunks.settings import Width

_LAYERS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of the 3×3 convolutions before each max-pool."""


@TRUNKS.add("vgg16")
class VGG16(Trunk):
    """Stages pool1 to pool5, each behind its max-pool, and last (global average pool, 512·width features).

    Departs from the paper: batch norm behind each convolution, which then needs no bias (Ioffe & Szegedy 2015, section
    3.2), and no fully connected layers, whose place the heads take. Images of 32, 64 and 96 pixels a side leave 1×1,
    2×2 and 3×3 features at pool5; smaller ones leave none.
    """

    @configured
    class Settings:
        """A multiplier of all widths."""

        width: Width = 1.0

    probe_sizes: ClassVar[Mapping[str, int]] = {"pool1": 10, "pool2": 5, "pool3": 2, "pool4": 2, "pool5": 1}
    """The linear probes of the noisy-rotation source read averages of these sides: 6400, 3200, 1024, 2048 and 512
    numbers at width 1. Of 32, 64 and 96 pixels only 64 give all five with whole windows that do not overlap."""

    def __init__(self, spec: TrunkSpec):
        settings: VGG16.Settings = spec.settings
        parts: dict[str, nn.Module] = {}
        channels: dict[str, int] = {}
        inputs = spec.channels
        for index, (base, count) in enumerate(_LAYERS, start=1):
            outputs = scaled(base, settings.width)
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += [*convolution_and_norm(inputs, outputs, 3), nn.ReLU(inplace=True)]
                inputs = outputs
            parts[f"pool{index}"] = nn.Sequential(*layers, nn.MaxPool2d(2))
            channels[f"pool{index}"] = outputs
        parts["last"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(spec, parts, {**channels, "last": inputs}, smallest=32)
