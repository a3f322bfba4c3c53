# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnnecessaryComparison=false, reportPrivateUsage=false
"""Fast copies of a network for searching adversarial examples: batch norm folded, channels-last, bf16.

A copy only searches: what it finds counts once the original has confirmed it, and carries the original's identity.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unfool.core.errors import SpecError
from unfool.core.spec import unknown
from unfool.models.folding import fold_seen, fold_sequences
from unfool.models.modes import frozen_eval
from unfool.models.network import Network
from unfool.models.norms import plain_norms

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}

Module = TypeVar("Module", bound=nn.Module)


_SAME = 1e-4
"""Difference of logits, relative to the largest, up to which a faster copy computes the same."""


def fast_copy(
    module: Module, *, fold: bool = True, channels_last: bool = True, dtype: str = "fp32", images: Tensor | None = None
) -> Module:
    """A frozen copy in eval mode that shares nothing with ``module`` and computes the same logits, faster.

    ``fold`` merges each `nn.BatchNorm2d` into the `nn.Conv2d` before it: in the same `nn.Sequential`, also across a
    max-pool if all scales are positive, and, given a few ``images`` (B, C, H, W), wherever a pass of theirs shows it.
    ``channels_last`` stores weights so that activations follow. With ``images`` the copy of a foreign module is used
    only if it gives their logits; otherwise less is done to it. ``dtype="bf16"`` computes in bfloat16: of every
    `Network` in the module its trunk (normalisation and heads stay fp32, they cost nothing and coarse logits tie),
    of a module without one all but its batch norms; images and outputs are fp32 all the same. Raises SpecError for
    another dtype and for a module that cannot be copied.
    """
    if dtype not in PRECISIONS:
        raise unknown("precision", str(dtype), PRECISIONS)
    if images is None or any(type(part) is Network for part in module.modules()):
        fast = _copied(module)
        if fold:
            fold_sequences(fast)
        fast = _in_channels_last(fast) if channels_last else fast
    else:
        fast = _same_logits(module, images, fold, channels_last)
    if dtype == "bf16":
        _lower(fast)
    return fast


def _copied(module: Module) -> Module:
    try:
        with torch.no_grad():  # With a graph, a script's copy would hang on to the original's parameters.
            fast = copy.deepcopy(module, _kept_maps(module)).eval()
    except Exception as error:  # A module, or what it holds, may have copying code of its own.
        said = " ".join(str(error).split())[:200]
        raise SpecError(f"{type(module).__name__} cannot be copied ({said}); attack it without a fast copy") from error
    for parameter in fast.parameters():
        parameter.requires_grad_(False)
    plain_norms(fast)
    return fast


def _in_channels_last(module: Module) -> Module:
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _same_logits(module: Module, images: Tensor, fold: bool, channels_last: bool) -> Module:
    """The fastest copy of a foreign module that gives the module's own logits for a few images."""
    with frozen_eval(module), torch.no_grad():
        wanted = module(images.clone())
    for folded, last in dict.fromkeys([(fold, channels_last), (fold, False), (False, channels_last)]):
        fast = _copied(module)
        try:
            with torch.no_grad():
                if folded:
                    fold_sequences(fast)
                    fold_seen(fast, images.clone())
                fast = _in_channels_last(fast) if last else fast
                logits = fast(images.clone())
        except Exception:  # A module may need the batch norms' own attributes, or contiguous features.
            continue
        if float((logits - wanted).abs().max()) <= _SAME * max(1.0, float(wanted.abs().max())):
            return fast
    return _copied(module)


def _kept_maps(module: nn.Module) -> dict[int, Tensor]:
    """Copies without a graph, by id, of what passes left on the module: deepcopy refuses tensors with a graph."""
    copies: dict[int, Tensor] = {}
    waiting: list[Any] = [value for part in module.modules() for value in vars(part).values()]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor) and not value.is_leaf:
            copies[id(value)] = value.detach().clone()
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple, set)):
            waiting.extend(value)
    return copies


def _to_bf16(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    first, *rest = args
    return (first.to(torch.bfloat16), *rest) if isinstance(first, Tensor) else args


def _to_fp32(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
    return output.float() if isinstance(output, Tensor) else output


def _lower(module: nn.Module) -> None:
    """Let a module compute in bf16 and speak fp32, in place; hooks leave its class and its methods as they are."""
    networks = [part for part in module.modules() if isinstance(part, Network)]
    for network in networks:
        _store_bf16(network.trunk)
        next(iter(network.trunk.parts.values())).register_forward_pre_hook(_to_bf16)
    if not networks:
        _store_bf16(module)
        module.register_forward_pre_hook(_to_bf16)
        module.register_forward_hook(_to_fp32)


def _store_bf16(module: nn.Module) -> None:
    for part in module.modules():
        # Statistics of a batch norm that was not folded need their digits; the kernels take bf16 images beside them.
        if not isinstance(part, nn.modules.batchnorm._BatchNorm):
            for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                if tensor.is_floating_point():
                    tensor.data = tensor.data.to(torch.bfloat16)
