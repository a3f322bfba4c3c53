"""Files mapped into memory, whose pages are let go again: reading all of a large file does not keep all of it."""

from __future__ import annotations

import ctypes
import mmap

KEPT_BYTES = 1 << 28
"""Bytes that are read of a file before its pages are let go, 256 MiB; the system keeps them, and gives them back."""


class MappedPages:
    """The pages of a mapping at an ``address`` of so many bytes; nobody has written into it.

    The system counts every page that was touched as this process's memory until it is let go. Where it knows no
    ``madvise``, nothing happens.
    """

    def __init__(self, address: int, size: int):
        first = address // mmap.PAGESIZE * mmap.PAGESIZE
        self._range = ctypes.c_void_p(first), ctypes.c_size_t(address + size - first)
        self._read = 0
        self._advise = getattr(ctypes.CDLL(None), "madvise", None)

    def read(self, size: int) -> None:
        """Say that so many bytes were copied out of the pages."""
        self._read += size
        if self._read >= KEPT_BYTES and self._advise is not None:
            self._advise(*self._range, ctypes.c_int(getattr(mmap, "MADV_DONTNEED", 4)))
            self._read = 0

    def __reduce__(self) -> tuple[type[MappedPages], tuple[int, int]]:
        # Another process has the file mapped elsewhere, or not at all: there nothing is let go.
        return MappedPages, (0, 0)
