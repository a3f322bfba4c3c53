"""The accelerate layer under training: which device, and how many processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from unfool.core.errors import DeviceError

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

    accelerate keeps one state a process: a run on the GPU after one on the CPU must not inherit the CPU.
    """
    # Imported here: it takes a second, and only training needs it.
    from accelerate import Accelerator
    from accelerate.state import is_initialized

    cpu = device.type == "cpu" and not is_initialized()
    try:
        accelerator = Accelerator(cpu=cpu, device_placement=False, mixed_precision="no")
    except ValueError as error:
        raise DeviceError(
            f"accelerate is set up in this process for something else ({error}); train in a process of its own"
        ) from error
    if accelerator.num_processes > 1:
        raise DeviceError("training in several processes is not offered yet; start one process")
    return accelerator
