"""Whose code a class or function is: a library's, which its name identifies, or the user's, which is read."""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any

_SETTLED = frozenset({"builtins", "torch", "numpy", "unfool"})
"""Packages whose classes and functions their name identifies, as those of Python itself; of other libraries the version
counts too."""
_PYTHON = frozenset(sys.stdlib_module_names) - {"__main__"}


def _folders(*names: str) -> tuple[str, ...]:
    return tuple(str(Path(sysconfig.get_paths()[name]).resolve()) for name in names)


_INSTALLED, _OF_PYTHON = _folders("purelib", "platlib"), _folders("stdlib", "platstdlib")
_PACKAGES = frozenset({"site-packages", "dist-packages"})
"""Folders of installed packages, whichever environment they belong to."""
_HEAP_TYPE = 1 << 9
"""The flag of classes that code can make while it runs; the others are compiled into Python or a library."""


def library_of(module: str | None) -> str | None:
    """The library that a module belongs to, with its version where that counts; None for the user's own code."""
    if not module:
        return None
    package = module.partition(".")[0]
    if package in _SETTLED:
        return package
    # A file of the user's may have the name of a module of Python, such as code.py.
    loaded = sys.modules.get(package if package in _PYTHON else module)
    if loaded is None:
        return None
    spec = getattr(loaded, "__spec__", None)
    # Namespace packages and modules of the interpreter have no file; one made by hand is the user's.
    built_in = spec is not None and spec.origin in ("built-in", "frozen")
    file = getattr(loaded, "__file__", None)
    return library_of_file(module, file) if file is not None else package if built_in else None


@functools.lru_cache(maxsize=4096)
def library_of_file(module: str, file: str | None) -> str | None:
    """The library that a module belongs to by the place of its file, or of its package's; None for the user's."""
    if file is None or file in ("built-in", "frozen"):
        return module
    package = module.partition(".")[0]
    path = Path(file).resolve()
    # Environments are stacked: packages of the one below lie in a folder of its own.
    installed = str(path).startswith(_INSTALLED) or bool(_PACKAGES & set(path.parts))
    if package in _PYTHON:
        return package if str(path).startswith(_OF_PYTHON) and not installed else None
    return f"{package} {_version(package)}" if installed else None


def library_of_class(kind: type) -> str | None:
    """The library whose class this is; None for the user's, and for one that its name does not lead to."""
    library = library_of(kind.__module__)
    if library is None or not kind.__flags__ & _HEAP_TYPE:
        return library
    return library if _leads_to(kind.__module__, kind.__qualname__, kind) else None


def library_of_function(function: types.FunctionType) -> str | None:
    """The library whose function this is; None for the user's, and for one that its name does not lead to, such as
    what a decorator returns, or a function that has taken over the name of another."""
    library = library_of(function.__module__)
    if library is None or library_of(module_of(function)) is None:
        return None
    return library if _leads_to(function.__module__, function.__qualname__, function) else None


def module_of(function: types.FunctionType) -> str:
    """The module whose global variables a function reads; its ``__module__`` may be that of what it wraps."""
    return str(function.__globals__.get("__name__", ""))


def _leads_to(module: str, name: str, value: object) -> bool:
    """Whether a dotted name in a module is that of a value, or of something that wraps it."""
    held: Any = sys.modules.get(module)
    for part in name.split("."):
        held = getattr(held, "__dict__", {}).get(part)
    waiting: list[Any] = [held]
    for _ in range(32):
        held = waiting.pop() if waiting else None
        if held is value or held is None:
            return held is value
        for key in ("__func__", "__wrapped__", "fget", "fset", "fdel", "func"):
            inner = inspect.getattr_static(held, key, None)
            inner = getattr(held, key, None) if inner is not None else None
            waiting += [inner] if inner is not None else []
    return False


@functools.lru_cache(maxsize=256)
def _version(package: str) -> str:
    stated = getattr(sys.modules.get(package), "__version__", None)
    if isinstance(stated, str):
        return stated
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
