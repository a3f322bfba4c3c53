# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnnecessaryComparison=false, reportPrivateUsage=false
"""Fast copies of a network for searching adversarial examples: batch norm folded, channels-last, bf16.

A copy only searches: what it finds counts once the original has confirmed it, and carries the original's identity.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence, Set
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unfool.core.errors import UnfoolWarning
from unfool.core.spec import unknown
from unfool.models.convolution import CONVOLUTIONS
from unfool.models.folding import fold_seen, fold_sequences
from unfool.models.foreign import ForeignClassifier
from unfool.models.modes import frozen_eval
from unfool.models.network import Network
from unfool.models.norms import plain_norms
from unfool.models.outside.copies import copied
from unfool.models.outside.outputs import same_logits
from unfool.models.outside.scripted import Scripted
from unfool.models.trunks import Trunk

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}

Module = TypeVar("Module", bound=nn.Module)


def fast_copy(
    module: Module, *, fold: bool = True, channels_last: bool = True, dtype: str = "fp32", images: Tensor | None = None
) -> Module:
    """A frozen copy in eval mode that shares nothing with ``module`` and computes the same logits, faster.

    ``fold`` merges each `nn.BatchNorm2d` into the `nn.Conv2d` before it: in the same `nn.Sequential`, also across a
    max-pool if all scales are positive, and, given a few ``images`` (B, C, H, W), wherever a pass of theirs shows it.
    ``channels_last`` stores weights so that activations follow; without ``images`` those of networks that say that they
    take it. With ``images`` the copy of a foreign module is used only if it gives their logits; otherwise less is done
    to it. ``dtype="bf16"`` computes in bfloat16: of every
    `Network` in the module its trunk (normalisation and heads stay fp32, they cost nothing and coarse logits tie),
    of a module without one all but its batch norms. The layer that sees the images stays in fp32 where it is known;
    images and outputs are fp32 all the same. Raises SpecError for another dtype and for a module that cannot be copied.
    """
    if dtype not in PRECISIONS:
        raise unknown("precision", str(dtype), PRECISIONS)
    if images is None or any(type(part) is Network for part in module.modules()):
        fast = _copied(module)
        if fold:
            fold_sequences(fast)
        for part in fast.modules() if channels_last else ():
            if isinstance(part, (Network, Trunk)) and part.memory_format is torch.channels_last:
                _in_channels_last(part)
        return _lowered(fast, None) if dtype == "bf16" else fast
    # The passes of a module that is random leave the global random state alone.
    with frozen_eval(module):
        fast = _same_logits(module, images, fold, channels_last)
        fast = _lowered(fast, images) if dtype == "bf16" else fast
    if isinstance(fast, ForeignClassifier) and fast.feature_path is None:
        fast.module = Scripted(fast.module).eval()
    return fast


def _copied(module: Module) -> Module:
    fast = copied(module, "attack it without a fast copy").eval()
    for parameter in fast.parameters():
        parameter.requires_grad_(False)
    plain_norms(fast)
    return fast


def _in_channels_last(module: Module) -> Module:
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _gradients_in_channels_last(module: nn.Module, images: Tensor) -> None:
    """Bring gradients that leave the order of channels-last back to it, where a convolution's input has them.

    The gradient of a slice, as in a shortcut that takes every second pixel, is in the other order; the layers behind
    it then take ten times as long for their own.
    """
    mixed: list[nn.Module] = []

    def watch(part: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(inputs[0], Tensor) and inputs[0].requires_grad and not inputs[0].is_leaf:
            inputs[0].register_hook(lambda gradient: mixed.append(part) if gradient is not _ordered(gradient) else None)

    hooks = [part.register_forward_pre_hook(watch) for part in module.modules() if type(part) in CONVOLUTIONS]
    try:
        with torch.enable_grad():
            leaf = images.clone().requires_grad_()
            torch.autograd.grad(module(leaf).sum(), leaf)
    except RuntimeError:  # A module without a gradient by its images.
        mixed.clear()
    finally:
        for hook in hooks:
            hook.remove()
    for part in dict.fromkeys(mixed):
        part.register_forward_pre_hook(_order_gradient)


def _ordered(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last) if gradient.ndim == 4 else gradient


def _order_gradient(_: nn.Module, inputs: tuple[Any, ...]) -> None:
    if inputs[0].requires_grad and not inputs[0].is_leaf:
        inputs[0].register_hook(_ordered)


def _same_logits(module: Module, images: Tensor, fold: bool, channels_last: bool) -> Module:
    """The fastest copy of a foreign module that gives the module's own logits for a few images."""
    with torch.no_grad():
        wanted = module(images.clone())
    if not isinstance(wanted, Tensor):
        return _copied(module)
    for folded, last in dict.fromkeys([(fold, channels_last), (fold, False), (False, channels_last)]):
        fast = _copied(module)
        try:
            with torch.no_grad():
                if folded:
                    fold_sequences(fast)
                    fold_seen(fast, images.clone())
                fast = _in_channels_last(fast) if last else fast
                same = same_logits(fast(images.clone()), wanted)
            if last:
                _gradients_in_channels_last(fast, images)
        except Exception:  # A module may need the batch norms' own attributes, or contiguous features.
            continue
        if same:
            return fast
    return _copied(module)


def _to_bf16(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    first, *rest = args
    return (first.to(torch.bfloat16), *rest) if isinstance(first, Tensor) else args


def _to_fp32(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    first, *rest = args
    return (first.float(), *rest) if isinstance(first, Tensor) else args


def _give_bf16(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
    return output.to(torch.bfloat16) if isinstance(output, Tensor) else output


def _give_fp32(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
    return output.float() if isinstance(output, Tensor) else output


def _lowered(module: Module, images: Tensor | None) -> Module:
    """The module computing in bf16 and speaking fp32; hooks leave its class and its methods as they are.

    The layer that sees the images stays in fp32 where it is known: between pixel values above 1/2, bf16 has steps of
    1/256, in which a perturbation of 0.5/255 would vanish.
    """
    networks = [part for part in module.modules() if isinstance(part, Network)]
    if images is None or any(type(part) is Network for part in networks):
        for network in networks:
            first = next(iter(network.trunk.parts.values()))
            _lower(network.trunk, first, _first_of_sequence(first))
        return module if networks else _speaking_fp32(module, None)
    for names in dict.fromkeys([_called_first(module, images), ()]):
        lowered = _copied(module)
        try:
            lowered = _speaking_fp32(lowered, *[lowered.get_submodule(name) for name in reversed(names)])
            with torch.no_grad():
                if torch.isfinite(lowered(images.clone())).all():
                    return lowered
        except Exception:  # A module may compute with tensors of its own, in fp32, or ask for its inputs' dtype.
            continue
    warnings.warn(f"{type(module).__name__} does not run in bf16; the search is in fp32", UnfoolWarning, stacklevel=3)
    return module


def changes_precision(hook: Any) -> bool:
    """Whether a hook is one of a fast copy's, which change a tensor's precision alone."""
    return hook in (_to_bf16, _to_fp32, _give_bf16, _give_fp32)


def _speaking_fp32(module: Module, entrance: nn.Module | None = None, *before: nn.Module) -> Module:
    _lower(module, module, entrance, before)
    module.register_forward_hook(_give_fp32)
    return module


def _lower(module: nn.Module, first: nn.Module, entrance: nn.Module | None, before: Sequence[nn.Module] = ()) -> None:
    """Weights of a module in bf16, but those of its entrance, and buffers of the modules called before that, which
    normalise the images; without an entrance ``first`` gets its input in bf16."""
    kept = {id(tensor) for part in before for tensor in part.buffers(recurse=False)}
    kept |= {id(tensor) for tensor in entrance.parameters()} if entrance is not None else set()
    _store_bf16(module, kept)
    if entrance is None:
        first.register_forward_pre_hook(_to_bf16)
    else:
        entrance.register_forward_pre_hook(_to_fp32)
        entrance.register_forward_hook(_give_bf16)


def _first_of_sequence(part: nn.Module) -> nn.Module | None:
    """The convolution that a sequence surely begins with."""
    while type(part) is nn.Sequential and len(part):
        part = part[0]
    return part if type(part) in CONVOLUTIONS else None


def _called_first(module: nn.Module, images: Tensor) -> tuple[str, ...]:
    """The modules that a pass of images calls, up to the first layer with weights; none if that is no usual layer."""
    called: list[str] = []

    def calls(name: str) -> Any:
        return lambda part, inputs: called.append(name)

    parts = dict(module.named_modules())
    hooks = [part.register_forward_pre_hook(calls(name)) for name, part in parts.items()]
    try:
        with torch.no_grad():
            module(images.clone())
    finally:
        for hook in hooks:
            hook.remove()
    usual = [type(parts[name]) in (*CONVOLUTIONS, nn.Linear) for name in called]
    return tuple(called[: usual.index(True) + 1]) if True in usual else ()


def _store_bf16(module: nn.Module, kept: Set[int]) -> None:
    """Weights in bf16, but those ``kept`` by id, and those of batch norms: their statistics need their digits."""
    for part in module.modules():
        # The kernels take bf16 images beside fp32 statistics.
        if not isinstance(part, nn.modules.batchnorm._BatchNorm):
            for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                if tensor.is_floating_point() and id(tensor) not in kept:
                    tensor.data = tensor.data.to(torch.bfloat16)
