"""Batches of images: as large as memory allows; each is the work of one process."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from unfool.attacks.objective import writes_into_input
from unfool.core.batch import spans_of_mates
from unfool.core.errors import DataError, SpecError
from unfool.models.modes import frozen_eval

BATCH_SIZE = 250
"""Images at a time on a CPU, if memory allows; results do not depend on it, only "same bits" does."""
GPU_BATCH_SIZE = 1000
MEMORY_SHARE = 0.5
"""Part of the free memory that a batch may take; the rest is for the attack's own copies of the images."""
CPU_BYTES = 3 << 28
"""What a batch may take on a CPU, 768 MiB, however much is free: larger ones are no faster, and processes share it."""
TOGETHER_BYTES = 1 << 26
"""What the images of batches that an attack takes together may fill, 64 MiB."""
PIECES = 20
"""Into how many pieces an attack is cut at least, where there are as many batches: for as many workers."""
_SMALLEST = 8


def spans(count: int, size: int) -> list[slice]:
    """The batches of ``count`` images; raises SpecError for a size below 1, DataError for no images."""
    if size < 1:
        raise SpecError(f"batch size {size} is not allowed; give 1 or more")
    if not count:
        raise DataError("there are no images to evaluate on; give a table with at least one")
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def spans_for(model: nn.Module, count: int, size: int) -> list[slice]:
    """The batches of ``count`` images for a model: of its own size, if it has one, none of a single image that would
    be without mates; else of ``size``. Raises as `spans`."""
    own = own_batch_size(model)
    cuts = spans(count, own or size)
    return spans_of_mates(count, own) if own is not None else cuts


def batches_together(count: int, size: int, image: Tensor) -> int:
    """How many batches of ``size`` images, each as large as ``image`` (1, C, H, W), are one piece of an attack.

    ``count`` is the number of all images. The later parts of an attack find few that stand in each batch: those of
    several fill a batch.
    """
    each = size * image.numel() * image.element_size()
    return max(1, min(-(-count // size) // PIECES, TOGETHER_BYTES // each))


def own_batch_size(model: nn.Module) -> int | None:
    """The ``own_batch_size`` of a model whose predictions depend on batch-mates; None for any other.

    Such a model is evaluated in these batches whatever memory allows: in others it would be another function.
    """
    return getattr(model, "own_batch_size", None)


def device_of(model: nn.Module) -> torch.device:
    """Where the model lives; the CPU for one without tensors."""
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def fitting(model: nn.Module, image: Tensor) -> int:
    """The batch size that fits into memory, for images such as this one (1, C, H, W), forward and backward.

    Measured by the bytes that the forward pass of one image saves for its gradient; at most BATCH_SIZE and CPU_BYTES,
    on a GPU GPU_BATCH_SIZE: larger batches only take memory.
    """
    kept = 0

    def weigh(tensor: Tensor) -> Tensor:
        nonlocal kept
        if not isinstance(tensor, nn.Parameter):
            kept += tensor.numel() * tensor.element_size()
        return tensor

    device = device_of(model)
    with (
        torch.inference_mode(False),
        frozen_eval(model),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor),
    ):
        try:
            model(image.to(device).detach().clone().requires_grad_())
        except RuntimeError as error:
            if not writes_into_input(error):  # The attack says that in a line.
                raise
    most = GPU_BATCH_SIZE if device.type == "cuda" else BATCH_SIZE
    each = 2 * kept + 16 * image.numel() * image.element_size()
    room = MEMORY_SHARE * _free(device)
    if device.type == "cpu":
        room = min(room, CPU_BYTES)
    return max(_SMALLEST, min(most, int(room / each)))


def _free(device: torch.device) -> int:
    """Bytes that are free on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        # Not every system tells; a small batch is then the safe choice.
        return 1 << 30
