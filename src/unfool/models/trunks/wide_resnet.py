"""Wide residual networks (Zagoruyko & Komodakis, "Wide Residual Networks", BMVC 2016, table 1), without dropout."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from unfool.models.trunks.base import TRUNKS, Trunk, TrunkSpec, scaled
from unfool.models.trunks.preact_resnet import batch_norm_relu, convolution, preactivation_blocks

STEM_WIDTH = 16
"""Channels of the first convolution; the width factor leaves them as they are."""


@TRUNKS.add("wide-resnet")
class WideResNet(Trunk):
    """Stages stem (a bare 3×3 convolution), block1 to block3, last (batch norm, ReLU, average pool; 64·width features).

    WRN-28-10 is ``depth=28, width=10``, WRN-34-10 ``depth=34, width=10``: (depth - 4) / 6 blocks of two convolutions a
    stage, 16·width, 32·width and 64·width channels.
    """

    settings: ClassVar[dict[str, Any]] = {"depth": 28, "width": 10.0}
    depths: ClassVar[range] = range(10, 203, 6)

    def __init__(self, spec: TrunkSpec):
        blocks = ((spec.depth or self.settings["depth"]) - 4) // 6
        inputs = STEM_WIDTH
        parts: dict[str, nn.Module] = {"stem": nn.Sequential(convolution(spec.channels, inputs))}
        channels = {"stem": inputs}
        for index, base in enumerate((16, 32, 64), start=1):
            outputs = scaled(base, spec.width or self.settings["width"])
            parts[f"block{index}"] = preactivation_blocks(blocks, inputs, outputs, 1 if index == 1 else 2)
            channels[f"block{index}"] = inputs = outputs
        parts["last"] = nn.Sequential(*batch_norm_relu(inputs), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(spec, parts, {**channels, "last": inputs})
