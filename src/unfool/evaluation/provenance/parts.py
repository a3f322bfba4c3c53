"""What a value of a system consists of: its own bytes and its parts; and the bytes of values that have no parts."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from unfool.evaluation.provenance.origin import library_of

_PLAIN = (bool, float, complex, str, bytes, torch.dtype, torch.memory_format, torch.layout, torch.Size, torch.finfo)
_NOTHING = (
    torch.device,
    random.SystemRandom,
    threading.Thread,
    threading.Event,
    threading.Condition,
    threading.Semaphore,
    type(threading.Lock()),
    type(threading.RLock()),
    logging.Handler,
    logging.Logger,
)
"""Where something is computed, draws that nobody can repeat, and what only manages or tells."""
_SOURCES = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator)
_DRAWN_BITS = 64
"""NumPy draws a seed of 128 bits from the system where none is given: such a source differs in every process."""


@dataclass(frozen=True)
class Parts:
    """A value taken apart: ``own`` bytes, and the parts by name; without order, the names do not count either."""

    own: bytes
    parts: list[tuple[str, Any]]
    ordered: bool = True
    attributes: bool = False
    """The parts are attributes of the value, some of which a pass may write."""


class UnreadableError(Exception):
    """A value whose content cannot be read, so that nobody can tell it from another one."""


@dataclass(frozen=True)
class Unreadable:
    """Stands for a value that is known to be there and cannot be had; ``what`` says what it is."""

    what: str


def class_name(value: object) -> str:
    """A value's class, with its module."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def plain_bytes(value: Any) -> bytes | None:
    """A value without parts as bytes, the same in every process; None for one that has parts."""
    if value is None or type(value) in _PLAIN:
        return f"{class_name(value)} {value!r};".encode("utf-8", "surrogatepass")
    if type(value) is int:
        return f"builtins.int {value:x};".encode()
    if isinstance(value, _NOTHING) and (type(value) in _NOTHING or library_of(type(value).__module__) is not None):
        return f"{class_name(value)};".encode()
    if isinstance(value, np.generic) and not isinstance(value, np.void):
        return f"{value.dtype} {value!r};".encode()
    if isinstance(value, torch.finfo | torch.iinfo) or value is Ellipsis or value is NotImplemented:
        return repr(value).encode()
    return None


def seed_of(source: Any) -> Any:
    """The seed of a source of random draws, which draws leave as it is; None for one that was given none.

    Raises UnreadableError for a source that does not keep its seed.
    """
    if isinstance(source, torch.Generator):
        return source.initial_seed()
    numbers = getattr(source, "bit_generator", source)
    seeds = getattr(numbers, "seed_seq", None)
    if not isinstance(seeds, np.random.SeedSequence):
        raise UnreadableError(f"a {type(source).__name__}, which does not keep its seed")
    entropy = np.asarray(seeds.entropy, dtype=object).ravel().tolist()
    if any(not isinstance(number, int) or number.bit_length() > _DRAWN_BITS for number in entropy):
        return None
    return type(numbers).__name__, entropy, list(seeds.spawn_key)


def is_source(value: object) -> bool:
    """Whether a value is a source of random draws, of torch, NumPy or Python."""
    return isinstance(value, _SOURCES)


def tensor_pieces(tensor: Tensor) -> Iterator[bytes | memoryview]:
    """Dtype, shape and bits of a tensor on any device and of any layout."""
    if is_lazy(tensor):
        yield b"uninitialised;"
        return
    tensor = tensor.detach()
    if tensor.device.type == "meta":
        raise UnreadableError("a tensor without values")
    yield f"{tensor.dtype} {tuple(tensor.shape)};".encode()
    if tensor.is_quantized:
        parts = [tensor.int_repr(), tensor.dequantize()]
    elif tensor.layout == torch.strided:
        parts = [tensor]
    elif tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()
        parts = [tensor.indices(), tensor.values()]
    elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        parts = [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        parts = [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    else:
        parts = [tensor.to_dense()]
    for part in parts:
        dense = part.cpu().contiguous().resolve_conj().resolve_neg()
        yield dense.reshape(-1).view(torch.uint8).numpy().data
