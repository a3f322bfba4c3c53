"""A checksum over what was written, so that an edited or damaged file is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def checksum(values: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> str:
    """Thirty-two hex digits over JSON-able values and tensors (CPU), whatever the order of their names.

    It guards against slips and careless edits. It is no signature: a forger can compute it too.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(values, sort_keys=True, ensure_ascii=True, allow_nan=False).encode())
    for name, tensor in sorted((tensors or {}).items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
