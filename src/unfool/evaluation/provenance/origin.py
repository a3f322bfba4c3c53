"""Whose code a class or function is: a library's, which its name identifies, or the user's, which is read."""

from __future__ import annotations

import functools
import importlib.metadata
import sys
import sysconfig
from pathlib import Path

_SETTLED = frozenset({"builtins", "torch", "numpy", "unfool", *sys.stdlib_module_names}) - {"__main__"}
"""Packages whose classes and functions their name identifies; of other libraries the version counts too."""
_INSTALLED = tuple(
    str(Path(folder).resolve()) for folder in {sysconfig.get_paths()[key] for key in ("purelib", "platlib")}
)
_PACKAGES = frozenset({"site-packages", "dist-packages"})
"""Folders of installed packages, whichever environment they belong to."""


@functools.lru_cache(maxsize=4096)
def library_of(module: str | None) -> str | None:
    """The library that a module belongs to, with its version where that counts; None for the user's own code."""
    if not module:
        return None
    package = module.partition(".")[0]
    if package in _SETTLED:
        return package
    loaded = sys.modules.get(module)
    if loaded is None:
        return None
    file = getattr(loaded, "__file__", None)
    if file is None:
        # Namespace packages and modules of the interpreter have no file; one made by hand is the user's.
        spec = getattr(loaded, "__spec__", None)
        return package if spec is not None and spec.origin in ("built-in", "frozen") else None
    path = Path(file).resolve()
    # Environments are stacked: packages of the one below lie in a folder of its own.
    if not str(path).startswith(_INSTALLED) and not _PACKAGES & set(path.parts):
        return None
    return f"{package} {_version(package)}"


@functools.lru_cache(maxsize=256)
def _version(package: str) -> str:
    stated = getattr(sys.modules.get(package), "__version__", None)
    if isinstance(stated, str):
        return stated
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
