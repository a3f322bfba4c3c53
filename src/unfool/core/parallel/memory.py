"""How the C library gives memory back to the system, which decides how often its pages are cleared anew."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Options of glibc's ``mallopt``."""

_LARGEST_BLOCK, _MOST_BLOCKS = 1 << 25, 1 << 16
"""glibc's own: blocks that are larger are mapped one by one, so many of them at most."""

_depth = 0


@contextmanager
def keep_freed_memory() -> Generator[None]:
    """Inside, this process keeps the memory of large tensors for the next ones; after, free memory is given back.

    By itself glibc returns every block of more than 32 MiB as soon as it is freed, and the system clears its pages anew
    for the next: of a training step of a large network up to a third of the time on a CPU. Does nothing without glibc.
    """
    _keep(1)
    try:
        yield
    finally:
        _keep(-1)


@cache
def keep_freed_memory_for_good() -> None:
    """The same until this process ends, for a worker: giving memory back after each batch costs more than many a
    batch."""
    _keep(1)


def _keep(more: int) -> None:
    """Count one more who wants memory kept, or one less; the first and the last of them change what glibc does."""
    global _depth
    before, _depth = _depth, _depth + more
    library = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    if library is None or (before and _depth):
        return
    if _depth:
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        return
    # What glibc's thresholds grow to by themselves; once set, they do not grow any more.
    library.mallopt(_MMAP_MAX, _MOST_BLOCKS)
    library.mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
    library.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_BLOCK)
    library.malloc_trim(0)
