# pyright: reportUnknownMemberType=false
"""Files that are either whole or absent: written to a temporary name beside the target, fsynced, renamed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from filelock import FileLock, Timeout

from unfool.core.borders.json_text import read_json
from unfool.core.borders.reading import STREAM, is_file, kind_of, not_regular
from unfool.core.errors import OutputError

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
"""A caller may read other files while it writes; these alone can be the target's fault."""

JsonObject: TypeAlias = "dict[str, Any]"
"""A JSON object: what `json.load` gives and `write_json` writes."""


@contextmanager
def atomic_path(path: str | Path) -> Generator[Path, None, None]:
    """Give a temporary path beside the target; on success it replaces ``path``, on any failure it is removed.

    It lies in a folder of its own, where a writer may make temporary files as it likes. What a killed process left of
    an earlier attempt is removed as well. A link to a file stays, and the file that it leads to is replaced.

    Raises OutputError if the folder cannot be written, if the disk is full, and where ``path`` is anything but a
    regular file or nothing: a device, FIFO, socket or directory, a link to one, or a link to nothing.
    """
    if str(path) != STREAM:
        with _writing(Path(path)):
            _check_folder(Path(path).parent, Path(path))
    path = _replaceable(Path(path))
    with _writing(path):
        _make_folder(path.parent, path)
        _sweep(path.parent.iterdir(), _short(path.name))
        apart, held = _own_folder(path)
    temporary = apart / path.name
    try:
        with _writing(path):
            temporary.touch(exist_ok=False)
            mode = temporary.stat().st_mode
        with _writing(path, only=_DISK):
            yield temporary
        with _writing(path):
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            # A writer may have put a private file in its place; the caller's umask decides, as for any other file.
            os.chmod(temporary, mode)
            _replaceable(path)  # again, since the work may have taken hours
            os.replace(temporary, path)
            shutil.rmtree(apart, ignore_errors=True)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        shutil.rmtree(apart, ignore_errors=True)
        os.close(held)


@contextmanager
def atomic_folder(path: str | Path) -> Generator[Path, None, None]:
    """Give a new folder beside the target; on success it becomes ``path``, on any failure it is removed.

    A file or folder that is there is replaced: whether it may be, the caller has seen to. What is written into the
    folder is fsynced by whoever writes it. Raises OutputError as `atomic_path` does.
    """
    path = Path(path)
    if not path.is_dir():
        path = _replaceable(path)
    with _writing(path):
        _make_folder(path.parent, path)
        _sweep(path.parent.iterdir(), _short(path.name))
        apart, held = _own_folder(path)
        (apart / "new").mkdir()
    try:
        with _writing(path, only=_DISK):
            yield apart / "new"
        with _writing(path):
            if path.exists():
                os.replace(path, apart / "old")
            os.replace(apart / "new", path)
    finally:
        shutil.rmtree(apart, ignore_errors=True)
        os.close(held)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all; of a file name that is no text, what cannot be spelled is escaped."""
    with atomic_path(path) as temporary, _writing(Path(path)):
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON (no NaN, keys in the order given) whole or not at all; ``-`` is the standard output."""
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        # Half a character, as in a file name that is no text, has no UTF-8, but JSON can spell it.
        text = json.dumps(value, indent=1, allow_nan=False)
    if str(path) == STREAM:
        sys.stdout.write(text + "\n")
    else:
        write_text(path, text + "\n")


def remove_folder(path: str | Path) -> None:
    """Remove a folder, if it is there, as if at once: what a process killed meanwhile leaves no longer has its name.

    Whatever the file system refuses is left as it is.
    """
    path = Path(path)
    with suppress(OSError):
        _sweep(path.parent.iterdir(), _short(path.name))
        if path.is_symlink() or not path.is_dir():
            return
        apart, held = _own_folder(path)
        try:
            os.replace(path, apart / path.name)
            shutil.rmtree(apart, ignore_errors=True)
        finally:
            with suppress(OSError):
                apart.rmdir()
            os.close(held)


def _make_folder(path: Path, wanted: Path) -> None:
    _check_folder(path, wanted)
    path.mkdir(parents=True, exist_ok=True)


def _check_folder(path: Path, wanted: Path) -> None:
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


def claim_folder(path: str | Path, owner: JsonObject, kind: str) -> None:
    """Write into a file of a folder whose the folder is; OutputError where it is that of another ``kind`` of thing
    already, or of the same with other values."""
    path = Path(path)
    if not is_file(path):
        write_json(path, owner)
        return
    theirs: object = read_json(path, f"delete {path.parent} or choose another folder", error=OutputError)
    if not isinstance(theirs, dict):
        raise OutputError(f"{path} does not say whose {path.parent} is; delete that folder or choose another --out")
    if theirs != owner:
        what = next((key for key in owner if theirs.get(key) != owner[key]), "settings")
        raise OutputError(
            f"{path.parent} holds a {kind} with another {what}; choose another --out or delete that folder"
        )


@contextmanager
def folder_lock(folder: str | Path) -> Generator[None, None, None]:
    """Hold a folder for one process; OutputError if another holds it. The lock dies with the process.

    What killed processes were writing anywhere below it is removed.
    """
    folder = Path(folder)
    lock = FileLock(folder / ".lock", timeout=0)
    with _writing(folder):
        _make_folder(folder, folder)
        try:
            lock.acquire()
        except Timeout as error:
            raise OutputError(
                f"{folder} is in use by another unfool process; wait for it or choose another folder"
            ) from error
    _sweep(folder.rglob("*.part"))
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _writing(path: Path, only: frozenset[int] | None = None) -> Generator[None, None, None]:
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
        # filelock's Timeout is an OSError too, and is told apart above.
        reason = error.strerror or error
        raise OutputError(f"cannot write {path}: {reason}; free some space or choose a writable folder") from error


def _replaceable(path: Path) -> Path:
    """The file that a write replaces, links followed; OutputError for anything but a regular file or nothing."""
    if str(path) == STREAM:
        raise OutputError("- is the standard output, which this is not written to; write ./- for a file of that name")
    with _writing(path):
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


def _own_folder(path: Path) -> tuple[Path, int]:
    """A new folder for the temporary file of ``path``, and what holds its lock for as long as this process lives.

    The number of a process tells little: in a container it is always the same.
    """
    while True:
        apart = path.parent / f".{_short(path.name)}.{os.getpid()}.{secrets.token_hex(4)}.part"
        apart.mkdir()
        held = os.open(apart, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks: then the number of the process must do
            fcntl.flock(held, fcntl.LOCK_EX)
        # Between the two steps another process may have taken it for a leftover.
        if apart.is_dir() and os.path.samestat(os.fstat(held), apart.stat()):
            return apart, held
        os.close(held)


def _short(name: str) -> str:
    """The name of a file, cut so that the name of its temporary folder is allowed where its own is."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= 200 else hashlib.blake2b(encoded, digest_size=16).hexdigest()


def _sweep(candidates: Iterable[Path], name: str | None = None) -> None:
    """Remove temporary folders (for files called ``name``, or any) of processes that are no more."""
    pattern = re.compile(rf"\.{'.+' if name is None else re.escape(name)}\.(\d+)\.[0-9a-f]{{8}}\.part")
    for candidate in list(candidates):
        match = pattern.fullmatch(candidate.name)
        if match and not candidate.is_symlink():
            _remove_leftover(candidate, int(match[1]))


def _remove_leftover(folder: Path, process: int) -> None:
    try:
        held = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            dead = True
        except BlockingIOError:
            dead = False
        except OSError:  # a file system without locks
            dead = not _alive(process)
        if dead:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(held)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
