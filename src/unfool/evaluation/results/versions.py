"""The versions that a result depends on."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch


def versions() -> dict[str, str]:
    """Program, Python, libraries, processor architecture and threads."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("unfool", "torch", "accelerate", "numpy")},
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
    }
