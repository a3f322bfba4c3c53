"""Wide residual networks (Zagoruyko & Komodakis, "Wide Residual Networks", BMVC 2016, table 1), without dropout."""

from __future__ import annotations

from pydantic import field_validator
from torch import nn

from unfool.core.config import configured
from unfool.models.trunks.base import TRUNKS, Trunk, TrunkSpec, scaled
from unfool.models.trunks.preact_resnet import batch_norm_relu, convolution, preactivation_blocks
from unfool.models.trunks.settings import Width, check_depth

STEM_WIDTH = 16
"""Channels of the first convolution; the width factor leaves them as they are."""


@TRUNKS.add("wide-resnet")
class WideResNet(Trunk):
    """Stages stem (a bare 3×3 convolution), block1 to block3, last (batch norm, ReLU, average pool; 64·width features).

    WRN-28-10 is ``depth=28, width=10``, WRN-34-10 ``depth=34, width=10``: (depth - 4) / 6 blocks of two convolutions a
    stage, 16·width, 32·width and 64·width channels.
    """

    @configured
    class Settings:
        """A multiplier of all widths, and the number of layers: 10, 16, 22 and so on up to 202."""

        width: Width = 10.0
        depth: int = 28

        @field_validator("depth", mode="before")
        @classmethod
        def _offered(cls, depth: object) -> int:
            return check_depth(depth, range(10, 203, 6))

    def __init__(self, spec: TrunkSpec):
        settings: WideResNet.Settings = spec.settings
        blocks = (settings.depth - 4) // 6
        inputs = STEM_WIDTH
        parts: dict[str, nn.Module] = {"stem": nn.Sequential(convolution(spec.channels, inputs))}
        channels = {"stem": inputs}
        for index, base in enumerate((16, 32, 64), start=1):
            outputs = scaled(base, settings.width)
            parts[f"block{index}"] = preactivation_blocks(blocks, inputs, outputs, 1 if index == 1 else 2)
            channels[f"block{index}"] = inputs = outputs
        parts["last"] = nn.Sequential(*batch_norm_relu(inputs), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(spec, parts, {**channels, "last": inputs})
