"""ResNet-18 (He et al. 2016, table 1), with the ImageNet or the CIFAR stem, at any width."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from unfool.models.trunks import TRUNKS, Trunk, TrunkSpec, scaled


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    """Convolution and batch norm, side by side in a Sequential so that a fast copy can fold them."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut, which is a 1×1 convolution where the shape changes (option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.residual = nn.Sequential(
            *_convolution(inputs, outputs, 3, stride), nn.ReLU(inplace=True), *_convolution(outputs, outputs, 3, 1)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Sequential(*([] if same else _convolution(inputs, outputs, 1, stride)))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, h, w) → (B, outputs, h/stride, w/stride)."""
        return self.activation(self.residual(features) + self.shortcut(features))


@TRUNKS.add("resnet18")
class ResNet18(Trunk):
    """Stages stem, layer1 to layer4, last (global average pool, 512·width features).

    ``stem="imagenet"``: 7×7 stride 2 and 3×3 max-pool stride 2. ``stem="cifar"``: 3×3 stride 1, no pooling.
    """

    settings: ClassVar[dict[str, Any]] = {"stem": "cifar", "width": 1.0}
    stems: ClassVar[tuple[str, ...]] = ("cifar", "imagenet")

    def __init__(self, spec: TrunkSpec):
        widths = [scaled(base, spec.width or 1.0) for base in (64, 128, 256, 512)]
        cifar = spec.stem == "cifar"
        entry = _convolution(spec.channels, widths[0], 3, 1) if cifar else _convolution(spec.channels, widths[0], 7, 2)
        entry.append(nn.ReLU(inplace=True))
        if not cifar:
            entry.append(nn.MaxPool2d(3, stride=2, padding=1))
        parts: dict[str, nn.Module] = {"stem": nn.Sequential(*entry)}
        channels = {"stem": widths[0]}
        inputs = widths[0]
        for index, outputs in enumerate(widths, start=1):
            first = BasicBlock(inputs, outputs, 1 if index == 1 else 2)
            parts[f"layer{index}"] = nn.Sequential(first, BasicBlock(outputs, outputs, 1))
            channels[f"layer{index}"] = inputs = outputs
        parts["last"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(spec, parts, {**channels, "last": inputs})
