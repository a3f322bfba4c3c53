# pyright: reportUnknownMemberType=false
"""Files that are either whole or absent: written to a temporary name beside the target, fsynced, renamed."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from filelock import FileLock, Timeout

from unfool.core.errors import OutputError

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
"""A caller may read other files while it writes; these alone can be the target's fault."""

JsonObject: TypeAlias = "dict[str, Any]"
"""A JSON object: what `json.load` gives and `write_json` writes."""


@contextmanager
def atomic_path(path: str | Path) -> Generator[Path, None, None]:
    """Give a temporary path beside the target; on success it replaces ``path``, on any failure it is removed.

    It lies in a folder of its own, where a writer may make temporary files as it likes. What a killed process left of
    an earlier attempt is removed as well. Raises OutputError if the folder cannot be written or the disk is full.
    """
    path = Path(path)
    apart = path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part"
    temporary = apart / path.name
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent.iterdir(), path.name)
        apart.mkdir()
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
    try:
        with _writing(path, only=_DISK):
            yield temporary
        with _writing(path):
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            # A writer may have put a private file in its place; the caller's umask decides, as for any other file.
            os.chmod(temporary, mode)
            os.replace(temporary, path)
            shutil.rmtree(apart, ignore_errors=True)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        shutil.rmtree(apart, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_path(path) as temporary, _writing(Path(path)):
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON (no NaN, keys in the order given) whole or not at all."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def claim_folder(path: str | Path, owner: JsonObject, kind: str) -> None:
    """Write into a file of a folder whose the folder is; OutputError where it is that of another ``kind`` of thing
    already, or of the same with other values."""
    path = Path(path)
    if not path.is_file():
        write_json(path, owner)
        return
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OutputError(f"{path} is not JSON; delete {path.parent} or choose another folder") from error
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
        folder.mkdir(parents=True, exist_ok=True)
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
    except OSError as error:
        if only is not None and error.errno not in only:
            raise
        # filelock's Timeout is an OSError too, and is told apart above.
        reason = error.strerror or error
        raise OutputError(f"cannot write {path}: {reason}; free some space or choose a writable folder") from error


def _sweep(candidates: Iterable[Path], name: str | None = None) -> None:
    """Remove temporary folders (for files called ``name``, or any) of processes that are no more."""
    pattern = re.compile(rf"\.{'.+' if name is None else re.escape(name)}\.(\d+)\.[0-9a-f]{{8}}\.part")
    for candidate in list(candidates):
        match = pattern.fullmatch(candidate.name)
        if match and not _alive(int(match[1])):
            shutil.rmtree(candidate, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
