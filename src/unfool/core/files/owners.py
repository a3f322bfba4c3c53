# pyright: reportUnknownMemberType=false
"""Whose a folder is: one owner's, and one process's at a time."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from unfool.core.borders.json_text import read_json
from unfool.core.borders.reading import is_file
from unfool.core.errors import OutputError
from unfool.core.files.atomic import JsonObject, write_json
from unfool.core.files.leftovers import sweep_below
from unfool.core.files.refusals import make_folder, writing


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
    with writing(folder):
        make_folder(folder, folder)
        try:
            lock.acquire()
        except Timeout as error:
            raise OutputError(
                f"{folder} is in use by another unfool process; wait for it or choose another folder"
            ) from error
    sweep_below(folder)
    try:
        yield
    finally:
        lock.release()
