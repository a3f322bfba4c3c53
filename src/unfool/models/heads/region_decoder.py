"""The decoder and the discriminator of the context encoder in PyTorch-GAN: pictures of the masked region alone.

Legend: N views, D channels of the features, C of the picture, h×w positions of the features.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from unfool.core.errors import SpecError
from unfool.models.convolution import Convolution, Windows, gathered
from unfool.models.heads.base import HEADS, Head
from unfool.models.heads.decoder import Discriminating
from unfool.models.trunks.gan_encoder import INITIAL_SPREAD, NORM_EPS

DOUBLINGS = 4
"""How often the side of the features is doubled."""

SMALLEST_REGION = 9
"""The least side of a region whose instance norms, behind three strides of 2, see more than one position."""


MIDDLE = Windows(rows=range(1, 2), columns=range(1, 2), height=2, width=2)
"""The part of a 4×4 kernel that is seen of a single position."""


class UpConvolution(nn.ConvTranspose2d):
    """A transposed 4×4 convolution of stride 2, (N, D, h, w) → (N, C, 2h, 2w).

    Of a single position's 4×4 pixels the middle 2×2 are left: there the rest of the kernel, three quarters of what a
    bottleneck of many channels would cost, is not multiplied out.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 4, stride=2, padding=1)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if input.shape[2:] != (1, 1):
            return super().forward(input, output_size)
        bias = None if self.bias is None else self.bias.repeat(4)
        # Channels last, as the weights lie in memory, so that their gradient lies so too.
        seen = gathered(self.weight.permute(0, 2, 3, 1), MIDDLE)
        return F.linear(input.flatten(1), seen.t(), bias).view(-1, 2, 2, self.out_channels).permute(0, 3, 1, 2)


@HEADS.add("region-decoder")
class RegionDecoderHead(Head):
    """The up-sampling path, (N, D, h, w) → (N, C, 16h, 16w) in [0,1]: half of the image's side from a 32nd of it.

    A 1×1 bottleneck of ``width`` channels, four transposed convolutions of D, D/2, D/4 and D/8 channels with batch norm
    and ReLU, a 3×3 convolution and a tanh, whose -1 to 1 stand for the pixels' 0 to 1. ``stage`` is the trunk's that is
    read. Raises SpecError for fewer than 8 channels of features.
    """

    initial_spread: ClassVar[float] = INITIAL_SPREAD
    keys = ("inputs", "width", "outputs")
    texts: ClassVar[tuple[str, ...]] = ("stage",)

    def __init__(self, *, stage: str, inputs: int, width: int, outputs: int):
        if inputs < 1 << (DOUBLINGS - 1):
            raise SpecError(f"a region decoder halves the {inputs} channels that it reads three times; give 8 or more")
        layers: list[nn.Module] = [Convolution(inputs, width, 1)]
        before = width
        for index in range(DOUBLINGS):
            after = inputs >> index
            layers += [UpConvolution(before, after), nn.BatchNorm2d(after, eps=NORM_EPS), nn.ReLU()]
            before = after
        layers += [nn.Conv2d(before, outputs, 3, padding=1), nn.Tanh()]
        sizes = {"inputs": inputs, "width": width, "outputs": outputs}
        super().__init__({"kind": "region-decoder", "stage": stage, **sizes}, nn.Sequential(*layers))

    def forward(self, input: Tensor) -> Tensor:
        return (1 + self[0](input)) / 2


@HEADS.add("judged-region-decoder")
class JudgedRegionDecoderHead(Discriminating, RegionDecoderHead):
    """The same, and a patch discriminator of regions of any side from `SMALLEST_REGION` on, which gives a verdict for
    each of its patches: four 3×3 convolutions, three of stride 2, from ``discriminator`` channels doubling, with leaky
    ReLU and, but in the first, instance norm; and one to a single channel.
    """

    keys = (*RegionDecoderHead.keys, "discriminator")

    def __init__(self, *, discriminator: int, **decoder: Any):
        super().__init__(**decoder)
        self.description |= {"kind": "judged-region-decoder", "discriminator": discriminator}
        layers: list[nn.Module] = []
        inputs = decoder["outputs"]
        for index, stride in enumerate((2, 2, 2, 1)):
            outputs = discriminator << index
            norms = [nn.InstanceNorm2d(outputs)] if index else []
            layers += [Convolution(inputs, outputs, 3, stride, 1), *norms, nn.LeakyReLU(0.2)]
            inputs = outputs
        self.discriminator = nn.Sequential(*layers, nn.Conv2d(inputs, 1, 3, 1, 1))
