"""What travels between the asker and a node: a job with what it reads, and what comes back while it is made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unfool.core.parallel.job import Place
from unfool.core.parallel.reporting import Report

CHUNK = 16 << 20
"""Bytes of files that one message carries at most: of all that passes, asker and node each hold one or two of them."""

Bytes = np.ndarray
"""Bytes of a file, as an array of uint8: the engine hands arrays on without a copy."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A part of a file at a path below the folder; parts come in order, and the file is whole at ``size`` bytes."""

    path: str
    offset: int
    size: int
    data: Bytes


@dataclass(frozen=True, kw_only=True)
class Message:
    """From a node: reports of progress, warnings of this library, parts of files, and how the job stands.

    ``commit``: every file sent so far is whole and fits the others; they land, in the order in which they were sent,
    and then those ``removed`` go. ``error`` is the job's own, and ``done`` says that it is finished.
    """

    reports: tuple[Report, ...] = ()
    warnings: tuple[str, ...] = ()
    chunks: tuple[Chunk, ...] = ()
    commit: bool = False
    removed: tuple[str, ...] = ()
    error: BaseException | None = None
    done: bool = False


@dataclass(frozen=True, kw_only=True)
class Input:
    """A file that a job reads below its folder: its size, the digest of its content, and its parts in order, each the
    bytes themselves or what the transport hands over for them."""

    path: str
    size: int
    digest: str
    parts: tuple[object, ...]


@dataclass(frozen=True, kw_only=True)
class Package:
    """A job as it travels: its call, what it reads, and where on a node the ``parcels`` that it names lie."""

    name: str
    call: Callable[[Place], object]
    inputs: tuple[Input, ...] = ()
    device: str = "cpu"
    files: dict[Path, tuple[str, str]] = field(default_factory=dict[Path, "tuple[str, str]"])


def parts_of(file: Path) -> Iterator[Bytes]:
    """The bytes of a file as it was when it was opened, in parts of at most CHUNK; an empty file has one."""
    with open(file, "rb") as opened:
        left = opened.seek(0, 2)
        opened.seek(0)
        while True:
            part = np.fromfile(opened, np.uint8, min(left, CHUNK))
            left -= len(part)
            yield part
            if left <= 0 or not len(part):
                return


@dataclass
class Digest:
    """The digest of a file's content, computed as its parts pass."""

    _state: hashlib.blake2b = field(default_factory=lambda: hashlib.blake2b(digest_size=16))

    def passing(self, parts: Iterator[Bytes]) -> Generator[Bytes]:
        """The parts, unchanged."""
        for part in parts:
            self._state.update(part.data)
            yield part

    def text(self) -> str:
        """The digest of all that passed."""
        return self._state.hexdigest()
