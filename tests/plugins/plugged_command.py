"""Commands of unfool with plugin files, run in this process."""

import contextlib
import io
from dataclasses import dataclass

from unfool.cli import main
from unfool.core.plugins import unload_plugin


@dataclass
class Result:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


def call(files, *arguments):
    """Run a command with these plugin files, which are unloaded when it ends."""
    options = [part for path in files for part in ("--plugin", str(path))]
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*map(str, arguments), *options])
    finally:
        for path in files:
            unload_plugin(path)
    assert code in (0, 9), err.getvalue()
    return Result(code, out.getvalue(), err.getvalue())
