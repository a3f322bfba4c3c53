"""What cannot be written, found out before the work where that is possible, and said in one line."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from unfool.core.borders.reading import STREAM, kind_of, not_regular
from unfool.core.errors import OutputError

DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
"""A caller may read other files while it writes; these alone can be the target's fault."""


@contextmanager
def writing(path: Path, only: frozenset[int] | None = None) -> Generator[None, None, None]:
    """Turn what the file system refuses into one line; ``only`` names the error numbers that are its fault."""
    try:
        yield
    except ValueError as error:
        if "null byte" not in str(error) and "null character" not in str(error):
            raise
        raise OutputError(f"cannot write {str(path)!r}: no path holds a NUL; choose another") from error
    except OSError as error:
        if only is not None and error.errno not in only:
            raise
        # filelock's Timeout is an OSError too, which whoever locks catches inside.
        reason = error.strerror or error
        raise OutputError(f"cannot write {path}: {reason}; free some space or choose a writable folder") from error


def replaceable(path: Path) -> Path:
    """The file that a write replaces, links followed; OutputError for anything but a regular file or nothing."""
    if str(path) == STREAM:
        raise OutputError("- is the standard output, which this is not written to; write ./- for a file of that name")
    with writing(path):
        target = Path(os.path.realpath(path))
        try:
            kind = not_regular(target.stat().st_mode)
        except FileNotFoundError:
            if path.is_symlink():
                raise OutputError(
                    f"cannot write {path}: it is a link to {target}, which is not there; remove the link"
                ) from None
            return target
    if kind is not None:
        raise OutputError(f"cannot write {path}: {kind}; choose the name of a file")
    return target


def make_folder(path: Path, wanted: Path) -> None:
    """Make a folder, and those above it; raises as `check_folder`."""
    check_folder(path, wanted)
    path.mkdir(parents=True, exist_ok=True)


def check_folder(path: Path, wanted: Path) -> None:
    """OutputError where a folder cannot be, with what stands there or above it: a file, a FIFO, a link to nothing.

    ``wanted`` is what is to be written: the folder, or a file in it.
    """
    for place in (path, *path.parents):
        try:
            mode = place.stat().st_mode
        except FileNotFoundError:
            if place.is_symlink():
                target = os.path.realpath(place)
                raise OutputError(
                    f"cannot write {wanted}: {place} is a link to {target}, which is not there; remove the link"
                ) from None
            continue
        except NotADirectoryError:
            continue
        if not stat.S_ISDIR(mode):
            what = "it is" if place == wanted else f"{place} is"
            raise OutputError(f"cannot write {wanted}: {what} {kind_of(mode)} and no folder; choose another")
        return
