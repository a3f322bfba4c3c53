# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Convolutions over images no larger than their kernel: one matrix product.

Deep in a network for small images a 3×3 kernel lies over 2×2 or a single position, and most of it over padding. The
product with that padding is most of what the layer costs there: in a ResNet-18 with ImageNet stem, of 32-pixel images,
half of a training step.

Legend: N views, D channels that go in, C that come out, h×w positions that go in, i×j that come out (P in all), k×k
taps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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
        windows = self._windows(input)
        if windows is None:
            return super().forward(input)
        # Channels last, as the weights lie in memory, so that their gradient lies so too.
        matrix = gathered(self.weight.permute(0, 2, 3, 1), windows)
        bias = None if self.bias is None else self.bias.repeat(len(windows.rows) * len(windows.columns))
        outputs = F.linear(input.permute(0, 2, 3, 1).flatten(1), matrix, bias)
        sides = len(windows.rows), len(windows.columns), self.out_channels
        return outputs.unflatten(1, sides).permute(0, 3, 1, 2)

    def _windows(self, input: Tensor) -> Windows | None:
        """The taps over the input; None where some output position does not see all of it, or nothing is saved."""
        if input.ndim != 4 or self.in_channels * self.out_channels < FEWEST_WEIGHTS or isinstance(self.padding, str):
            return None
        if self.groups != 1 or self.padding_mode != "zeros" or self.dilation != (1, 1):
            return None
        height, width = input.shape[2:]
        rows, columns = (
            range(padding, padding - stride * ((side + 2 * padding - kernel) // stride + 1), -stride)
            for side, kernel, stride, padding in zip(
                (height, width), self.kernel_size, self.stride, self.padding, strict=True
            )
        )
        whole = all(
            len(starts) and starts[-1] >= 0 and starts[0] + side <= kernel
            for starts, side, kernel in zip((rows, columns), (height, width), self.kernel_size, strict=True)
        )
        worth_it = len(rows) == len(columns) == 1 or len(input) >= FEWEST_IMAGES
        return Windows(rows=rows, columns=columns, height=height, width=width) if whole and worth_it else None


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of ``height`` × ``width`` taps in a kernel, by the first ``rows`` and ``columns`` of each."""

    rows: range
    columns: range
    height: int
    width: int

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        for top, left in itertools.product(self.rows, self.columns):
            yield slice(top, top + self.height), slice(left, left + self.width)


def gathered(weight: Tensor, windows: Windows) -> Tensor:
    """The weights (C, k, k, D) in each of P windows as a matrix (P·C, h·w·D), in the precision of a product."""
    device, dtype = weight.device.type, weight.dtype
    if dtype is torch.float32 and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return _Gathered.apply(weight, windows, dtype)


class _Gathered(torch.autograd.Function):
    """The gathering, whose gradient is one tensor and not one for each window."""

    @staticmethod
    def forward(weight: Tensor, windows: Windows, dtype: torch.dtype) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        parts = [weight[:, rows, columns] for rows, columns in windows]
        matrix = weight.new_empty(len(parts), *parts[0].shape, dtype=dtype)
        for number, part in enumerate(parts):
            matrix[number] = part
        return matrix.flatten(2).flatten(0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, ctx.windows, _ = inputs
        ctx.shape, ctx.dtype = weight.shape, weight.dtype

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        channels, height, width, inputs = ctx.shape
        windows: Windows = ctx.windows
        parts = gradient.view(-1, channels, windows.height, windows.width, inputs)
        total = gradient.new_zeros(ctx.shape, dtype=ctx.dtype)
        for part, (rows, columns) in zip(parts, windows, strict=True):
            if torch.is_grad_enabled():
                # Differentiated once more, perhaps under a transform that allows no writing in place.
                sides = (columns.start, width - columns.stop, rows.start, height - rows.stop)
                total = total + F.pad(part.to(ctx.dtype), (0, 0, *sides))
            else:
                total[:, rows, columns] += part
        return total, None, None
