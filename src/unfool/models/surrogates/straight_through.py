# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""A model with its own values, and a straight-through gradient where its own is of no use (automatic BPDA).

Athalye et al., ICML 2018, section 4.1.2: forward the layer, backward an approximation of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unfool.models.surrogates.places import IMAGES, RESULT, Place, visiting

_ROUNDINGS = frozenset(
    getattr(owner, name)
    for owner in (torch, Tensor)
    for name in ("round", "floor", "ceil", "trunc", "fix", "sign", "sgn")
)


@dataclass(frozen=True, kw_only=True)
class Bridge:
    """A gradient that leads past what gives none: from ``target`` to each of ``sources``, times its slope.

    A slope is one number, or one for each channel.
    """

    target: Place
    sources: tuple[tuple[Place, float | tuple[float, ...]], ...]


class StraightThroughRoundings(TorchFunctionMode):
    """Inside, what rounds or takes a sign passes gradients on as if it did nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in _ROUNDINGS and args and isinstance(args[0], Tensor) and args[0].requires_grad:
            return output.detach() + (args[0] - args[0].detach())
        return output


class StraightThrough(nn.Module):
    """The model's values with the gradients of its bridges; the model itself is left as it is.

    Args:
        model: The model.
        bridges: Where its own gradient is replaced.
        roundings: Pass gradients straight through functions that round, wherever the model calls them.

    Example:
        >>> from unfool.models.surrogates.places import Place
        >>> from unfool.models.surrogates.straight_through import Bridge, StraightThrough
        >>> steps = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Hardtanh(), torch.nn.Linear(4, 2))
        >>> bridge = Bridge(target=Place(module="1", side="output"), sources=((Place(module="1", side="input"), 1.0),))
        >>> images = torch.full((1, 1, 2, 2), 3.0).requires_grad_()
        >>> torch.autograd.grad(steps(images).sum(), images)[0].abs().sum()
        tensor(0.)
        >>> bool(torch.autograd.grad(StraightThrough(steps, [bridge])(images).sum(), images)[0].abs().sum() > 0)
        True
    """

    def __init__(self, model: nn.Module, bridges: Sequence[Bridge], roundings: bool = False):
        super().__init__()
        self.model = model
        self.bridges = {bridge.target: bridge for bridge in bridges}
        self.roundings = roundings
        self.kept = {place for bridge in bridges for place, _ in bridge.sources}
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self.model(images)
        tensors: dict[Place, Tensor] = {}

        def visit(place: Place, tensor: Tensor) -> Tensor:
            bridge = self.bridges.get(place)
            if bridge is not None:
                tensor = tensor.detach()
                for source, slope in bridge.sources:
                    # A pass may take another way than the one that was probed.
                    if source in tensors and tensors[source].numel() == tensor.numel():
                        # Zero in value; the sum of a slope and its negative would round.
                        zero = tensors[source] - tensors[source].detach()
                        tensor = tensor + _scaled(zero.reshape(tensor.shape), slope)
            if place in self.kept:
                tensors[place] = tensor.clone()  # what follows may write into it
            return tensor

        used = {place.module for place in (*self.bridges, *self.kept)}
        with ExitStack() as stack:
            stack.enter_context(visiting(self.model, visit, used))
            if self.roundings:
                stack.enter_context(StraightThroughRoundings())
            return visit(RESULT, self.model(visit(IMAGES, images)))


def _scaled(tensor: Tensor, slope: float | tuple[float, ...]) -> Tensor:
    """A tensor times a slope, or its channels times theirs."""
    return tensor * (tensor.new_tensor(slope).view(1, -1, 1, 1) if isinstance(slope, tuple) else slope)
