"""PreAct ResNet-18 (He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016), and the block it is made of.

Batch norm and ReLU stand before each convolution, so that nothing but additions lies on the way of the shortcut.
"""

from __future__ import annotations

from torch import Tensor, nn

from unfool.core.config import configured
from unfool.models.convolution import Convolution
from unfool.models.trunks.base import TRUNKS, Trunk, TrunkSpec, scaled
from unfool.models.trunks.settings import Width


def convolution(inputs: int, outputs: int, stride: int = 1) -> Convolution:
    """3×3, padded, without bias."""
    return Convolution(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def batch_norm_relu(channels: int) -> list[nn.Module]:
    """Batch norm and ReLU."""
    return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


class PreactivationBlock(nn.Module):
    """Two 3×3 convolutions, each after batch norm and ReLU, around a shortcut (He et al. 2016b, figure 4e).

    Where the shape changes the shortcut is a 1×1 convolution of the activated features, else the features as they are.
    The second batch norm follows the first convolution in ``residual``, where a fast copy folds it; what ``entry``
    normalises is a sum that the shortcut needs as it is, so that batch norm stays.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.entry = nn.Sequential(*batch_norm_relu(inputs))
        self.residual = nn.Sequential(
            convolution(inputs, outputs, stride), *batch_norm_relu(outputs), convolution(outputs, outputs)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else Convolution(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, h, w) → (B, outputs, h/stride, w/stride)."""
        activated = self.entry(features)
        return self.residual(activated) + (features if self.shortcut is None else self.shortcut(activated))


def preactivation_blocks(count: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """So many blocks in a row; the first changes the shape."""
    first = PreactivationBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(PreactivationBlock(outputs, outputs, 1) for _ in range(count - 1)))


@TRUNKS.add("preact-resnet18")
class PreactResNet18(Trunk):
    """Stages stem (a bare 3×3 convolution), layer1 to layer4, last (batch norm, ReLU, average pool; 512·width)."""

    @configured
    class Settings:
        """A multiplier of all widths."""

        width: Width = 1.0

    def __init__(self, spec: TrunkSpec):
        settings: PreactResNet18.Settings = spec.settings
        inputs = scaled(64, settings.width)
        parts: dict[str, nn.Module] = {"stem": nn.Sequential(convolution(spec.channels, inputs))}
        channels = {"stem": inputs}
        for index, base in enumerate((64, 128, 256, 512), start=1):
            outputs = scaled(base, settings.width)
            parts[f"layer{index}"] = preactivation_blocks(2, inputs, outputs, 1 if index == 1 else 2)
            channels[f"layer{index}"] = inputs = outputs
        parts["last"] = nn.Sequential(*batch_norm_relu(inputs), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(spec, parts, {**channels, "last": inputs})
