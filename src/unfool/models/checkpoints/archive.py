# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""A file of `torch.save` or TorchScript as plain values: no code in it is run, and memory is bounded by its size."""

from __future__ import annotations

import argparse
import codecs
import datetime
import io
import os
import pathlib
import re
import types
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unfool.core.borders.memory import memory_limit
from unfool.core.borders.reading import is_file
from unfool.core.errors import UnfoolWarning, WeightsError

_ROOM = 1 << 28
"""Bytes that reading a checkpoint may take beside four times its size."""
REMEDY = "save model.state_dict() with the program that wrote it"
_MULTIARRAY = np.float64(0).__reduce__()[0].__module__
_KINDS = "bool i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16 U1 S1 M8[s] m8[s]".split()  # noqa: SIM905
_BUILDERS: list[Any] = [np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]]
_NUMPY: list[Any] = [
    *(np.dtype, np.ndarray, codecs.encode),
    *(type(np.dtype(kind)) for kind in _KINDS),
    # Files of NumPy 1 and 2 name the same function by different modules.
    *((each, f"numpy.{core}.multiarray.{each.__name__}") for each in _BUILDERS for core in ("core", "_core")),
    *((np.dtype, "numpy.dtype"), (np.ndarray, "numpy.ndarray"), (codecs.encode, "_codecs.encode")),
]
_RECORDS: list[Any] = [
    argparse.Namespace,
    types.SimpleNamespace,
    datetime.datetime,
    datetime.date,
    datetime.timedelta,
    pathlib.PosixPath,
    pathlib.PurePosixPath,
    *(
        (kind, f"{module}.{kind.__name__}")
        for kind in (list, dict, int, float)
        for module in ("builtins", "__builtin__")
    ),
]
"""What training programs keep beside weights: their constructors only store values."""


class ScriptPart:
    """A module of a TorchScript file: only what it stores is read, not its code."""

    state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read_archive(path: Path) -> object:
    """The values of a checkpoint (CPU), of a TorchScript file the tensors by their dotted names.

    It is read by ``torch.load(weights_only=True)``, with an UnfoolWarning. Raises WeightsError for a file that is not
    there, for one that ``weights_only`` refuses (no other way is tried), and for compressed entries.
    """
    if not is_file(path):
        if os.path.exists(path):
            raise WeightsError(f"{path} is no regular file; give a checkpoint")
        raise WeightsError(f"there is no weights file {path}; check the path")
    size = path.stat().st_size
    try:
        # What is read as plain values can still multiply: texts that are encoded again and again, copies of lists.
        with memory_limit(_ROOM + 4 * size):
            script = _checked_zip(path)
            if script is not None:
                return _script(path, script)
            checkpoint = _load(path, [*_NUMPY, *_RECORDS])
    except WeightsError:
        raise
    except MemoryError as error:
        raise WeightsError(f"{path} unpacks to far more than its {size:,} bytes; {REMEDY}") from error
    except Exception as error:  # Whatever a malformed pickle or archive makes of its readers.
        raise WeightsError(f"{path} {_refusal(error)}; {REMEDY}") from error
    note = f"{path} is a pickle; it was read with weights_only=True, which runs no code of its own"
    warnings.warn(f"{note}; unfool convert writes it as safetensors", UnfoolWarning, stacklevel=4)
    return checkpoint


def _load(file: Path | io.BytesIO, allowed: list[Any]) -> object:
    """The values of a file, in which nothing but tensors, plain values and the ``allowed`` classes may occur."""
    with torch.serialization.safe_globals(allowed):
        return torch.load(file, map_location="cpu", weights_only=True)


def _refusal(error: Exception) -> str:
    refused = re.search(r"GLOBAL ([\w.]+)", str(error)) or re.search(r"but got <class '([\w.]+)'>", str(error))
    if refused is not None:
        return f"is refused: it needs {refused[1]}, which weights_only=True does not load"
    if "Unsupported operand" in str(error):
        return "is refused: it is no file of torch.save, or one with another pickle protocol than its own (2)"
    # PyTorch surrounds what is wrong with advice to load the file without protection.
    said = str(error).partition("WeightsUnpickler error:")[2].partition("Check the documentation")[0] or str(error)
    said = " ".join(said.split())[:100]
    return f"is refused by torch.load(weights_only=True) ({type(error).__name__}: {said})"


def _checked_zip(path: Path) -> io.BytesIO | None:
    """A TorchScript file rewritten as a plain checkpoint without its code; None for any other file."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        script = any(entry.filename.endswith("/constants.pkl") for entry in entries)
        # The code of a script, which is not read, is compressed.
        read = [entry for entry in entries if not script or _inner(entry.filename) is not None]
        stored = sum(entry.file_size for entry in read)
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in read) or stored > path.stat().st_size:
            raise WeightsError(
                f"{path} has compressed entries, which unpack to {stored:,} bytes; PyTorch stores them as they are; "
                f"{REMEDY}"
            )
        if not script:
            return None
        plain = io.BytesIO()
        with zipfile.ZipFile(plain, "w") as copy:
            for entry in read:
                copy.writestr(f"archive/{_inner(entry.filename)}", archive.read(entry))
    plain.seek(0)
    return plain


def _inner(name: str) -> str | None:
    """The name within the archive of what holds values; None for code and what belongs to it."""
    inner = name.partition("/")[2]
    return inner if inner in ("data.pkl", "version", "byteorder") or inner.startswith("data/") else None


def _script(path: Path, file: io.BytesIO) -> dict[str, Tensor]:
    names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    parts = [(ScriptPart, name) for name in names if name.startswith("__torch__.")]
    typed = [(_same, name) for name in names if name.startswith("torch.jit._pickle.")]
    file.seek(0)
    root = _load(file, [*parts, *typed])
    tensors: dict[str, Tensor] = {}
    _collect("", root, tensors, 0)
    if not tensors:
        raise WeightsError(
            f"{path} is a frozen program, whose weights are constants of its code; give it as the model itself, with "
            "--model FILE, or save it before torch.jit.freeze"
        )
    return tensors


def _same(value: Any, *_: Any) -> Any:
    """What TorchScript marks with a type is the value itself."""
    return value


def _collect(name: str, part: Any, tensors: dict[str, Tensor], depth: int) -> None:
    if isinstance(part, Tensor):
        tensors[name] = part
    elif isinstance(part, ScriptPart) and isinstance(part.state, dict) and depth < 64:
        for key, value in part.state.items():
            _collect(f"{name}.{key}" if name else str(key), value, tensors, depth + 1)
