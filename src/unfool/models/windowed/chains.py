# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""A network seen as a chain: convolutions of images one after another, and what follows them.

Legend: N views, C channels, H×W positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfool.models.convolution import CONVOLUTIONS
from unfool.models.fast import changes_precision
from unfool.models.network import Network
from unfool.models.trunks import Trunk

_ELEMENTWISE = (
    nn.Identity,
    nn.BatchNorm2d,
    nn.ReLU,
    nn.LeakyReLU,
    nn.GELU,
    nn.SiLU,
    nn.ELU,
    nn.Softplus,
    nn.Tanh,
    nn.Sigmoid,
    nn.Hardswish,
)
"""Layers whose outputs depend, in eval mode, on the input at the same position alone."""


@dataclass(frozen=True)
class Link:
    """A convolution and the layers up to the next.

    These keep positions apart, but for poolings that make one of ``pool`` × ``pool``. ``dtype`` is their precision.
    """

    convolution: nn.Conv2d
    others: tuple[nn.Module, ...]
    pool: int
    dtype: torch.dtype

    @property
    def kernel(self) -> int:
        """How many positions a side of the inputs an output of the convolution depends on."""
        return self.convolution.dilation[0] * (self.convolution.kernel_size[0] - 1) + 1

    @property
    def stride(self) -> int:
        """How many positions of the inputs lie between those of two outputs of the convolution."""
        return self.convolution.stride[0]

    @property
    def padding(self) -> int:
        """How many zeros a side the convolution sees before the inputs, and behind them."""
        return int(self.convolution.padding[0])

    def convolved(self, inputs: Tensor, padding: int, bias: Tensor | None = None) -> Tensor:
        """The convolution alone, of inputs (N, C, H, W)."""
        own = self.convolution
        values = inputs.to(own.weight.dtype)
        return F.conv2d(values, own.weight, bias, own.stride, padding, own.dilation, own.groups)

    def completed(self, convolved: Tensor) -> Tensor:
        """What the other layers make of the convolution's outputs at any rectangle of positions.

        The outputs stay as they are, whatever is done to the result.
        """
        values = convolved.to(self.dtype)
        if values is convolved and any(getattr(layer, "inplace", False) for layer in self.others):
            values = values.clone()
        for layer in self.others:
            values = layer(values)
        return values.clone() if values is convolved else values

    def convolutions(self, side: int) -> int:
        """How many positions a side the convolution makes of ``side``."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1

    def outputs(self, side: int) -> int:
        """How many positions a side come out of ``side``."""
        return self.convolutions(side) // self.pool


@dataclass(frozen=True)
class Chain:
    """``prepare`` normalises images, ``links`` follow one another, ``rest`` makes logits of what the last gives."""

    prepare: Callable[[Tensor], Tensor]
    links: tuple[Link, ...]
    rest: Callable[[Tensor], Tensor]

    def cut(self, links: int) -> Callable[[Tensor], Tensor]:
        """What makes logits of the outputs of so many links."""

        def later(features: Tensor) -> Tensor:
            for link in self.links[links:]:
                for layer in (link.convolution, *link.others):
                    features = layer(features)
            return self.rest(features)

        return self.rest if links == len(self.links) else later


def chain_of(model: object) -> Chain | None:
    """The chain that a network, or its fast copy, is; None for another model, or where hooks may see its layers."""
    if type(model) is not Network or model.classifier is None or not _bare(model):
        return None
    if any(part.training for part in model.modules()):
        return None
    trunk, head = model.trunk, model.heads[model.classifier]
    if type(trunk).collect is not Trunk.collect or type(trunk).forward is not Trunk.forward or not _bare(trunk):
        return None
    if getattr(head, "stage", "last") != trunk.stages[-1]:
        return None
    layers = [layer for part in trunk.parts.values() for layer in _flattened(part)]
    links: list[Link] = []
    while (link := _link(layers)) is not None:
        links.append(link)
        del layers[: 1 + len(link.others)]
    if not links:
        return None
    mean, std = model.mean, model.std

    def rest(features: Tensor) -> Tensor:
        for layer in layers:
            features = layer(features)
        return head(features.to(mean.dtype))

    return Chain(lambda images: (images - mean) / std, tuple(links), rest)


def _bare(part: nn.Module) -> bool:
    """Whether no hook sees the module, but for those of a fast copy that change its precision."""
    hooks = (*part._forward_hooks.values(), *part._forward_pre_hooks.values())  # pyright: ignore[reportPrivateUsage]
    return all(changes_precision(hook) for hook in hooks)


def _flattened(part: nn.Module) -> Iterator[nn.Module]:
    """The layers of nested plain sequences."""
    if type(part) is nn.Sequential and _bare(part):
        for layer in part:
            yield from _flattened(layer)
    else:
        yield part


def _link(layers: list[nn.Module]) -> Link | None:
    """The link that the layers begin with."""
    first = layers[0] if layers else None
    if type(first) not in CONVOLUTIONS or not isinstance(first, nn.Conv2d) or not _bare(first):
        return None
    sides = first.kernel_size, first.stride, first.padding, first.dilation
    if first.padding_mode != "zeros" or any(isinstance(pair, str) or pair[0] != pair[1] for pair in sides):
        return None
    pool = 1
    others: list[nn.Module] = []
    for layer in layers[1:]:
        window = _pooled(layer)
        if not _bare(layer) or (window is None and not _elementwise(layer)):
            break
        others.append(layer)
        pool *= window or 1
    lowered = any(changes_precision(hook) for hook in first._forward_hooks.values())  # pyright: ignore[reportPrivateUsage]
    dtype = torch.bfloat16 if lowered else first.weight.dtype
    return Link(first, tuple(others), pool, dtype)


def _elementwise(layer: nn.Module) -> bool:
    """Whether an output depends on the input at its position alone, and not on statistics of the batch."""
    own_statistics = type(layer) is nn.BatchNorm2d and layer.running_mean is None
    return type(layer) in _ELEMENTWISE and not own_statistics


def _pooled(layer: nn.Module) -> int | None:
    """The side of a pooling's windows, which lie side by side; None for another layer."""
    if type(layer) is nn.MaxPool2d:
        usual = _both(layer.dilation) == (1, 1) and not layer.return_indices
    elif type(layer) is nn.AvgPool2d:
        usual = layer.divisor_override is None
    else:
        return None
    side = _both(layer.kernel_size)
    usual = usual and not layer.ceil_mode and _both(layer.padding) == (0, 0)
    return side[0] if usual and side == _both(layer.stride) and side[0] == side[1] else None


def _both(sides: int | tuple[int, ...]) -> tuple[int, ...]:
    """One number for both axes, or one for each."""
    return (sides, sides) if isinstance(sides, int) else sides
