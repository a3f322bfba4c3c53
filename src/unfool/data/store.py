# pyright: reportUnknownMemberType=false
"""The decode-once store: a split's images as one memory-mapped file of uint8 pixels, checksummed in shards.

A store is a folder ``NAME-SPLIT-SIZE-HASH`` with

* ``pixels.bin``: uint8 (N, 3, H, W), or ``encoded.bin`` with ``offsets.npy`` (N + 1) above the size limit;
* ``ids.npy`` (N,) and one ``column-K.npy`` (N,) per label column;
* ``manifest.json``: shapes, class names, counts of corrupt and converted images, a checksum for every 64 MiB, its own.

It is built under a lock in a folder beside it and renamed, so it is whole or absent; one that fails its check is
built again. The key holds set, split, size, crop, the source's fingerprint and the layout's version.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
import zlib
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypedDict

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from unfool.core.borders.mapped import MappedPages
from unfool.core.errors import DataError, OutputError, UnfoolWarning
from unfool.data.decode import SEVERAL_FRAMES, CorruptImageError, Framing
from unfool.data.encoded import EncodedPixels, as_bytes
from unfool.data.pixels import DecodedPixels, Pixels
from unfool.data.readers.decode_rows import decoded_rows, resident_pixels, workers
from unfool.data.sources import Columns, Rows, Source, primary_column
from unfool.data.table import ReadReport, Table

SCHEMA_VERSION = 1
SHARD_BYTES = 64 << 20
CHECK_BYTES = 1 << 30
"""Below this a store's checksums are all verified when it is opened; above, those of its first and last shard."""
LIMIT_BYTES = 8 << 30
"""Above this many decoded bytes a store keeps the encoded images."""


class Manifest(TypedDict):
    """What ``manifest.json`` says of a store, but its own checksum."""

    schema_version: int
    what: str
    kind: str
    shape: list[int]
    size: int | None
    crop: float
    bytes: int
    checksums: list[int]
    small_files: dict[str, int]
    columns: list[str]
    classes: dict[str, list[str]]
    others: dict[str, str]
    report: ReadReport


def store_key(name: str, split: str, framing: Framing, columns: Columns, limit: int, fingerprint: str) -> str:
    """The folder name of a store."""
    parts = [SCHEMA_VERSION, name, split, framing.size, "centre" if framing.crop == 1.0 else framing.crop, limit]
    parts += [fingerprint, *([columns.image, *columns.labels] if columns != Columns() else [])]
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()
    slug = re.sub(r"[^A-Za-z0-9._]+", "_", name).strip("._")[-60:]
    return f"{slug}-{split}-{framing.size or 'native'}-{digest}"


def stored_table(
    name: str,
    split: str,
    source: Source,
    *,
    framing: Framing = Framing(),  # noqa: B008 - frozen
    columns: Columns = Columns(),  # noqa: B008 - frozen
    cache: Path,
    limit: int = LIMIT_BYTES,
) -> Table:
    """Open the store of a split, building it first where there is none that is whole.

    Raises DataError for sources that cannot be read and OutputError for a cache that cannot be written; warns
    (UnfoolWarning) on every opening when images were left out as corrupt or converted from CMYK.
    """
    folder = cache / "store" / store_key(name, split, framing, columns, limit, source.fingerprint)
    manifest = checked_manifest(folder)
    if manifest is None:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_name(folder.name + ".lock")):
                manifest = checked_manifest(folder)  # another process may have built it while this one waited
                if manifest is None:
                    _build(folder, f"{name} {split}", source.rows(columns), framing, limit)
                    manifest = checked_manifest(folder)
        except OSError as error:
            raise OutputError(
                f"cannot write the image store in {cache}: {error.strerror or error}; free some space, or set "
                "UNFOOL_CACHE_DIR to a writable folder"
            ) from error
        if manifest is None:
            raise OutputError(f"the image store in {folder} does not read back as written; check that disk")
    return _open(folder, manifest, name, split, columns)


def resident_table(
    name: str,
    split: str,
    source: Source,
    *,
    framing: Framing = Framing(),  # noqa: B008 - frozen
    columns: Columns = Columns(),  # noqa: B008 - frozen
) -> Table:
    """The same without files, for a set that is small and embedded."""
    rows = source.rows(columns)
    pixels, kept = resident_pixels(rows, framing)
    ids = np.arange(rows.count) if rows.ids is None else rows.ids
    return Table(
        DecodedPixels(pixels),
        torch.from_numpy(ids[kept].astype(np.int64)),
        {key: torch.from_numpy(values[kept].astype(np.int64)) for key, values in rows.columns.items()},
        rows.classes,
        label_column=primary_column(rows.columns, columns.labels),
        name=name,
        split=split,
        others=rows.others,
    )


class _Shards:
    """Writes a file and keeps the CRC-32 of every SHARD_BYTES of it."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.bytes = 0
        self.checksums: list[int] = []

    def write(self, data: bytes) -> None:
        while data:
            room = SHARD_BYTES - self.bytes % SHARD_BYTES
            if room == SHARD_BYTES:
                self.checksums.append(0)
            part, data = data[:room], data[room:]
            self.checksums[-1] = zlib.crc32(part, self.checksums[-1])
            self.file.write(part)
            self.bytes += len(part)


def _build(folder: Path, what: str, rows: Rows, framing: Framing, limit: int) -> None:
    building = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(building, ignore_errors=True)  # left by a process that was killed; the lock is ours
    building.mkdir()
    try:
        manifest = _write(building, what, rows, framing, limit)
        checked = {**manifest, "checksum": _checksum(manifest)}
        (building / "manifest.json").write_text(json.dumps(checked), encoding="utf-8")
        for path in building.iterdir():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write(building: Path, what: str, rows: Rows, framing: Framing, limit: int) -> Manifest:
    kept: list[int] = []
    corrupt: dict[str, str] = {}
    modes: Counter[str] = Counter()
    shape: tuple[int, ...] | None = None
    keep_encoded = False
    offsets = [0]
    path = building / "pixels.bin"
    with open(path, "wb") as file:
        shards = _Shards(file)
        for row, encoded, outcome in decoded_rows(rows, framing):
            if isinstance(outcome, CorruptImageError):
                corrupt[rows.names[row] if rows.names else f"row {row}"] = str(outcome)
                continue
            pixels, mode = outcome
            if shape is None:
                shape = tuple(pixels.shape)
                keep_encoded = rows.count * pixels.size > limit
            elif pixels.shape != shape:
                raise DataError(
                    f"{what} has images of {shape[2]}×{shape[1]} and of {pixels.shape[2]}×{pixels.shape[1]} pixels "
                    f"(row {row}); give one size for all, --size PIXELS on the command line or size=PIXELS in Python"
                )
            shards.write(as_bytes(encoded) if keep_encoded else pixels.tobytes())
            offsets.append(shards.bytes)
            kept.append(row)
            modes[mode] += 1
    if shape is None:
        first = next((f", first: {name} ({reason})" for name, reason in corrupt.items()), "")
        raise DataError(f"{what} has no readable image among its {rows.count}{first}; repair or fetch the set again")
    ids = np.arange(rows.count) if rows.ids is None else rows.ids
    np.save(building / "ids.npy", ids[kept].astype(np.int64))
    for index, values in enumerate(rows.columns.values()):
        np.save(building / f"column-{index}.npy", values[kept].astype(np.int64))
    if keep_encoded:
        path.rename(building / "encoded.bin")
        np.save(building / "offsets.npy", np.array(offsets, dtype=np.int64))
    return {
        "schema_version": SCHEMA_VERSION,
        "what": what,
        "kind": "encoded" if keep_encoded else "pixels",
        "shape": [len(kept), *shape],
        "size": framing.size,
        "crop": framing.crop,
        "bytes": shards.bytes,
        "checksums": shards.checksums,
        "small_files": {p.name: zlib.crc32(p.read_bytes()) for p in sorted(building.glob("*.npy"))},
        "columns": list(rows.columns),
        "classes": rows.classes,
        "others": rows.others,
        "report": ReadReport(
            rows=rows.count,
            corrupt=len(corrupt),
            corrupt_images=dict(islice(corrupt.items(), 100)),
            converted={mode: count for mode, count in sorted(modes.items()) if mode != "RGB"},
        ),
    }


def _checksum(manifest: Mapping[str, object]) -> int:
    return zlib.crc32(json.dumps({key: value for key, value in manifest.items() if key != "checksum"}).encode())


def checked_manifest(folder: Path) -> Manifest | None:
    """The manifest of a store that is whole; None for one that is missing, truncated or altered."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if manifest["schema_version"] != SCHEMA_VERSION or manifest["checksum"] != _checksum(manifest):
            return None
        path = folder / f"{manifest['kind']}.bin"
        if path.stat().st_size != manifest["bytes"]:
            return None
        if any(zlib.crc32((folder / n).read_bytes()) != crc for n, crc in manifest["small_files"].items()):
            return None
        checksums = manifest["checksums"]
        every = manifest["bytes"] <= CHECK_BYTES
        with open(path, "rb") as file:
            for index in range(len(checksums)) if every else sorted({0, len(checksums) - 1}):
                file.seek(index * SHARD_BYTES)
                if zlib.crc32(file.read(SHARD_BYTES)) != checksums[index]:
                    return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return manifest


def _load(path: Path) -> Tensor:
    return torch.from_numpy(np.load(path, allow_pickle=False))


def _open(folder: Path, manifest: Manifest, name: str, split: str, columns: Columns) -> Table:
    shape = tuple(manifest["shape"])
    if manifest["kind"] == "encoded":
        offsets = np.load(folder / "offsets.npy", allow_pickle=False)
        framing = Framing(manifest["size"], manifest.get("crop", 1.0))
        pixels: Pixels = EncodedPixels(folder / "encoded.bin", offsets, shape, framing, workers())
    else:
        # a private mapping: the pages are shared between processes, and a write to them never reaches the file
        mapped = torch.from_file(str(folder / "pixels.bin"), shared=False, size=manifest["bytes"], dtype=torch.uint8)
        pixels = DecodedPixels(mapped.view(shape), MappedPages(mapped.data_ptr(), mapped.nbytes))
    report = manifest["report"]
    _warn_of(manifest["what"], report)
    return Table(
        pixels,
        _load(folder / "ids.npy"),
        {column: _load(folder / f"column-{index}.npy") for index, column in enumerate(manifest["columns"])},
        manifest["classes"],
        label_column=primary_column(manifest["columns"], columns.labels),
        name=name,
        split=split,
        report=report,
        others=manifest.get("others"),
    )


def _warn_of(what: str, report: ReadReport) -> None:
    if report["corrupt"]:
        first = ", ".join(f"{name} ({reason})" for name, reason in islice(report["corrupt_images"].items(), 3))
        warnings.warn(
            f"{what}: {report['corrupt']} of {report['rows']} images are corrupt and left out, first: {first}",
            UnfoolWarning,
            stacklevel=4,
        )
    if several := report["converted"].get(SEVERAL_FRAMES):
        words = f"{several} of {report['rows']} images have several frames or pages, of which the first is taken"
        warnings.warn(f"{what}: {words}", UnfoolWarning, stacklevel=4)
    if cmyk := report["converted"].get("CMYK"):
        warnings.warn(
            f"{what}: {cmyk} of {report['rows']} images are CMYK and were converted to RGB without a colour profile",
            UnfoolWarning,
            stacklevel=4,
        )
