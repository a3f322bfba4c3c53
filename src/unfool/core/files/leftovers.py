"""Temporary folders beside what is written, and removing those of processes that are no more, without loss."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

REPLACED = "replaced"
"""Where in a temporary folder lies, by its own name, what is replaced, until the new one is in its place."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK
"""How a temporary folder is opened: anything else of its name, such as a FIFO, is refused at once."""


def temporary_folder(path: Path) -> tuple[Path, int]:
    """A new folder for the temporary file of ``path``, and what holds its lock for as long as this process lives.

    The number of a process tells little: in a container it is always the same.
    """
    while True:
        apart = path.parent / f".{_short(path.name)}.{os.getpid()}.{secrets.token_hex(4)}.part"
        apart.mkdir()
        # Before it is locked another process may take it for a leftover and remove it.
        with suppress(FileNotFoundError):
            held = os.open(apart, _FOLDER)
            with suppress(OSError):  # a file system without locks: then the number of the process must do
                fcntl.flock(held, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(held), apart.stat()):
                    return apart, held
            os.close(held)


def remove_temporary(folder: Path) -> None:
    """Remove a temporary folder. What it holds in `REPLACED` goes back to its place if nothing has taken that."""
    replaced = folder / REPLACED
    for old in list(replaced.iterdir()) if replaced.is_dir() else []:
        place = folder.parent / old.name
        if not os.path.lexists(place):
            with suppress(OSError):
                os.rename(old, place)
        if not os.path.lexists(place):
            return  # It cannot go back now; the next sweep tries again.
    shutil.rmtree(folder, ignore_errors=True)


def _short(name: str) -> str:
    """The name of a file, cut so that the name of its temporary folder is allowed where its own is."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= 200 else hashlib.blake2b(encoded, digest_size=16).hexdigest()


def sweep_beside(path: Path) -> None:
    """Remove the temporary folders for ``path`` of processes that are no more."""
    _sweep(path.parent.iterdir(), _short(path.name))


def sweep_below(folder: Path) -> None:
    """Remove all temporary folders of processes that are no more, anywhere below a folder."""
    _sweep(folder.rglob("*.part"))


def _sweep(candidates: Iterable[Path], name: str | None = None) -> None:
    """Remove those of the candidates that are such folders, for files called ``name`` or any."""
    pattern = re.compile(rf"\.{'.+' if name is None else re.escape(name)}\.(\d+)\.[0-9a-f]{{8}}\.part")
    for candidate in list(candidates):
        match = pattern.fullmatch(candidate.name)
        if match and not candidate.is_symlink():
            _remove_leftover(candidate, int(match[1]))


def _remove_leftover(folder: Path, process: int) -> None:
    """Remove a temporary folder unless its process lives, which holds its lock."""
    try:
        held = os.open(folder, _FOLDER)
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
            remove_temporary(folder)
    finally:
        os.close(held)


def _alive(process: int) -> bool:
    """Whether a process of that number runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
