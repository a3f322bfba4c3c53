"""A checksum over what was written, so that an edited or damaged file is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor


class Chunked(Protocol):
    """A tensor of a ``dtype`` and ``shape`` that comes in chunks along its first dimension."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def shape(self) -> torch.Size: ...

    def chunks(self) -> Iterator[Tensor]: ...


def checksum(values: Mapping[str, Any], tensors: Mapping[str, Tensor | Chunked] | None = None) -> str:
    """Thirty-two hex digits over JSON-able values and tensors (CPU), whatever the order of their names.

    A tensor in chunks has the checksum of the whole one. It guards against slips and careless edits. It is no
    signature: a forger can compute it too.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(values, sort_keys=True, ensure_ascii=True, allow_nan=False).encode())
    for name, tensor in sorted((tensors or {}).items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        for part in [tensor] if isinstance(tensor, Tensor) else tensor.chunks():
            digest.update(part.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
