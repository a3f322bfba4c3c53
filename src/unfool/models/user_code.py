"""A model out of the user's own Python file, named ``path/to/file.py:build``.

The file is the user's code and runs as such; what goes wrong in it is told in one line that names the place.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

import unfool
from unfool.core.errors import SpecError, UnfoolError
from unfool.core.spec import unknown

_FORM = "write path/to/file.py:NAME, NAME being a function without required arguments that returns an nn.Module"
_OTHERS = tuple(
    str(Path(folder).resolve())
    for folder in (
        *(sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib")),
        Path(torch.__file__).parent,
        Path(unfool.__file__).parent,
    )
)
"""Folders whose lines say little about what went wrong in a user's file."""


def load_module(text: str) -> nn.Module:
    """The module that ``path/to/file.py:NAME`` names: a callable without required arguments that gives one, or itself.

    The file is imported under a name made of its content, so that `identity` tells two versions of it apart and knows
    the same file in another folder; its folder is on ``sys.path`` meanwhile, no bytecode is written, and what it
    prints goes to stderr. Raises SpecError for a file or name that is not there, for one that gives no module, and
    for whatever the file itself raises.
    """
    given, colon, name = text.rpartition(":")
    path = Path(given)
    if not colon or not given or not name.isidentifier():
        raise SpecError(f"model {text!r} is not understood; {_FORM}")
    if not path.is_file():
        raise SpecError(f"there is no file {path} to take {name!r} from; {_FORM}")
    with _its_folder(path.resolve().parent):
        found = _name(path, run_user_code(path, lambda: _imported(path)), name)
        if not isinstance(found, nn.Module):
            _check_callable(text, found)
            found = run_user_code(path, found)
    if not isinstance(found, nn.Module):
        raise SpecError(f"model {text!r} gave a {type(found).__name__}, not an nn.Module; {_FORM}")
    return found


def run_user_code(what: object, action: Callable[[], Any]) -> Any:
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
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    own = [frame for frame in frames if not str(Path(frame.filename).resolve()).startswith(_OTHERS)]
    return f" at {own[-1].filename}:{own[-1].lineno}" if own else ""


@contextmanager
def _its_folder(folder: Path) -> Iterator[None]:
    """The folder first on ``sys.path``; nothing written into it, nothing printed among the results."""
    writes_bytecode = sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.dont_write_bytecode = writes_bytecode
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _imported(path: Path) -> ModuleType:
    digest = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    spec = importlib.util.spec_from_file_location(f"unfool_model_{digest}", path.resolve())
    if spec is None or spec.loader is None:
        raise SpecError(f"{path} is no Python file; {_FORM}")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and type hints of the file look themselves up while it runs.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def _name(path: Path, module: ModuleType, name: str) -> Any:
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if callable(value) or isinstance(value, nn.Module)]
        raise unknown(f"name in {path}", name, [key for key in own if not key.startswith("_")])
    return getattr(module, name)


def _check_callable(text: str, found: Any) -> None:
    if not callable(found):
        raise SpecError(f"model {text!r} is a {type(found).__name__}, not a function or an nn.Module; {_FORM}")
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in optional]
    if required:
        raise SpecError(f"model {text!r} needs arguments ({', '.join(required)}); {_FORM}")
