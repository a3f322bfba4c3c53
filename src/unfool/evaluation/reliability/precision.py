"""In how many bits a model computes: half precision and TF32 round to 8 to 11, which hides small changes of outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

COARSE = ("tf32", "bf16")
"""What PyTorch calls float32 products whose factors are rounded."""


def is_half(model: nn.Module) -> bool:
    """Whether a parameter or buffer of a model is in half precision."""
    tensors = [*model.parameters(), *model.buffers()]
    return any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in tensors)


def rounds_float32(device: torch.device) -> bool:
    """Whether PyTorch is set to round the factors of float32 products on a device."""
    operations = _on_cuda() if device.type == "cuda" else _on_cpu() if device.type == "cpu" else ()
    return any(each.fp32_precision in COARSE for each in operations)


@contextmanager
def unrounded_float32() -> Iterator[None]:
    """Switch that rounding (TF32 on a GPU, bf16 on a CPU) off for a while; all settings are put back."""
    operations = (*_on_cuda(), *_on_cpu())
    before = [each.fp32_precision for each in operations]
    cudnn, matmul = _cudnn_allows(), _matmul_precision()
    try:
        # The older settings first: PyTorch refuses to read those that contradict the newer ones.
        if cudnn is not None:
            torch.backends.cudnn.allow_tf32 = False
        if matmul is not None:
            torch.set_float32_matmul_precision("highest")
        for each in operations:
            each.fp32_precision = "ieee"
        yield
    finally:
        if cudnn is not None:
            torch.backends.cudnn.allow_tf32 = cudnn
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        for each, value in zip(operations, before, strict=True):
            each.fp32_precision = "none"  # What it takes over from a wider setting it goes on taking over.
            if each.fp32_precision != value:
                each.fp32_precision = value


def _on_cuda() -> tuple[Any, ...]:
    cudnn: Any = torch.backends.cudnn  # PyTorch's types do not know the settings by operation.
    return cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul


def _on_cpu() -> tuple[Any, ...]:
    mkldnn: Any = torch.backends.mkldnn
    return mkldnn.conv, mkldnn.rnn, mkldnn.matmul


def _cudnn_allows() -> bool | None:
    """The older setting for convolutions; None where newer ones contradict it."""
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return None


def _matmul_precision() -> str | None:
    """The older setting for matrix products; None where newer ones contradict it."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None
