# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Batch norms merged into the convolutions before them, where it is certain or shown that nothing lies between."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from unfool.core.errors import SpecError
from unfool.models.convolution import CONVOLUTIONS


def fold_sequences(module: nn.Module) -> None:
    """Fold every convolution and the batch norm that follows it in the same Sequential, in place."""
    uses = Counter(id(part) for _, part in module.named_modules(remove_duplicate=False))
    for part in list(module.modules()):
        # A subclass with a forward of its own may run its children in another order.
        if not isinstance(part, nn.Sequential) or type(part).forward is not nn.Sequential.forward:
            continue
        for index in range(len(part) - 1):
            convolution, following = part[index], part[index + 1]
            pooled = type(following) is nn.MaxPool2d and index + 2 < len(part) and _plain(following)
            norm = part[index + 2] if pooled else following
            if not _foldable(convolution, norm) or uses[id(convolution)] != 1 or uses[id(norm)] != 1:
                continue
            if pooled and not _increasing(norm):
                continue
            part[index] = _merged(convolution, norm)  # type: ignore[arg-type]
            part[index + 1 + pooled] = nn.Identity().eval()


def _increasing(norm: nn.Module) -> bool:
    """Whether every scale is positive, so that the batch norm commutes with a maximum."""
    return not isinstance(norm.weight, Tensor) or bool((norm.weight > 0).all())


def _plain(part: nn.Module) -> bool:
    """Nothing is hooked onto the module."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return not any(getattr(part, hook) for hook in hooks)


def _foldable(convolution: nn.Module, norm: nn.Module) -> bool:
    """Exact types only (a subclass may compute something else), with running statistics and without hooks."""
    if type(convolution) not in CONVOLUTIONS or type(norm) is not nn.BatchNorm2d or norm.running_mean is None:
        return False
    return _plain(convolution) and _plain(norm)


def _merged(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """The convolution whose output equals the eval-mode batch norm's, computed in float64."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise SpecError("a batch norm without running statistics cannot be folded; use fold=False")
    scale = (variance.double() + norm.eps).rsqrt()
    shift = torch.zeros_like(scale)
    if norm.affine:
        scale = scale * norm.weight.double()
        shift = shift + norm.bias.double()
    shift = shift - mean.double() * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias.double() * scale
    weight = convolution.weight
    convolution.weight = nn.Parameter((weight.double() * scale[:, None, None, None]).to(weight.dtype), False)
    convolution.bias = nn.Parameter(shift.to(weight.dtype), False)
    return convolution


def fold_seen(module: nn.Module, images: Tensor) -> None:
    """Fold every batch norm that is given just what a convolution gave, as one pass of images shows, in place.

    Any architecture: residual blocks, forward passes of the user's own. A convolution whose output is used elsewhere
    too must not be folded, and a pass does not show that: compare the logits before the result is used.
    """
    uses = Counter(id(part) for _, part in module.named_modules(remove_duplicate=False))
    sources: dict[int, tuple[nn.Module, Tensor]] = {}
    calls: Counter[int] = Counter()
    pairs: dict[nn.Module, nn.Module | None] = {}

    def convolved(part: nn.Module, _: Any, output: Tensor) -> None:
        calls[id(part)] += 1
        sources[id(output)] = part, output

    def normalised(part: nn.Module, inputs: tuple[Any, ...], _: Any) -> None:
        calls[id(part)] += 1
        pairs[part] = sources.get(id(inputs[0]), (None, None))[0] if inputs else None

    own = [part for part in module.modules() if uses[id(part)] == 1 and _plain(part)]
    hooks = [part.register_forward_hook(convolved) for part in own if type(part) in CONVOLUTIONS]
    hooks += [part.register_forward_hook(normalised) for part in own if type(part) is nn.BatchNorm2d]
    try:
        with torch.no_grad():
            module(images)
    finally:
        for hook in hooks:
            hook.remove()
    taken = Counter(id(convolution) for convolution in pairs.values())
    holders = {id(child): (part, name) for part in module.modules() for name, child in part.named_children()}
    for norm, convolution in pairs.items():
        if convolution is None or not taken[id(convolution)] == calls[id(convolution)] == calls[id(norm)] == 1:
            continue
        if _foldable(convolution, norm):
            _merged(convolution, norm)  # type: ignore[arg-type]
            holder, name = holders[id(norm)]
            setattr(holder, name, nn.Identity().eval())
