# pyright: reportUnknownMemberType=false
"""Writing: to a temporary name beside the target, fsynced, renamed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from unfool.core.borders.reading import STREAM
from unfool.core.files.leftovers import REPLACED, remove_temporary, sweep_beside, temporary_folder
from unfool.core.files.refusals import DISK, check_folder, make_folder, replaceable, writing

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
        with writing(Path(path)):
            check_folder(Path(path).parent, Path(path))
    path = replaceable(Path(path))
    with writing(path):
        make_folder(path.parent, path)
        sweep_beside(path)
        replaceable(path)  # again, since a sweep puts back what a killed process was replacing
        apart, held = temporary_folder(path)
    temporary = apart / path.name
    try:
        with writing(path):
            temporary.touch(exist_ok=False)
            mode = temporary.stat().st_mode
        with writing(path, only=DISK):
            yield temporary
        with writing(path):
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            # A writer may have put a private file in its place; the caller's umask decides, as for any other file.
            os.chmod(temporary, mode)
            replaceable(path)  # again, since the work may have taken hours
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

    A file or folder that is there is replaced: whether it may be, the caller has seen to. It stays on any failure; of a
    process that is killed in between, the next write there or the next holder of a folder above puts it back. What is
    written into the folder is fsynced by whoever writes it. Raises OutputError as `atomic_path` does.
    """
    path = Path(path)
    if not path.is_dir():
        path = replaceable(path)
    with writing(path):
        make_folder(path.parent, path)
        sweep_beside(path)
        apart, held = temporary_folder(path)
        (apart / "new").mkdir()
    try:
        with writing(path, only=DISK):
            yield apart / "new"
        with writing(path):
            if path.exists():
                (apart / REPLACED).mkdir()
                os.replace(path, apart / REPLACED / path.name)
            os.replace(apart / "new", path)
    finally:
        remove_temporary(apart)
        os.close(held)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all; of a file name that is no text, what cannot be spelled is escaped."""
    with atomic_path(path) as temporary, writing(Path(path)):
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
        sweep_beside(path)
        if path.is_symlink() or not path.is_dir():
            return
        apart, held = temporary_folder(path)
        try:
            os.replace(path, apart / "removed")
            shutil.rmtree(apart, ignore_errors=True)
        finally:
            with suppress(OSError):
                apart.rmdir()
            os.close(held)
