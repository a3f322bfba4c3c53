"""Files and folders that nodes are sent once each: image sets, weights, a user's Python file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from unfool.core.cluster.messages import Bytes, parts_of
from unfool.core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A file or folder of the asker: its name, its files by their path below it (``""`` for a file itself) with their
    sizes, and a digest that tells it from others. ``image_set`` says that it is one of the data directory."""

    name: str
    files: tuple[tuple[str, int], ...]
    digest: str
    image_set: bool = False

    @property
    def bytes(self) -> int:
        """Its size."""
        return sum(size for _, size in self.files)


def parcel_of(path: Path, *, image_set: bool = False) -> Parcel:
    """A file or folder as a parcel; DataError for one that is not there.

    What is in it is told from names, sizes and times of change: to read all of an image set would take long.
    """
    if not path.exists():
        raise DataError(f"there is no {path} to send to the cluster; check its path")
    listed = list(_files_of(path))
    digest = hashlib.blake2b(repr((str(path.resolve()), listed)).encode(), digest_size=12)
    return Parcel(
        name=path.resolve().name,
        files=tuple((name, size) for name, size, _ in listed),
        digest=digest.hexdigest(),
        image_set=image_set,
    )


def same_files(parcel: Parcel, path: Path) -> bool:
    """Whether a folder has the files of a parcel, by their names and sizes."""
    return path.exists() and tuple((name, size) for name, size, _ in _files_of(path)) == parcel.files


def contents(parcel: Parcel, path: Path) -> Iterator[tuple[str, int, Bytes]]:
    """The parts of all files of a parcel, each with the file's path below it and where in the file it belongs."""
    for name, _ in parcel.files:
        offset = 0
        for part in parts_of(path / name if name else path):
            yield name, offset, part
            offset += len(part)


def _files_of(path: Path) -> Iterable[tuple[str, int, int]]:
    if not path.is_dir():
        status = path.stat()
        return [("", status.st_size, status.st_mtime_ns)]
    listed: list[tuple[str, int, int]] = []
    for place, folders, names in os.walk(path, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(place) / name
            if not name.startswith(".") and file.is_file():
                status = file.stat()
                listed.append((file.relative_to(path).as_posix(), status.st_size, status.st_mtime_ns))
    return sorted(listed)
