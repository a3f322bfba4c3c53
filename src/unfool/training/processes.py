# pyright: reportMissingTypeStubs=false
"""The accelerate layer under training: which device, and how many processes.

Several processes (``accelerate launch`` or ``torchrun``; gloo on the CPU, nccl on GPUs) train as one would: each takes
an equal part of every batch, and what belongs to the batch as a whole is gathered (see `core.processes`): loss,
gradients, batch-norm statistics, negatives, figures of the log. What they end with is the same to rounding, which
docs/processes.md measures, and says what does not take part: random layers of classifiers from elsewhere draw by place
in the batch, each process for itself. Every process sees the run's folder and the data; the
first one alone writes, and evaluates held-out images.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unfool.core.errors import DeviceError, UnfoolWarning
from unfool.core.processes import joint_rank_and_world_size, summed

if TYPE_CHECKING:
    from accelerate import Accelerator


def training_device(device: str) -> torch.device:
    """The device of that name; DeviceError if this machine does not offer it."""
    try:
        wanted = torch.device(device)
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(
            f"device {device!r} is not offered by this machine; give cpu, or cuda where there is a GPU"
        ) from error
    return wanted


def make_accelerator(device: torch.device) -> Accelerator:
    """An accelerator that leaves device and precision to us; DeviceError in a process set up for something else.

    It joins the group of processes that a launcher has prepared. accelerate keeps one state a process: a run on the GPU
    after one on the CPU must not inherit the CPU.
    """
    # Imported here: it takes a second, and only training needs it.
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import is_initialized

    cpu = device.type == "cpu" and not is_initialized()
    # A stage holds heads and layers that its tasks may not use, the same ones in every step.
    wrapping = DistributedDataParallelKwargs(static_graph=True)
    try:
        accelerator = Accelerator(cpu=cpu, device_placement=False, mixed_precision="no", kwargs_handlers=[wrapping])
    except ValueError as error:
        raise DeviceError(
            f"accelerate is set up in this process for something else ({error}); train in a process of its own"
        ) from error
    if accelerator.num_processes > 1 and accelerator.device.type != device.type:
        raise DeviceError(
            f"the processes were started for {accelerator.device.type}, and training is to run on {device.type}; "
            f"start them for it, or choose --device {accelerator.device.type}"
        )
    return accelerator


def share_of(size: int, processes: int) -> int:
    """Images of a batch that each process takes; DeviceError unless they are equally many."""
    if size % processes:
        raise DeviceError(
            f"a batch of {size} images cannot be shared equally by {processes} processes; choose a batch size that "
            f"{processes} divides, of at most the images there are"
        )
    return size // processes


def warn_of_scripts(network: nn.Module, processes: int) -> None:
    """UnfoolWarning for batch norms in TorchScript, which in several processes know nothing of the joint batch."""
    scripts = [part for part in network.modules() if isinstance(part, torch.jit.ScriptModule)]
    norms = [part for part in scripts if "BatchNorm" in str(getattr(part, "original_name", ""))]
    if norms and processes > 1:
        warnings.warn(
            f"the {len(norms)} batch norms of a TorchScript model normalise the images of each of the {processes} "
            "processes by themselves, so that the weights are not those of one process; train in one process, or give "
            "the model's Python code",
            UnfoolWarning,
            stacklevel=2,
        )


def joint_means(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean of each tensor, over all processes inside `joint_batch`; every process must call it."""
    means = {name: value.detach().mean() for name, value in values.items()}
    _, processes = joint_rank_and_world_size()
    if processes == 1:
        return means
    joint = summed(torch.stack([value.float() for value in means.values()])) / processes
    return dict(zip(means, joint, strict=True))
