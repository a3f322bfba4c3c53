# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""A model with its own values, and a straight-through gradient where its own is of no use (automatic BPDA).

Athalye et al., ICML 2018, section 4.1.2: forward the layer, backward an approximation of it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
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
_CASTS = frozenset(getattr(Tensor, name) for name in ("to", "type", "type_as", "byte", "char", "short", "int", "long"))
_DETACHING = frozenset(
    (torch.detach, Tensor.detach, Tensor.detach_, Tensor.data.__get__)  # pyright: ignore[reportAttributeAccessIssue]
)
_LEAVING = frozenset((Tensor.numpy, Tensor.__array__))
"""What a tensor leaves torch by, and refuses to while it has a gradient."""


@dataclass(frozen=True, kw_only=True)
class Bridge:
    """A gradient that leads past what gives none: from ``target`` to each of ``sources``, times its slope.

    A slope is one number, or one for each channel.
    """

    target: Place
    sources: tuple[tuple[Place, float | tuple[float, ...]], ...]


class _Uncut(TorchFunctionMode):
    """The functions that cut gradients, without what cuts them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._C._set_grad_enabled:
            return None
        if not (args and isinstance(args[0], Tensor) and args[0].requires_grad):
            return func(*args, **(kwargs or {}))
        source = args[0]
        if func in _DETACHING:
            return source
        output = func(source.detach() if func in _LEAVING else source, *args[1:], **(kwargs or {}))
        if func in _ROUNDINGS or (func in _CASTS and _is_whole(output)):
            # Of a cast the numbers alone, which a float holds as well: integers have no gradient.
            return output.detach().to(source.dtype) + (source - source.detach())
        return output


@contextmanager
def uncut_gradients(model: nn.Module) -> Generator[None, None, None]:
    """Inside, gradients pass what a model rounds, takes the sign of or casts to integers as if nothing was done, and
    neither ``detach`` nor ``no_grad`` stops them; values stay the same. After, its buffers have no gradient."""
    try:
        with _Uncut():
            yield
    finally:
        for buffer in model.buffers():
            # What no_grad kept out of the graph may have been written into it.
            if buffer.requires_grad:
                buffer.detach_()


class StraightThrough(nn.Module):
    """The model's values with the gradients of its bridges; the model itself is left as it is.

    Args:
        model: The model.
        bridges: Where its own gradient is replaced.
        uncut: Let gradients pass functions that round, cast, detach or turn them off, wherever the model calls them.

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

    def __init__(self, model: nn.Module, bridges: Sequence[Bridge], uncut: bool = False):
        super().__init__()
        self.model = model
        self.bridges = {bridge.target: bridge for bridge in bridges}
        self.uncut = uncut
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
        # A model may keep what it is given, and is then cut from it.
        images = visit(IMAGES, images.clone() if self.uncut else images)
        with visiting(self.model, visit, used), uncut_gradients(self.model) if self.uncut else nullcontext():
            logits = self.model(images)
        return visit(RESULT, logits)


def _is_whole(output: Any) -> bool:
    """Whether a function gave integers."""
    if not isinstance(output, Tensor) or output.dtype == torch.bool:
        return False
    return not (output.is_floating_point() or output.is_complex())


def _scaled(tensor: Tensor, slope: float | tuple[float, ...]) -> Tensor:
    """A tensor times a slope, or its channels times theirs."""
    return tensor * (tensor.new_tensor(slope).view(1, -1, 1, 1) if isinstance(slope, tuple) else slope)
