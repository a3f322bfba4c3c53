"""From the arguments of a process to its exit code: what goes wrong becomes one line on stderr."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from unfool.cli.commands import Command
from unfool.cli.run_details import remember
from unfool.cli.usage import parse
from unfool.core.borders.reading import reason_of
from unfool.core.errors import (
    INTERRUPTED,
    DataError,
    DeviceError,
    OutputError,
    SpecError,
    UnfoolError,
    UnfoolWarning,
    bounded,
)
from unfool.core.plugins import load_plugin, plugin_files
from unfool.core.user_code import line_of_user

UNEXPECTED = 70
"""Exit code for a fault of the program itself (EX_SOFTWARE of sysexits.h)."""
BROKEN_PIPE = 141
"""Exit code when the reader of the output went away, as shells report SIGPIPE."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` (default: the process's own arguments) names, and return its exit code.

    Two options may stand anywhere. ``--debug``, or UNFOOL_DEBUG=1, shows the traceback of what went wrong and all
    warnings. ``--plugin FILE``, also several times, loads a Python file that adds tasks, attacks, defenses, data sets,
    trunks or studies; UNFOOL_PLUGINS lists such files too.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    command: Command | None = None
    debug = "--debug" in words or os.environ.get("UNFOOL_DEBUG") == "1"
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal cannot show must not stop the work.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    with _one_line_warnings(debug):
        try:
            arguments, plugins = _without_plugins([argument for argument in words if argument != "--debug"])
            for path in plugins:
                load_plugin(path)
            remember(words)
            command = parse(arguments)
            if command is not None:
                command.run()
            sys.stdout.flush()
            return 0
        except UnfoolError as error:
            return _report(str(error), error.exit_code, debug)
        except KeyboardInterrupt:
            return _report(f"interrupted; {_what_is_kept(command)}", INTERRUPTED, debug)
        except BrokenPipeError:
            _close_output()
            return BROKEN_PIPE
        except Exception as error:
            if _out_of_memory(error):
                return _report(
                    f"memory ran out ({error}); give a smaller --batch-size, smaller images or fewer at a time, or "
                    f"free some memory; {_what_is_kept(command)}",
                    DeviceError.exit_code,
                    debug,
                )
            theirs = _in_a_plugin(error)
            if theirs is not None:
                return _report(
                    f"{theirs}: {type(error).__name__}: {error}; --debug shows where", SpecError.exit_code, debug
                )
            line = line_of_user(error)
            if line is not None:
                said = f"the code at {line} failed: {type(error).__name__}: {error}"
                return _report(f"{said}; repair it, or look closer with --debug", SpecError.exit_code, debug)
            if isinstance(error, OSError) and error.errno is not None:
                return _report(*_of_the_system(error), debug)
            fault = f"unexpected {type(error).__name__}: {error}; please report it with what --debug shows"
            return _report(fault, UNEXPECTED, debug)


def _what_is_kept(command: Command | None) -> str:
    """What a command that was stopped leaves behind, and what to do about it."""
    if getattr(command, "resumes", False):
        return "run the same command again to resume"
    advice = getattr(command, "to_resume", None)
    return f"nothing was kept; {f'{advice}, and ' if advice else ''}run the command again"


def _without_plugins(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments without every ``--plugin FILE``, and the files; SpecError where no file follows."""
    kept: list[str] = []
    files: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option != "--plugin":
            kept.append(argument)
            continue
        path = value if equals else next(rest, "")
        if not path or path.startswith("-"):
            raise SpecError("--plugin needs a file; write --plugin my_plugin.py")
        files.append(path)
    return kept, files


def _out_of_memory(error: Exception) -> bool:
    """Whether an error says that the machine or its GPU has no memory left, as Python, NumPy and PyTorch say it."""
    return isinstance(error, MemoryError) or any(
        said in str(error) for said in ("can't allocate memory", "out of memory", "unable to mmap", "not enough memory")
    )


def _in_a_plugin(error: Exception) -> str | None:
    """The line of a user's own file that an error passed through last; None if it passed through none."""
    files = {str(path) for path in plugin_files()}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else None


def _of_the_system(error: OSError) -> tuple[str, int]:
    """What the system refused to do with a file, and the exit code of a place that cannot be written or read."""
    path = f" {os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes)) else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return f"cannot write{path}: {reason_of(error)}; free some space", OutputError.exit_code
    return f"cannot use{path}: {reason_of(error)}; check the path and its permissions", DataError.exit_code


def _report(message: str, code: int, debug: bool) -> int:
    """Print what went wrong, with its traceback when debugging, and return the exit code."""
    if debug:
        traceback.print_exc()
    _print_line(message)
    return code


def _print_line(message: str) -> None:
    """One line on stderr, without anything that would steer a terminal."""
    shown = "".join(character if character.isprintable() else " " for character in bounded(message))
    print(f"unfool: {' '.join(shown.split())}", file=sys.stderr, flush=True)


@contextmanager
def _one_line_warnings(debug: bool) -> Iterator[None]:
    """Show the library's own warnings as one line each; those of other libraries only when debugging."""
    with warnings.catch_warnings():
        others = warnings.showwarning
        shown: set[str] = set()

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, UnfoolWarning):
                if str(message) not in shown:
                    _print_line(f"warning: {message}")
                shown.add(str(message))
            else:
                others(message, category, *where, **more)

        warnings.showwarning = show
        if not debug:
            warnings.simplefilter("ignore")
        warnings.simplefilter("always", UnfoolWarning)
        yield


def _close_output() -> None:
    """Let Python's own flush at exit find a place that takes everything."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
