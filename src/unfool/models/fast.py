# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnnecessaryComparison=false, reportPrivateUsage=false
"""Fast copies of a network for searching adversarial examples: batch norm folded, channels-last, bf16.

A copy only searches: what it finds counts once the original has confirmed it, and carries the original's identity.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unfool.core.errors import SpecError
from unfool.core.spec import unknown
from unfool.models.network import Network
from unfool.models.norms import plain_norms

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}

Module = TypeVar("Module", bound=nn.Module)


def fast_copy(module: Module, *, fold: bool = True, channels_last: bool = True, dtype: str = "fp32") -> Module:
    """A frozen copy in eval mode that shares nothing with ``module`` and computes the same logits, faster.

    ``fold`` merges each `nn.BatchNorm2d` into the `nn.Conv2d` before it in the same `nn.Sequential`, the only place
    where adjacency is certain, also across a max-pool if all scales are positive; other batch norms stay.
    ``channels_last`` stores weights so that activations follow. ``dtype="bf16"`` computes in bfloat16: of every
    `Network` in the module its trunk (normalisation and heads stay fp32, they cost nothing and coarse logits tie),
    of a module without one all but its batch norms; images and outputs are fp32 all the same. Raises SpecError for
    another dtype and for a module that cannot be copied.
    """
    if dtype not in PRECISIONS:
        raise unknown("precision", str(dtype), PRECISIONS)
    try:
        with torch.no_grad():  # With a graph, a script's copy would hang on to the original's parameters.
            fast = copy.deepcopy(module, _kept_maps(module)).eval()
    except Exception as error:  # A module, or what it holds, may have copying code of its own.
        said = " ".join(str(error).split())[:200]
        raise SpecError(f"{type(module).__name__} cannot be copied ({said}); attack it without a fast copy") from error
    for parameter in fast.parameters():
        parameter.requires_grad_(False)
    plain_norms(fast)
    if fold:
        _fold(fast)
    if dtype == "bf16":
        _lower(fast)
    return fast.to(memory_format=torch.channels_last) if channels_last else fast  # type: ignore[call-overload]


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


def _fold(module: nn.Module) -> None:
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
    if type(convolution) is not nn.Conv2d or type(norm) is not nn.BatchNorm2d or norm.running_mean is None:
        return False
    return _plain(convolution) and _plain(norm)


def _merged(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """The convolution whose output equals the eval-mode batch norm's, computed in float64."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise SpecError("a batch norm without running statistics cannot be folded; use fold=False")
    scale = (variance.double() + norm.eps).rsqrt()
    shift = torch.zeros_like(scale)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    shift = shift - mean.double() * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias.double() * scale
    weight = convolution.weight
    convolution.weight = nn.Parameter((weight.double() * scale[:, None, None, None]).to(weight.dtype), False)
    convolution.bias = nn.Parameter(shift.to(weight.dtype), False)
    return convolution


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
