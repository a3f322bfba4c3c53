"""Memory that is freed stays with the process inside the context, and goes back to the system after it."""

import platform
import resource

import pytest
import torch

from unfool.core.parallel.memory import keep_freed_memory

BLOCK = 40 << 20


def pages_cleared() -> int:
    """Pages that the system clears for a block that is allocated, written and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(BLOCK, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone")
def test_a_freed_block_is_kept_inside_and_returned_after():
    pages = BLOCK // resource.getpagesize()
    with keep_freed_memory():
        with keep_freed_memory():
            # Splinters between the first blocks keep them apart; later ones find them joined.
            for _ in range(12):
                pages_cleared()
        assert pages_cleared() < pages // 4
    assert pages_cleared() > pages // 2


def test_without_glibc_nothing_is_done(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    with keep_freed_memory(), keep_freed_memory():
        assert int(torch.ones(3).sum()) == 3
