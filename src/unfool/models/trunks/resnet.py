"""ResNet-18 and ResNet-50 (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1).

With the ImageNet or the CIFAR stem, at any width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn

from unfool.core.config import configured
from unfool.models.convolution import Convolution
from unfool.models.trunks.base import TRUNKS, Trunk, TrunkSpec, scaled
from unfool.models.trunks.settings import Width

BOTTLENECK_EXPANSION = 4
"""Channels that a bottleneck block gives for each one between its convolutions."""


def convolution_and_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Convolution and batch norm, side by side in a Sequential so that a fast copy can fold them."""
    return [
        Convolution(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class _Block(nn.Module):
    """A residual around a shortcut, which is a 1×1 convolution where the shape changes (option B)."""

    def __init__(self, residual: Sequence[nn.Module], inputs: int, outputs: int, stride: int):
        super().__init__()
        self.residual = nn.Sequential(*residual)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Sequential(*([] if same else convolution_and_norm(inputs, outputs, 1, stride)))
        self.activation = nn.ReLU(inplace=True)
        self.outputs = outputs

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, h, w) → (B, outputs, h/stride, w/stride)."""
        return self.activation(self.residual(features) + self.shortcut(features))


class BasicBlock(_Block):
    """Two 3×3 convolutions around a shortcut; ``width`` channels come out."""

    def __init__(self, inputs: int, width: int, stride: int):
        layers = [
            *convolution_and_norm(inputs, width, 3, stride),
            nn.ReLU(inplace=True),
            *convolution_and_norm(width, width, 3),
        ]
        super().__init__(layers, inputs, width, stride)


class BottleneckBlock(_Block):
    """1×1, 3×3 and 1×1 convolutions around a shortcut; 4·``width`` channels come out (figure 5, right).

    Departs from the paper: the 3×3 convolution has the stride, not the first, as in the ResNet-50 whose weights are
    commonly published (Goyal et al. 2017, arXiv:1706.02677, section 5.1).
    """

    def __init__(self, inputs: int, width: int, stride: int):
        outputs = BOTTLENECK_EXPANSION * width
        layers = [
            *convolution_and_norm(inputs, width, 1),
            nn.ReLU(inplace=True),
            *convolution_and_norm(width, width, 3, stride),
            nn.ReLU(inplace=True),
            *convolution_and_norm(width, outputs, 1),
        ]
        super().__init__(layers, inputs, outputs, stride)


class _ResNet(Trunk):
    """Stages stem, layer1 to layer4 of so many ``blocks``, last (global average pool)."""

    @configured
    class Settings:
        """The first layers, and a multiplier of all widths."""

        stem: Literal["cifar", "imagenet"] = "cifar"
        width: Width = 1.0

    block: ClassVar[type[BasicBlock] | type[BottleneckBlock]]
    blocks: ClassVar[tuple[int, int, int, int]]

    def __init__(self, spec: TrunkSpec):
        settings: _ResNet.Settings = spec.settings
        widths = [scaled(base, settings.width) for base in (64, 128, 256, 512)]
        inputs = widths[0]
        cifar = settings.stem == "cifar"
        kernel, stride = (3, 1) if cifar else (7, 2)
        entry = [*convolution_and_norm(spec.channels, inputs, kernel, stride), nn.ReLU(inplace=True)]
        if not cifar:
            entry.append(nn.MaxPool2d(3, stride=2, padding=1))
        parts: dict[str, nn.Module] = {"stem": nn.Sequential(*entry)}
        channels = {"stem": inputs}
        for index, (width, count) in enumerate(zip(widths, self.blocks, strict=True), start=1):
            layer = [self.block(inputs, width, 1 if index == 1 else 2)]
            inputs = layer[0].outputs
            layer += [self.block(inputs, width, 1) for _ in range(count - 1)]
            parts[f"layer{index}"] = nn.Sequential(*layer)
            channels[f"layer{index}"] = inputs
        parts["last"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(spec, parts, {**channels, "last": inputs})


@TRUNKS.add("resnet18")
class ResNet18(_ResNet):
    """Stages stem, layer1 to layer4, last (global average pool, 512·width features).

    ``stem="imagenet"``: 7×7 stride 2 and 3×3 max-pool stride 2. ``stem="cifar"``: 3×3 stride 1, no pooling.
    """

    block = BasicBlock
    blocks = (2, 2, 2, 2)


@TRUNKS.add("resnet50")
class ResNet50(_ResNet):
    """Stages and stems as in ResNet-18, of bottleneck blocks; 256·width to 2048·width features."""

    block = BottleneckBlock
    blocks = (3, 4, 6, 3)
