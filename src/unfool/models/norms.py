# pyright: reportUnknownVariableType=false, reportPrivateUsage=false
"""Batch norm whose statistics every pass names: a `NormContext`, and batch norms with two banks.

A batch norm normalises either by the statistics of the batch, which its running statistics then follow, or by the
running ones, which stay as they are. Code that trains names one of the two for each pass, and does not leave it to the
mode that a module happens to be in. Everywhere else networks are in eval mode: running statistics, main bank.

The statistics of the batch are those of the joint batch where several processes train together (`core.processes`):
a mean over all processes, then the mean square of what is left, both differentiated through; the running variance is
the unbiased one, as torch has it. That holds for every module that calls `F.batch_norm`, of whatever library, except
inside TorchScript. torch's own SyncBatchNorm is for GPUs alone.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unfool.core.errors import SpecError
from unfool.core.processes import joint_rank_and_world_size, summed

BatchNorm = nn.modules.batchnorm._BatchNorm

Bank = Literal["main", "clean"]
"""A set of running statistics and affine parameters of a batch norm."""


@dataclass(frozen=True, kw_only=True)
class NormContext:
    """What the batch norms of a pass use: statistics of the ``batch`` or the ``running`` ones, of which ``bank``."""

    statistics: Literal["batch", "running"]
    bank: Bank = "main"


class _Banked(BatchNorm):
    """A batch norm with two banks of statistics and affine parameters.

    Parameters, buffers and state dict are those of the main bank alone, under the names that plain batch norm gives
    them. The clean bank is another such module, which belongs to whoever trains it.
    """

    bank: Bank = "main"
    clean: _Banked | None = None

    def forward(self, input: Tensor) -> Tensor:
        if self.bank == "clean":
            if self.clean is None:
                raise SpecError("a pass names the clean bank of a batch norm that has none; use add_clean_bank first")
            return self.clean.train(self.training)(input)
        return super().forward(input)

    def add_clean_bank(self, bank: _Banked) -> None:
        """Use ``bank`` as the clean one; it stays out of this module's parameters and state dict."""
        self.__dict__["clean"] = bank


class BankedBatchNorm1d(_Banked, nn.BatchNorm1d):
    """`nn.BatchNorm1d` with two banks."""


class BankedBatchNorm2d(_Banked, nn.BatchNorm2d):
    """`nn.BatchNorm2d` with two banks."""


_BANKED: dict[type[nn.Module], Any] = {nn.BatchNorm1d: BankedBatchNorm1d, nn.BatchNorm2d: BankedBatchNorm2d}
_PLAIN: dict[type[nn.Module], Any] = {banked: plain for plain, banked in _BANKED.items()}


def bank_norms(module: nn.Module) -> dict[str, BankedBatchNorm1d | BankedBatchNorm2d]:
    """Turn every batch norm of a module into its banked form, in place; gives them by name.

    Parameters, buffers and their names stay. A batch norm of a class of its own stays as it is, and is left out.
    """
    for part in module.modules():
        if type(part) in _BANKED:
            part.__class__ = _BANKED[type(part)]
    return {
        name: part for name, part in module.named_modules() if isinstance(part, (BankedBatchNorm1d, BankedBatchNorm2d))
    }


def plain_norms(module: nn.Module) -> None:
    """Turn every banked batch norm of a module into the plain one of its main bank, in place."""
    for part in module.modules():
        if type(part) in _PLAIN:
            part.__class__ = _PLAIN[type(part)]
            part.__dict__.pop("bank", None)
            part.__dict__.pop("clean", None)


class CleanBanks(nn.Module):
    """Clean banks for every batch norm of a trunk: running statistics and affine parameters, which train here.

    Adversarial contrast (ACL, Jiang et al., "Robust Pre-Training by Adversarial Contrastive Learning", NeurIPS 2020)
    keeps both banks and hands on the adversarial one. Departure: there the projection head's batch norms are kept apart
    too; here the heads, which are left behind after pretraining, are shared.
    """

    def __init__(self, trunk: nn.Module):
        super().__init__()
        banked = bank_norms(trunk)
        others = [part for part in trunk.modules() if isinstance(part, BatchNorm) and not isinstance(part, _Banked)]
        if others:
            raise SpecError(
                f"statistics='separate' does not work with the {type(others[0]).__name__} of this trunk; build it of "
                "nn.BatchNorm2d, or give statistics='shared'"
            )
        self.names = tuple(banked)
        self.norms = nn.ModuleList(copy.deepcopy(norm) for norm in banked.values())
        for bank in self.norms:
            # Left from another stage of the same network.
            bank.__dict__.pop("clean", None)

    def begin(self, trunk: nn.Module) -> None:
        """Become the trunk's clean banks, with what its main banks hold now; what is frozen there is frozen here."""
        for name, bank in zip(self.names, self.norms, strict=True):
            norm = trunk.get_submodule(name)
            bank.load_state_dict(norm.state_dict())
            for parameter, other in zip(bank.parameters(), norm.parameters(), strict=True):
                parameter.requires_grad_(other.requires_grad)
            norm.add_clean_bank(bank)  # type: ignore[operator]
        self.zero_grad(set_to_none=True)


class _JointNorms(TorchFunctionMode):
    """Inside, `F.batch_norm` takes the statistics of the joint batch for those of the batch."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_joint_batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


def _joint_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    _, processes = joint_rank_and_world_size()
    axes = [axis for axis in range(input.ndim) if axis != 1]
    shape = [1, -1] + [1] * (input.ndim - 2)
    features = input.to(torch.promote_types(input.dtype, torch.float32))
    mean = summed(features.mean(axes)) / processes
    centred = features - mean.view(shape)
    variance = summed(centred.square().mean(axes)) / processes
    if running_mean is not None and running_var is not None:
        count = processes * input.numel() // input.shape[1]
        running_mean.lerp_(mean.detach().to(running_mean.dtype), momentum)
        running_var.lerp_((variance.detach() * (count / (count - 1))).to(running_var.dtype), momentum)
    outputs = centred * torch.rsqrt(variance + eps).view(shape)
    outputs = outputs if weight is None else outputs * weight.view(shape)
    return (outputs if bias is None else outputs + bias.view(shape)).to(input.dtype)


@contextmanager
def norm_context(
    module: nn.Module, context: NormContext, frozen: Collection[nn.Module] = ()
) -> Generator[None, None, None]:
    """Inside, the batch norms of a module use what ``context`` names; after, modes and banks are as they were.

    Those among ``frozen`` use running statistics in every context. Statistics of the batch are the joint batch's.
    """
    fixed = {id(part) for part in frozen}
    norms = [part for part in module.modules() if isinstance(part, BatchNorm)]
    banked = [norm for norm in norms if isinstance(norm, _Banked)]
    if context.bank == "clean" and len(banked) < len(norms):
        raise SpecError("a pass names clean banks where batch norms have none; give them some with CleanBanks")
    modes = [norm.training for norm in norms]
    banks: list[Bank] = [norm.bank for norm in banked]
    try:
        for norm in norms:
            norm.training = context.statistics == "batch" and id(norm) not in fixed
        for norm in banked:
            norm.bank = context.bank
        with _JointNorms() if joint_rank_and_world_size()[1] > 1 else nullcontext():
            yield
    finally:
        for norm, mode in zip(norms, modes, strict=True):
            norm.training = mode
        for norm, bank in zip(banked, banks, strict=True):
            norm.bank = bank
