"""Decoders: heads that make a picture of a spatial stage's features, alone or with a discriminator beside them.

Legend: N views, D channels of the features, C of the picture, S pixels of its side.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.func import functional_call

from unfool.core.errors import SpecError
from unfool.models.convolution import AveragePool
from unfool.models.heads.base import HEADS, Head
from unfool.models.trunks.resnet import convolution_and_norm

GRID = 4
"""Side of the features that a decoder begins with; those of another size are averaged, or repeated, to it."""

SIDES = tuple(GRID << doublings for doublings in range(1, 7))

SMALLEST_PICTURE = 8
"""The least side of a picture that a discriminator can halve three times."""


@HEADS.add("decoder")
class DecoderHead(Head):
    """The decoder of a context encoder (Pathak et al., CVPR 2016, section 3.1), (N, D, h, w) → (N, C, S, S) in [0,1].

    ``width`` channels of 4×4 go through a layer that is fully connected within each channel, and are doubled in size
    and halved in number until they are ``side`` pixels wide; ``stage`` is the trunk's that is read. Departs from the
    paper: sizes are doubled by repetition before a 3×3 convolution where its up-convolution leaves checkerboards, the
    4×4 features are an average of the stage's, and a sigmoid keeps the picture in [0,1]. Raises SpecError for a side
    that is not one of `SIDES`.
    """

    keys = ("inputs", "width", "side", "outputs")
    texts: ClassVar[tuple[str, ...]] = ("stage",)

    def __init__(self, *, stage: str, inputs: int, width: int, side: int, outputs: int):
        if side not in SIDES:
            raise SpecError(f"side {side} of a decoder is not offered; give one of {', '.join(map(str, SIDES))}")
        area = GRID**2
        layers: list[nn.Module] = [
            AveragePool(GRID),
            *convolution_and_norm(inputs, width, 1),
            nn.ReLU(),
            # One kernel over the whole of a channel for each of its pixels: fully connected, and not across channels.
            nn.Conv2d(width, width * area, GRID, groups=width, bias=False),
            nn.Flatten(),
            nn.Unflatten(1, (width, GRID, GRID)),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        for _ in range(SIDES.index(side) + 1):
            narrower = max(1, width // 2)
            layers += [nn.Upsample(scale_factor=2), *convolution_and_norm(width, narrower, 3), nn.ReLU()]
            width = narrower
        layers += [nn.Conv2d(width, outputs, 3, padding=1), nn.Sigmoid()]
        sizes = {"inputs": inputs, "width": layers[1].out_channels, "side": side, "outputs": outputs}
        super().__init__({"kind": "decoder", "stage": stage, **sizes}, nn.Sequential(*layers))

    def forward(self, input: Tensor) -> Tensor:
        return self[0](input)


class Discriminating:
    """What a decoder has that makes pictures beside a ``discriminator`` of them."""

    discriminator: nn.Module

    def discriminate(self, pictures: Tensor, *, learning: bool = False) -> Tensor:
        """Verdicts (N, ...) on pictures (N, C, H, W), high for real; the discriminator learns only if ``learning``."""
        if learning:
            return self.discriminator(pictures).squeeze(1)
        still = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        return functional_call(self.discriminator, still, (pictures,)).squeeze(1)


@HEADS.add("judged-decoder")
class DiscriminatedDecoderHead(Discriminating, DecoderHead):
    """A decoder, and a discriminator of pictures of any side from `SMALLEST_PICTURE` on that is ``discriminator``
    channels wide at first.

    Three 4×4 convolutions of stride 2 with leaky ReLU, of doubling width, and a linear layer on 2×2 features. Departs
    from the paper's in that no batch norm makes a picture's verdict depend on its batch-mates.
    """

    keys = (*DecoderHead.keys, "discriminator")

    def __init__(self, *, discriminator: int, **decoder: Any):
        super().__init__(**decoder)
        self.description |= {"kind": "judged-decoder", "discriminator": discriminator}
        layers: list[nn.Module] = []
        inputs = decoder["outputs"]
        for index in range(3):
            outputs = discriminator << index
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            inputs = outputs
        layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * inputs, 1)]
        self.discriminator = nn.Sequential(*layers)
