# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Weights that lie in several files with an index, as transformers writes them, and archives of NumPy arrays."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from unfool.core.batch import tensor_of_array
from unfool.core.borders.memory import memory_limit
from unfool.core.borders.reading import is_file
from unfool.core.errors import WeightsError
from unfool.models.checkpoints.archive import read_archive
from unfool.models.weights import load_tensors

_LONGEST_INDEX = 64 << 20
_UNPACKED = 64 << 20
"""Bytes that arrays may unpack to, or four times the file's own where that is more: weights hardly compress."""

_ROOM = 1 << 28
"""Bytes that reading arrays may take beside twice what they may unpack to."""
_ARRAYS = "save its arrays with numpy.savez"


def read_parts(index: Path) -> dict[str, object]:
    """The tensors that a ``*.index.json`` lists, out of the files beside it.

    Raises WeightsError for an index that names files elsewhere, for a part that is not there, and as their readers do.
    """
    if not index.is_file():
        raise WeightsError(f"there is no weights file {index}; check the path")
    if index.stat().st_size > _LONGEST_INDEX:
        raise WeightsError(f"{index} has more than {_LONGEST_INDEX >> 20} MiB; give the index of a checkpoint")
    try:
        parts = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files: dict[str, str] = {str(name): str(file) for name, file in parts.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{index} has no weight_map of tensors to files; give the index of a checkpoint") from error
    if strange := [file for file in files.values() if Path(file).name != file]:
        raise WeightsError(
            f"{index} names {strange[0][:80]!r}, which is no file beside it; such a path is not followed"
        )
    state: dict[str, object] = {}
    for file in dict.fromkeys(files.values()):
        path = index.parent / file
        if not is_file(path):
            raise WeightsError(f"{index} names {file}, which does not lie beside it; copy all parts there")
        part: object = load_tensors(path, foreign=True)[0] if path.suffix == ".safetensors" else read_archive(path)
        if not isinstance(part, Mapping):
            raise WeightsError(f"{path} holds a {type(part).__name__}, not tensors by name; copy the part again")
        state |= part
    if lacking := [name for name in files if name not in state]:
        raise WeightsError(
            f"the parts of {index} lack {len(lacking)} tensors, such as {lacking[0][:80]}; copy them again"
        )
    return state


def read_arrays(path: Path) -> dict[str, Tensor]:
    """The arrays of a ``.npz`` file by name; WeightsError for what is no archive of numbers, or unpacks to too much."""
    if not is_file(path):
        raise WeightsError(f"there is no weights file {path}; check the path")
    size = path.stat().st_size
    most = max(_UNPACKED, 4 * size)
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > most:
            raise WeightsError(f"{path} unpacks to {unpacked:,} bytes; save its arrays with numpy.savez, uncompressed")
        # An array's own header says how large it is, and NumPy believes it.
        with memory_limit(_ROOM + 2 * most), np.load(path, allow_pickle=False) as arrays:
            return {
                name: tensor_of_array(
                    arrays[name], f"{path}: {name[:80]!r} is", WeightsError, f"leave it out: {_ARRAYS}"
                )
                for name in arrays.files
            }
    except WeightsError:
        raise
    except MemoryError as error:
        raise WeightsError(f"{path} unpacks to far more than its {size:,} bytes; {_ARRAYS}") from error
    except Exception as error:  # Whatever a malformed archive makes of its readers.
        said = " ".join(str(error).split())[:100]
        raise WeightsError(f"{path} holds no arrays of numbers by name ({said}); {_ARRAYS}") from error
