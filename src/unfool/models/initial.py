# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Initial weights as a pure function of (seed, parameter name, output channel, element)."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from unfool.core.errors import SpecError
from unfool.core.streams import Streams

Module = TypeVar("Module", bound=nn.Module)


def _rows(parameter: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    return torch.arange(len(parameter)), tuple(parameter.shape[1:])


def initialise(module: Module, streams: Streams) -> Module:
    """Give every parameter and buffer of a module (on the meta device or not) its initial value, in place, on the CPU.

    Convolutions: normal of standard deviation sqrt(2 / (kernel area · output channels of a group)) (He et al. 2015,
    eq. 14), transposed ones of sqrt(2 / (kernel area / stride² · input channels)) (eq. 10), or all of the module's own
    ``initial_spread``; zero bias. Linear layers: uniform in ±1/sqrt(inputs), as PyTorch does. Batch norm: the identity.
    """
    module.to_empty(device="cpu")
    own: float | None = getattr(module, "initial_spread", None)
    for name, part in module.named_modules():
        draws = streams.named(name)
        with torch.no_grad():
            if isinstance(part, nn.Conv2d):
                ids, shape = _rows(part.weight)
                spread = own or math.sqrt(2.0 * part.groups / (math.prod(part.kernel_size) * part.out_channels))
                part.weight.copy_(draws.named("weight").normal(ids, shape) * spread)
                if part.bias is not None:
                    part.bias.zero_()
            elif isinstance(part, nn.ConvTranspose2d):
                ids, shape = _rows(part.weight)
                reaching = math.prod(part.kernel_size) / math.prod(part.stride) * part.in_channels / part.groups
                part.weight.copy_(draws.named("weight").normal(ids, shape) * (own or math.sqrt(2.0 / reaching)))
                if part.bias is not None:
                    part.bias.zero_()
            elif isinstance(part, nn.Linear):
                bound = 1.0 / math.sqrt(part.in_features)
                for key, parameter in part.named_parameters(recurse=False):
                    ids, shape = _rows(parameter)
                    parameter.copy_(draws.named(key).uniform(ids, shape, -bound, bound))
            elif isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
                part.reset_parameters()
            elif any(True for _ in part.parameters(recurse=False)) or any(True for _ in part.buffers(recurse=False)):
                raise SpecError(
                    f"{type(part).__name__} {name!r} has no initial weights; add a rule for it to initialise"
                )
    return module
