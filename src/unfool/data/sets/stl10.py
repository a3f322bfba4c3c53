"""``stl10``: 5,000 labelled, 8,000 test and 100,000 unlabelled photographs of 96×96 (Coates, Ng & Lee, AISTATS 2011).

Read from the official binary archive, whose checksum is verified before a byte of it is used. Its members are read
as streams and never extracted, so nothing in it can write a file.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from unfool.core.errors import DataError
from unfool.data.folders import cache_folder
from unfool.data.readers.download import fetch
from unfool.data.sources import SETS, DataSet, Encoded, Rows, Source

ARCHIVE = "stl10_binary.tar.gz"
ADDRESS = f"https://cs.stanford.edu/~acoates/stl10/{ARCHIVE}"
SHA256 = "f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866"
SIDE = 96
_BYTES = 3 * SIDE * SIDE
_MEMBERS = {"train": ("train_X", "train_y"), "test": ("test_X", "test_y"), "unlabelled": ("unlabeled_X", None)}
_CLASSES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


def _local(data_dir: Path | None) -> Path | None:
    places = [cache_folder() / "downloads" / ARCHIVE]
    if data_dir is not None:
        places = [data_dir / ARCHIVE, data_dir / "stl10" / ARCHIVE, *places]
    return next((path for path in places if path.is_file()), None)


def _verified(path: Path) -> Path:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != SHA256:
        raise DataError(
            f"{path} has SHA-256 {digest.hexdigest()[:16]}…, not {SHA256[:16]}…: interrupted or altered; "
            f"delete it and fetch {ADDRESS} again"
        )
    return path


def _blocks(path: Path, member: str, length: int) -> Iterator[bytes]:
    """A member of the archive in blocks of ``length`` bytes; DataError if it is missing, no plain file or cut off."""
    name = f"stl10_binary/{member}.bin"
    try:
        with tarfile.open(path, "r|gz") as archive:
            for info in archive:
                if info.name.removeprefix("./") != name:
                    continue
                stream = archive.extractfile(info) if info.isreg() else None
                if stream is None:
                    raise DataError(f"{name} in {path} is not a plain file; fetch {ADDRESS} again")
                while block := stream.read(length):
                    if len(block) != length:
                        raise DataError(f"{name} in {path} is cut off; fetch {ADDRESS} again")
                    yield block
                return
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, OSError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}; fetch {ADDRESS} again") from error
    raise DataError(f"{path} holds no {name}; fetch {ADDRESS} again")


def _images(path: Path, member: str) -> Iterator[Encoded]:
    for block in _blocks(path, member, _BYTES):
        # stored channel by channel, and within a channel column by column
        yield np.ascontiguousarray(np.frombuffer(block, dtype=np.uint8).reshape(3, SIDE, SIDE).transpose(2, 1, 0))


def _read(data_dir: Path | None, split: str) -> Rows:
    path = _local(data_dir)
    if path is None:
        path = fetch(ADDRESS, cache_folder() / "downloads" / ARCHIVE, SHA256)
    path = _verified(path)
    member, label_member = _MEMBERS[split]
    if label_member is None:
        count = sum(1 for _ in _blocks(path, member, _BYTES))
        return Rows(images=_images(path, member), count=count)
    labels = np.frombuffer(b"".join(_blocks(path, label_member, 1)), dtype=np.uint8).astype(np.int64) - 1
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= len(_CLASSES):
        raise DataError(f"{label_member} in {path} holds labels outside 1 to 10; fetch {ADDRESS} again")
    return Rows(images=_images(path, member), count=len(labels), columns={"label": labels}, classes={"label": _CLASSES})


def _splits(data_dir: Path | None) -> Mapping[str, Source]:
    # the checksum is the fingerprint: a finished store needs neither the archive nor a network
    return {
        split: Source(fingerprint=f"stl10:{SHA256}", read=lambda split=split: _read(data_dir, split))
        for split in _MEMBERS
    }


def _available(data_dir: Path | None) -> tuple[bool, str]:
    path = _local(data_dir)
    if path is not None:
        return True, str(path)
    return False, f"not here; fetched from {ADDRESS} (2.6 GB) on first use, or put it into the data directory"


SETS.add("stl10")(
    DataSet(
        name="stl10",
        source="official binary archive",
        size=SIDE,
        label_columns=("label",),
        splits=_splits,
        available=_available,
    )
)
