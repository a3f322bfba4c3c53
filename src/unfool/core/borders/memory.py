"""A limit on what a reader of a file may take, for formats whose readers cannot be told one."""

from __future__ import annotations

import resource
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_STATUS = Path("/proc/self/statm")


@contextmanager
def memory_limit(extra: int) -> Generator[None, None, None]:
    """Inside, this process gets at most ``extra`` bytes of address space more; MemoryError beyond that.

    For short work in one thread: others share the limit. Where the system does not say what a process has, or has a
    lower limit already, nothing changes.
    """
    try:
        now = int(_STATUS.read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = now + extra
    lower = all(limit == resource.RLIM_INFINITY or wanted < limit for limit in (soft, hard))
    if lower:
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        if lower:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
