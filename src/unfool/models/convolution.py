# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Convolutions that cost less than torch's where their inputs are small: last layers, and the gradient of images.

Deep in a network for small images a 3×3 kernel lies over 2×2 or a single position, and most of it over padding. The
product with that padding is most of what the layer costs there: in a ResNet-18 with ImageNet stem, of 32-pixel images,
half of a training step. There the layer is one matrix product.

The gradient by the images of a first layer that halves them fills few channels, for which no kernel is fast: in attacks
it costs five times the layer itself. Here it is a convolution to four times as many channels, one for each place in a
2×2 cell of pixels, and takes half of the time.

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

FEW_CHANNELS, FEWEST_OUTPUTS = 4, 16
"""Channels of images, and those that must come out for their gradient to be worth a way of its own."""


class Convolution(nn.Conv2d):
    """`nn.Conv2d`: a matrix product where every output position sees the whole input, and a faster gradient of images.

    All compute the same sums but for those with padding, in another order. Parameters and their names are those of
    `nn.Conv2d`. Other settings of groups, dilation or padding mode compute as it does.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, D, h, w) → (N, C, i, j)."""
        if not self._is_plain():
            return super().forward(input)
        if self._halves_images() and input.requires_grad and input.device.type == "cpu" and torch.is_grad_enabled():
            dtype = _product_dtype(input)
            bias = None if self.bias is None else self.bias.to(dtype)
            return _Halved.apply(input.to(dtype), self.weight.to(dtype), bias, self.padding)
        windows = self._windows(input)
        if windows is None:
            return super().forward(input)
        # Channels last, as the weights lie in memory, so that their gradient lies so too.
        matrix = gathered(self.weight.permute(0, 2, 3, 1), windows)
        bias = None if self.bias is None else self.bias.repeat(len(windows.rows) * len(windows.columns))
        outputs = F.linear(input.permute(0, 2, 3, 1).flatten(1), matrix, bias)
        sides = len(windows.rows), len(windows.columns), self.out_channels
        return outputs.unflatten(1, sides).permute(0, 3, 1, 2)

    def _is_plain(self) -> bool:
        """Neither groups nor dilation nor another padding than zeros; nor is the module being exported."""
        usual = self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"
        tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        return usual and not isinstance(self.padding, str) and not tracing

    def _halves_images(self) -> bool:
        """Whether it is a first layer of stride 2."""
        few = self.in_channels <= FEW_CHANNELS and self.out_channels >= FEWEST_OUTPUTS
        return few and self.stride == (2, 2) and min(self.kernel_size) > 1

    def _windows(self, input: Tensor) -> Windows | None:
        """The taps over the input; None where some output position does not see all of it, or nothing is saved."""
        few = self.in_channels * self.out_channels < FEWEST_WEIGHTS
        if input.ndim != 4 or few or isinstance(self.padding, str):
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


class AveragePool(nn.AdaptiveAvgPool2d):
    """`nn.AdaptiveAvgPool2d`, which repeats a single position without a loop over what comes out."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, D, h, w) → (N, D, side, side)."""
        if input.shape[2:] != (1, 1) or not isinstance(self.output_size, int):
            return super().forward(input)
        return input.expand(-1, -1, self.output_size, self.output_size)


CONVOLUTIONS = (nn.Conv2d, Convolution)
"""The types that compute a convolution and nothing else; another subclass may compute something else."""


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
    return _Gathered.apply(weight, windows, _product_dtype(weight))


def _product_dtype(tensor: Tensor) -> torch.dtype:
    """The precision that autocast chooses for a product with the tensor."""
    device = tensor.device.type
    if tensor.dtype is torch.float64 or not torch.amp.is_autocast_available(device):
        return tensor.dtype
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


class _Gathered(torch.autograd.Function):
    """The gathering, whose gradient is one tensor and not one for each window."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, windows: Windows, dtype: torch.dtype) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        parts = [weight[:, rows, columns].to(dtype).flatten(1) for rows, columns in windows]
        return torch.cat(parts)

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


class _Halved(torch.autograd.Function):
    """A convolution of stride 2 and few input channels, with its own gradient by the images."""

    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return F.conv2d(images, weight, bias, 2, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        images, weight, bias, ctx.padding = inputs
        ctx.sizes = None if bias is None else list(bias.shape)
        ctx.save_for_backward(images, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        images, weight = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        own = wanted[0] and not torch.is_grad_enabled()
        if own:
            wanted[0] = False
        gradients: list[Tensor | None] = [None, None, None]
        if any(wanted):
            settings = ctx.sizes, (2, 2), ctx.padding, (1, 1), False, (0, 0), 1, wanted
            gradients = list(torch.ops.aten.convolution_backward(gradient, images, weight, *settings))
        if own:
            gradients[0] = _by_images(gradient, weight, ctx.padding, images.shape[2:])
        return *gradients, None


def _by_images(gradient: Tensor, weight: Tensor, padding: tuple[int, int], sides: torch.Size) -> Tensor:
    """The gradient (N, D, *sides) by images of a convolution of stride 2 from that (N, C, i, j) by its outputs.

    A padded pixel 2q + f gets, from output q - m, what tap 2m + f weighs: for both f, a convolution of the outputs.
    """
    height, width = (side + side % 2 for side in weight.shape[2:])
    weight = F.pad(weight, (0, width - weight.shape[3], 0, height - weight.shape[2]))
    cells = weight.unflatten(3, (width // 2, 2)).unflatten(2, (height // 2, 2)).permute(1, 3, 5, 0, 2, 4)
    kernel = cells.flip(4, 5).flatten(0, 2).contiguous(memory_format=torch.channels_last)
    pixels = F.pixel_shuffle(F.conv2d(gradient, kernel, padding=(height // 2 - 1, width // 2 - 1)), 2)
    # The last pixels may lie beyond every window.
    missing = [max(0, pad + side - have) for pad, side, have in zip(padding, sides, pixels.shape[2:], strict=True)]
    pixels = F.pad(pixels, (0, missing[1], 0, missing[0]))
    return pixels[:, :, padding[0] : padding[0] + sides[0], padding[1] : padding[1] + sides[1]]
