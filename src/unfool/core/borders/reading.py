"""Files that a user names: looked at before they are opened, read up to a bound, and refused in one line."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from unfool.core.errors import DataError, UnfoolError

STREAM = "-"
"""Stands for the standard input where a file is read, for the standard output where one is written."""
MOST_BYTES = 1 << 28
"""The longest file that is read at once: 256 MiB."""

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def is_file(path: str | Path) -> bool:
    """Whether a regular file is there; a path that no file can have is none."""
    return os.path.isfile(path)


def is_folder(path: str | Path) -> bool:
    """Whether a folder is there; a path that no folder can have is none."""
    return os.path.isdir(path)


def not_regular(mode: int) -> str | None:
    """What a thing with this mode is instead of a regular file; None for a regular file."""
    if stat.S_ISDIR(mode):
        return "Is a directory"
    return None if stat.S_ISREG(mode) else f"it is {kind_of(mode)}, not a regular file"


def kind_of(mode: int) -> str:
    """What a thing with this mode is, in words."""
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def read_bytes(
    path: str | Path,
    advice: str,
    *,
    most: int = MOST_BYTES,
    error: type[UnfoolError] = DataError,
) -> bytes:
    """The content of a regular file of at most ``most`` bytes.

    A FIFO, device, socket or folder is refused before it is opened. Raises ``error``, whose message ends in
    ``advice``, for whatever keeps the file from being read.
    """
    try:
        if (kind := not_regular(os.stat(path).st_mode)) is not None:
            raise error(f"cannot read {path}: {kind}; {advice}")
        # It may have changed since: opening a FIFO must not wait for a writer.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if (kind := not_regular(status.st_mode)) is not None:
                raise error(f"cannot read {path}: {kind}; {advice}")
            content = b"" if status.st_size > most else file.read(most + 1)
            if max(status.st_size, len(content)) > most:
                raise error(
                    f"cannot read {path}: it has {status.st_size:,} bytes, more than the {most:,} allowed; {advice}"
                )
            return content
    except (OSError, ValueError) as fault:  # ValueError: a path with a NUL, or that this system cannot spell
        raise error(f"cannot read {path}: {reason_of(fault)}; {advice}") from fault


def read_text(
    path: str | Path,
    advice: str,
    *,
    most: int = MOST_BYTES,
    error: type[UnfoolError] = DataError,
    malformed: type[UnfoolError] | None = None,
) -> str:
    """As `read_bytes`, of UTF-8 text; ``-`` reads the standard input. ``malformed`` is raised for other bytes."""
    if str(path) == STREAM:
        content = sys.stdin.buffer.read(most + 1)
        if len(content) > most:
            raise error(f"the standard input has more than the {most:,} bytes allowed; {advice}")
    else:
        content = read_bytes(path, advice, most=most, error=error)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise (malformed or error)(f"cannot read {path}: it is not UTF-8 ({fault.reason}); {advice}") from fault


def reason_of(fault: Exception) -> str:
    """What the system says of a file that it refuses, without the path."""
    return (fault.strerror if isinstance(fault, OSError) else None) or str(fault) or type(fault).__name__
