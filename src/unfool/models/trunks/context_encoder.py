"""The encoder of context encoders (Pathak et al., "Feature Learning by Inpainting", CVPR 2016), strided throughout."""

from __future__ import annotations

from pydantic import field_validator
from torch import nn

from unfool.core.config import configured
from unfool.models.convolution import AveragePool, Convolution
from unfool.models.trunks.base import TRUNKS, Trunk, TrunkSpec, scaled
from unfool.models.trunks.settings import Width, check_depth

_GRID = 4
"""Side of the features that the last stage flattens."""

_FIRST, _MOST = 64, 512
"""Channels of the first stage, and the most that doubling from stage to stage leads to."""


@TRUNKS.add("context-encoder")
class ContextEncoder(Trunk):
    """Stages down1 to down``depth``, each a 4×4 convolution of stride 2, batch norm and leaky ReLU; and last.

    Depths 3, 4, 5 and 6 bring images of 32, 64, 128 and 256 pixels to 4×4 features, which last flattens: a linear head
    is then the fully connected layer behind the down-sampling path. Features of other images are averaged to 4×4.
    Channels double from 64·width to 512·width at most. Departs from the paper's AlexNet encoder, as its authors' code
    does; from their code in that the first stage has a batch norm too, that channels double from the first stage on,
    and that no bottleneck follows, in whose place a decoder has its channel-wise layer.
    """

    @configured
    class Settings:
        """A multiplier of all widths, and the number of stages, 3 to 6."""

        width: Width = 1.0
        depth: int = 3

        @field_validator("depth", mode="before")
        @classmethod
        def _offered(cls, depth: object) -> int:
            return check_depth(depth, range(3, 7))

    def __init__(self, spec: TrunkSpec):
        settings: ContextEncoder.Settings = spec.settings
        parts: dict[str, nn.Module] = {}
        channels: dict[str, int] = {}
        inputs, depth = spec.channels, settings.depth
        for index in range(depth):
            outputs = scaled(min(_FIRST << index, _MOST), settings.width)
            parts[f"down{index + 1}"] = nn.Sequential(
                Convolution(inputs, outputs, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.LeakyReLU(0.2, inplace=True),
            )
            channels[f"down{index + 1}"] = inputs = outputs
        parts["last"] = nn.Sequential(AveragePool(_GRID), nn.Flatten())
        super().__init__(spec, parts, {**channels, "last": inputs * _GRID**2}, smallest=1 << depth)
