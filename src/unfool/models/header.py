# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The header of a safetensors file, read with suspicion before a single tensor is loaded.

Layout: 8 bytes little-endian header length, a JSON header, then the tensors' bytes without gaps.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch

from unfool.core.errors import WeightsError

SCHEMA_VERSION = 2
"""Since 2 a file has a checksum."""
CHECKSUM = "file_checksum"
MAX_HEADER_BYTES = 10_000_000
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_REMEDY = "save it again with unfool, or convert it to safetensors"
_FOREIGN = "give the code that it belongs to: --model FILE.py:NAME --weights FILE"


@dataclass(frozen=True, kw_only=True)
class Header:
    """``tensors`` by name as (dtype, shape), dtypes as safetensors spells them; ``metadata`` decoded from JSON.

    ``checksum`` is that of the file, over ``texts``, its other metadata as they are written, and its tensors; None for
    a file of schema version 1 or of another program.
    """

    tensors: dict[str, tuple[str, tuple[int, ...]]]
    metadata: Mapping[str, Any]
    checksum: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict[str, str])


def read_header(path: str | Path, *, foreign: bool = False) -> Header:
    """Read and check the header of a weights file; never loads a tensor, never unpickles.

    ``foreign``: another program may have written it; then its metadata are not read. Raises
    WeightsError: missing or not a regular file, a pickle, a header that is oversized, not JSON or does not
    describe the file's bytes exactly (gap, overlap, truncation, wrong size for dtype and shape), no schema version,
    or a newer one.
    """
    path = Path(path)
    try:
        # Looked at before opening: opening a pipe would wait forever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise WeightsError(f"{path} is not a regular file; give the path of a .safetensors file")
        with open(path, "rb") as file:
            size = path.stat().st_size
            length = _header_length(path, file.read(8), size)
            text = file.read(length)
    except FileNotFoundError as error:
        raise WeightsError(f"there is no weights file {path}; check the path") from error
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}; check the path and its permissions") from error
    entries = _parse(path, text)
    metadata = entries.pop("__metadata__", {})
    tensors = _check_entries(path, entries, size - 8 - length)
    decoded = {} if foreign else _decode(path, metadata)
    if not isinstance(metadata, dict) or "schema_version" not in metadata:
        return Header(tensors=tensors, metadata=decoded)
    checksum = metadata.pop(CHECKSUM, None)
    return Header(tensors=tensors, metadata=decoded, checksum=checksum, texts=metadata)


def _header_length(path: Path, start: bytes, size: int) -> int:
    """The header's length in bytes, if the first 8 bytes of a file of ``size`` bytes can be one."""
    length = int.from_bytes(start, "little")
    if len(start) == 8 and length <= min(size - 8, MAX_HEADER_BYTES):
        return length
    # Only now, because these bytes also begin honest lengths such as 640 (pickle) or 19,280 (zip).
    if start[:2] == b"PK" or (start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        message = f"{path} is a pickle (torch.save) file, which can run code when loaded; unfool reads only safetensors"
        raise WeightsError(f"{message}; rename it to end in .pt and make safetensors of it with unfool convert")
    if len(start) == 8 and length <= size - 8:
        raise WeightsError(f"{path} has a header of {length} bytes; at most {MAX_HEADER_BYTES} are read; {_REMEDY}")
    raise WeightsError(f"{path} is no whole safetensors file: its {size} bytes end before its header does; {_REMEDY}")


def _parse(path: Path, text: bytes) -> dict[str, object]:
    """The header's JSON object; doubled keys and NaN are refused, since readers disagree on what they mean."""

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        unique = dict(items)
        if len(unique) != len(items):
            raise ValueError("a key stands twice")
        return unique

    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=pairs, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} has a header that is not valid JSON ({str(error)[:80]}); {_REMEDY}") from error
    if not isinstance(entries, dict):
        raise WeightsError(f"{path} has a header that is no JSON object; {_REMEDY}")
    return entries


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_entries(path: Path, entries: Mapping[str, Any], size: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every tensor's dtype, shape and byte range; together the ranges must cover ``size`` bytes once, without gaps."""
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    ranges: list[tuple[int, int, str]] = []
    for name, entry in entries.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise WeightsError(f"{path}: tensor {name[:80]!r} lacks dtype, shape or data_offsets; {_REMEDY}")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPES:
            allowed = ", ".join(DTYPES)
            raise WeightsError(f"{path}: tensor {name[:80]!r} has dtype {str(dtype)[:20]!r}; allowed: {allowed}")
        lists = isinstance(shape, list) and isinstance(offsets, list) and len(shape) <= 16 and len(offsets) == 2
        if not lists or not all(_whole(number) for number in (*shape, *offsets)):
            raise WeightsError(f"{path}: tensor {name[:80]!r} has a malformed shape or data_offsets; {_REMEDY}")
        begin, end = offsets
        if begin > end or end > size:
            raise WeightsError(f"{path}: tensor {name[:80]!r} lies outside the file (truncated?); {_REMEDY}")
        if math.prod(shape) * DTYPES[dtype].itemsize != end - begin:
            raise WeightsError(f"{path}: tensor {name[:80]!r} has a shape that does not fit its bytes; {_REMEDY}")
        tensors[name] = (dtype, tuple(shape))
        ranges.append((begin, end, name))
    reached = 0
    for begin, end, name in sorted(ranges):
        if begin != reached:
            fault = "overlaps another" if begin < reached else "leaves a gap before it"
            raise WeightsError(f"{path}: tensor {name[:80]!r} {fault}; {_REMEDY}")
        reached = end
    if reached != size:
        raise WeightsError(f"{path}: {size - reached} bytes after the last tensor belong to none; {_REMEDY}")
    return tensors


def _decode(path: Path, metadata: Any) -> Mapping[str, Any]:
    """Metadata values are JSON texts; the schema version must be one that this version of unfool knows."""
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WeightsError(f"{path} has metadata that are not texts; {_REMEDY}")
    if "schema_version" not in metadata:
        raise WeightsError(f"{path} has no schema_version, so unfool did not write it; {_FOREIGN}")
    decoded: dict[str, object] = {}
    for key, value in metadata.items():
        if key == CHECKSUM:
            continue
        try:
            decoded[key] = json.loads(value, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise WeightsError(f"{path} has metadata {key[:80]!r} that are not valid JSON; {_REMEDY}") from error
    version = decoded.pop("schema_version")
    if not isinstance(version, int) or not _whole(version) or version == 0:
        raise WeightsError(f"{path} has schema_version {str(version)[:20]!r}, not a whole number; {_REMEDY}")
    if version > SCHEMA_VERSION:
        message = f"{path} has schema_version {version}; this unfool reads up to {SCHEMA_VERSION}"
        raise WeightsError(f"{message}; upgrade unfool")
    if version > 1 and CHECKSUM not in metadata:
        raise WeightsError(f"{path} has lost its checksum: it was changed after it was written; {_REMEDY}")
    return decoded
