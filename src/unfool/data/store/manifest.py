"""What a store says of itself: its manifest, and the checksums that tell whether it is whole."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, TypedDict

from unfool.data.sources import ReadReport

SCHEMA_VERSION = 1
FILE = "manifest.json"
SHARD_BYTES = 64 << 20
CHECK_BYTES = 1 << 30
"""Below this a store's checksums are all verified when it is opened; above, those of its first and last shard."""


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


class Shards:
    """Writes a file and keeps the CRC-32 of every SHARD_BYTES of it."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.bytes = 0
        self.checksums: list[int] = []

    def write(self, data: bytes) -> None:
        """Append bytes, in as many shards as they reach into."""
        while data:
            room = SHARD_BYTES - self.bytes % SHARD_BYTES
            if room == SHARD_BYTES:
                self.checksums.append(0)
            part, data = data[:room], data[room:]
            self.checksums[-1] = zlib.crc32(part, self.checksums[-1])
            self.file.write(part)
            self.bytes += len(part)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest with its own checksum into the folder of a store."""
    checked = {**manifest, "checksum": _checksum(manifest)}
    (folder / FILE).write_text(json.dumps(checked), encoding="utf-8")


def checksums_of_small_files(folder: Path) -> dict[str, int]:
    """The checksums of ids, columns and offsets, by file."""
    return {path.name: zlib.crc32(path.read_bytes()) for path in sorted(folder.glob("*.npy"))}


def _checksum(manifest: Mapping[str, object]) -> int:
    return zlib.crc32(json.dumps({key: value for key, value in manifest.items() if key != "checksum"}).encode())


def checked_manifest(folder: Path) -> Manifest | None:
    """The manifest of a store that is whole; None for one that is missing, truncated or altered."""
    try:
        manifest = json.loads((folder / FILE).read_text(encoding="utf-8"))
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
