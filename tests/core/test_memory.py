"""Memory that is freed stays with the process inside the context, and goes back to the system after it."""

import platform

import pytest
import torch

from unfool.core.parallel.memory import keep_freed_memory

BLOCK = 1 << 26


def resident() -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone")
def test_a_freed_block_is_kept_inside_and_returned_after():
    before = resident()
    with keep_freed_memory():
        with keep_freed_memory():
            torch.ones(BLOCK, dtype=torch.uint8)
        assert resident() - before > BLOCK // 2
    assert resident() - before < BLOCK // 2
