"""A narrow convolutional net for training on two cores, in the spirit of airbench (Jordan 2024, arXiv:2404.00498).

It departs from airbench: no whitening and no frozen layer, batch norm with scale, a plain linear head outside.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from unfool.core.config import configured
from unfool.models.convolution import Convolution
from unfool.models.trunks.base import TRUNKS, Trunk, TrunkSpec
from unfool.models.trunks.settings import ThreeWidths


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3×3 convolutions; the first halves the image.

    Batch norm stands after the pooling, where training it costs a quarter; a fast copy folds it all the same.
    """
    return nn.Sequential(
        Convolution(inputs, outputs, 3, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(outputs),
        nn.GELU(),
        Convolution(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.GELU(),
    )


@TRUNKS.add("convnet")
class ConvNet(Trunk):
    """Stages stem, block1 to block3, last (global max-pool, ``widths[2]`` features).

    ``stem="dense"``: 2×2 without padding. ``stem="strided"``: 4×4 stride 2, a quarter of the cost, meant for
    adversarial training. ``widths`` are those of the stem, the first block, and the other two blocks.
    """

    @configured
    class Settings:
        """The first convolution, and the channels of the stem, the first block and the other blocks."""

        stem: Literal["dense", "strided"] = "dense"
        widths: ThreeWidths = (24, 64, 128)

    def __init__(self, spec: TrunkSpec):
        settings: ConvNet.Settings = spec.settings
        entry, first, rest = settings.widths
        dense = settings.stem == "dense"
        stem = Convolution(spec.channels, entry, 2) if dense else Convolution(spec.channels, entry, 4, 2, 1)
        parts: dict[str, nn.Module] = {
            "stem": nn.Sequential(stem, nn.GELU()),
            "block1": _block(entry, first),
            "block2": _block(first, rest),
            "block3": _block(rest, rest),
            "last": nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()),
        }
        channels = {"stem": entry, "block1": first, "block2": rest, "block3": rest, "last": rest}
        super().__init__(spec, parts, channels, smallest=9 if dense else 16)
