# pyright: reportUnknownMemberType=false
"""Building a store: every row of a source is decoded once, and what cannot be is left out and counted."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np

from unfool.core.errors import DataError
from unfool.data.decode import CorruptImageError, Framing
from unfool.data.encoded import as_bytes
from unfool.data.readers.decode_rows import decoded_rows
from unfool.data.sources import ReadReport, Rows
from unfool.data.store.manifest import SCHEMA_VERSION, Manifest, Shards, checksums_of_small_files, write_manifest


def build_store(folder: Path, what: str, rows: Rows, framing: Framing, limit: int) -> None:
    """Build the store of ``what`` under its name; above ``limit`` bytes it keeps the encoded images."""
    building = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(building, ignore_errors=True)  # left by a process that was killed; the lock is ours
    building.mkdir()
    try:
        write_manifest(building, _write(building, what, rows, framing, limit))
        for path in building.iterdir():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write(building: Path, what: str, rows: Rows, framing: Framing, limit: int) -> Manifest:
    """Decode all rows into a folder; gives the manifest. DataError for images of several sizes, or none."""
    kept: list[int] = []
    corrupt: dict[str, str] = {}
    modes: Counter[str] = Counter()
    shape: tuple[int, ...] | None = None
    keep_encoded = False
    offsets = [0]
    path = building / "pixels.bin"
    with open(path, "wb") as file:
        shards = Shards(file)
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
        "small_files": checksums_of_small_files(building),
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
