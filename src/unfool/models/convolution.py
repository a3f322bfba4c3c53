"""Convolutions over images no larger than their kernel: one matrix product.

Deep in a network for small images a 3×3 kernel lies over 2×2 or a single position, and most of it over padding. The
product with that padding is most of what the layer costs there: in a ResNet-18 with ImageNet stem, of 32-pixel images,
half of a training step.

Legend: N views, D channels that go in, C that come out, h×w positions that go in, i×j that come out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEWEST_WEIGHTS = 128 * 128
"""Channels in times channels out below which a layer is so small that the product saves nothing."""

FEWEST_IMAGES = 64
"""Views below which it saves nothing where several positions come out, each of which has weights gathered for it."""


class Convolution(nn.Conv2d):
    """A convolution, and a matrix product where every output position sees the whole input.

    Both compute the same sums but for those with padding, in another order. Parameters and their names are those of
    `nn.Conv2d`. Other settings of groups, dilation or padding mode compute as it does.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, D, h, w) → (N, C, i, j)."""
        corners = self._corners(input)
        if corners is None:
            return super().forward(input)
        height, width = input.shape[2:]
        # Channels last, as the weights lie in memory, so that their gradient lies so too.
        weight_CkkD = self.weight.permute(0, 2, 3, 1)
        seen = [
            weight_CkkD[:, top : top + height, left : left + width].flatten(1)
            for top in corners[0]
            for left in corners[1]
        ]
        matrix = seen[0] if len(seen) == 1 else torch.cat(seen)
        bias = None if self.bias is None else self.bias.repeat(len(seen))
        outputs = F.linear(input.permute(0, 2, 3, 1).flatten(1), matrix, bias)
        return outputs.view(len(input), len(corners[0]), len(corners[1]), self.out_channels).permute(0, 3, 1, 2)

    def _corners(self, input: Tensor) -> tuple[range, range] | None:
        """Row and column of the kernel that lie over the input's first pixel, by output row and column.

        None where some output position does not see the whole input, or nothing is saved.
        """
        if input.ndim != 4 or self.in_channels * self.out_channels < FEWEST_WEIGHTS or isinstance(self.padding, str):
            return None
        if self.groups != 1 or self.padding_mode != "zeros" or self.dilation != (1, 1):
            return None
        rows, columns = (
            range(padding, padding - stride * ((side + 2 * padding - kernel) // stride + 1), -stride)
            for side, kernel, stride, padding in zip(
                input.shape[2:], self.kernel_size, self.stride, self.padding, strict=True
            )
        )
        whole = all(
            len(starts) and starts[-1] >= 0 and starts[0] + side <= kernel
            for starts, side, kernel in zip((rows, columns), input.shape[2:], self.kernel_size, strict=True)
        )
        worth_it = len(rows) == len(columns) == 1 or len(input) >= FEWEST_IMAGES
        return (rows, columns) if whole and worth_it else None
