"""Files and folders that nodes are sent once each: image sets, weights, a user's Python file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from unfool.core.cluster.messages import Bytes, parts_of
from unfool.core.errors import DataError

_READ = 1 << 22
"""Bytes that are read at once."""


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A file or folder of the asker: where it lies there, its files by their path below it (``""`` for a file itself)
    with their sizes, and a digest that tells it from others. A parcel with ``place`` is an image set, and that its
    place in a data directory; ``whole`` says that it is all of its folder; ``stamps`` tells whether two machines see
    the very same files, and ``content``, empty until `read`, whether others hold the same."""

    path: Path
    files: tuple[tuple[str, int], ...]
    digest: str
    stamps: str
    place: str = ""
    whole: bool = True
    content: str = ""

    @property
    def name(self) -> str:
        """What it is called where it is sent."""
        return self.path.name

    @property
    def bytes(self) -> int:
        """Its size."""
        return sum(size for _, size in self.files)

    def read(self) -> Parcel:
        """The same parcel with the digest of its content."""
        return replace(self, content=_content(self.path, self.files))


def parcel_of(path: Path, *, place: str = "", only: Iterable[Path] | None = None) -> Parcel:
    """A file or folder as a parcel, with ``only`` some of a folder's files; DataError for what is not there, or not
    below the folder.

    Its digest is that of names, sizes and times of change: to read all of an image set takes long, and is not always
    needed.
    """
    if not path.exists():
        raise DataError(f"there is no {path} to send to the cluster; check its path")
    listed = list(_files_of(path) if only is None else _chosen(path, only))
    path = path.resolve()
    digest = hashlib.blake2b(repr((str(path), listed)).encode(), digest_size=12)
    files, stamps = tuple((name, size) for name, size, _ in listed), _stamps(path, [name for name, *_ in listed])
    return Parcel(path=path, files=files, digest=digest.hexdigest(), stamps=stamps, place=place, whole=only is None)


def same_files(parcel: Parcel, path: Path) -> bool | None:
    """Whether a folder has the files of a parcel with their content, and no others if that is whole.

    None: it has them by their names and sizes, and of the parcel no more is known.
    """
    try:
        if parcel.whole and tuple((name, size) for name, size, _ in _files_of(path)) != parcel.files:
            return False
        if any((path / name).stat().st_size != size for name, size in parcel.files):
            return False
        if _stamps(path, [name for name, _ in parcel.files]) == parcel.stamps:
            return True
        return _content(path, parcel.files) == parcel.content if parcel.content else None
    except OSError:
        return False


def contents(parcel: Parcel) -> Iterator[tuple[str, int, Bytes]]:
    """The parts of all files of a parcel, each with the file's path below it and where in the file it belongs."""
    for name, _ in parcel.files:
        offset = 0
        for part in parts_of(parcel.path / name if name else parcel.path):
            yield name, offset, part
            offset += len(part)


def _stamps(path: Path, names: Iterable[str]) -> str:
    """A digest of the numbers and times of change that the file system has of files."""
    digest = hashlib.blake2b(digest_size=12)
    for name in names:
        status = (path / name).stat()
        digest.update(f"{status.st_ino} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _content(path: Path, files: Iterable[tuple[str, int]]) -> str:
    """A digest of what is in files."""
    digest = hashlib.blake2b(digest_size=16)
    for name, size in files:
        digest.update(f"{size}\n".encode())
        with open(path / name, "rb") as file:
            while part := file.read(_READ):
                digest.update(part)
    return digest.hexdigest()


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


def _chosen(folder: Path, files: Iterable[Path]) -> Iterable[tuple[str, int, int]]:
    listed: set[tuple[str, int, int]] = set()
    for file in files:
        # Links stay as they are called: whoever reads them there looks for these names.
        name = os.path.relpath(os.path.abspath(file), os.path.abspath(folder))
        if name.startswith(".."):
            raise DataError(f"{file} does not lie below {folder} and cannot be sent with it; put it there")
        status = file.stat()
        listed.add((Path(name).as_posix(), status.st_size, status.st_mtime_ns))
    return sorted(listed)
