"""Python files of the user: how they are imported and run, and how what goes wrong in them is reported in one line."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from unfool.core.borders.reading import read_bytes
from unfool.core.errors import SpecError, UnfoolError

Result = TypeVar("Result")

_MOST_SOURCE = 1 << 24
"""The longest Python file that is imported: 16 MiB."""

_TORCH = importlib.util.find_spec("torch")
_OTHERS = tuple(
    f"{Path(folder).resolve()}{os.sep}"
    for folder in (
        *(sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib")),
        *((_TORCH.submodule_search_locations or ()) if _TORCH is not None else ()),
        Path(__file__).parents[1],
    )
)
"""Folders whose lines say little about what went wrong in a user's file."""
_USERS: set[str] = set()
"""Folders of the Python files that a user named in this process."""


def run_user_code(what: object, action: Callable[[], Result]) -> Result:
    """What ``action`` returns; an error in it becomes a SpecError of one line with file, line and exception.

    ``what`` names the code. An UnfoolError passes as it is, since it says by itself what to do.
    """
    try:
        return action()
    except UnfoolError:
        raise
    except (Exception, SystemExit) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise SpecError(
            f"{what} failed{_place(error)}: {said[:300]}; repair it, or look closer with --debug"
        ) from error


def _place(error: BaseException) -> str:
    """`` at file:line``: the innermost line that belongs neither to Python, to PyTorch nor to unfool."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {error.filename}:{error.lineno}"
    own = _own_frames(error)
    return f" at {own[-1].filename}:{own[-1].lineno}" if own else ""


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    return [frame for frame in frames if not _of_a_library(Path(frame.filename).resolve())]


def _of_a_library(file: Path) -> bool:
    return str(file).startswith(_OTHERS) or not {"site-packages", "dist-packages"}.isdisjoint(file.parts)


def line_of_user(error: BaseException) -> str | None:
    """``file:line``, the innermost in a folder of the user's files; None for an error that passed through none."""
    folders = tuple(f"{folder}/" for folder in _USERS)
    own = [frame for frame in _own_frames(error) if str(Path(frame.filename).resolve()).startswith(folders)]
    return f"{own[-1].filename}:{own[-1].lineno}" if own and folders else None


@contextmanager
def folder_on_path(folder: Path) -> Generator[None, None, None]:
    """Put a folder first on ``sys.path``; meanwhile no bytecode is written, and what is printed goes to stderr."""
    writes_bytecode = sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    _USERS.add(str(folder))
    sys.dont_write_bytecode = True
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.dont_write_bytecode = writes_bytecode
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def content_digest(path: Path) -> str:
    """Sixteen hex digits of a file's content: the part of a module's name that tells its versions apart."""
    source = read_bytes(path, "give a Python file", most=_MOST_SOURCE, error=SpecError)
    return hashlib.blake2b(source, digest_size=8).hexdigest()


def import_file(path: Path, name: str) -> ModuleType:
    """Import a Python file as the module ``name``; a module that fails is taken out of ``sys.modules`` again."""
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise SpecError(f"{path} is no Python file; give a file whose name ends in .py")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and type hints of the file look themselves up while it runs.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def imported_below(path: Path) -> tuple[Path, ...]:
    """The Python files that this process has imported from a file's folder or below, but for those of libraries."""
    folder = path.resolve().parent
    files = {Path(file).resolve() for module in list(sys.modules.values()) if (file := _file_of(module))}
    own = {file for file in files if folder in file.parents and file.suffix == ".py" and not _of_a_library(file)}
    return tuple(sorted(own))


def _file_of(module: ModuleType) -> str | None:
    """Where a module was read from; modules may answer for any name, and with anything."""
    try:
        file = module.__file__
    except Exception:
        return None
    return file if isinstance(file, str) else None
