"""Arguments to a command object (tyro underneath), and every misuse to one line that names what was meant."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from inspect import getdoc
from typing import Any

import tyro

from unfool.cli.commands import COMMANDS, Command, command_class
from unfool.cli.help_text import STYLE, LikeStdout, overview, wrapped
from unfool.cli.misuse import check_options, first_paragraph, in_own_words, options_of, remedy, repeatable_options
from unfool.core.errors import SpecError
from unfool.core.spec import unknown

_ASKED = {"help": "--help", "version": "--version", "-v": "--version", "-V": "--version"}
"""What is no command, and what is written for it."""


def parse(arguments: Sequence[str]) -> Command | None:
    """The command that the arguments describe; None if they asked for help or the version, which is then printed.

    Raises SpecError for everything else that is no command.
    """
    if not arguments:
        raise SpecError(f"no command was given; choose one of {', '.join(COMMANDS)}, or see unfool --help")
    name, rest = arguments[0], list(arguments[1:])
    if name in ("-h", "--help"):
        return overview()
    if name == "--version":
        print(f"unfool {version('unfool')}")
        return None
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS) if name not in _ASKED else SpecError(f"write unfool {_ASKED[name]}")
    return _parsed(command_class(name), name, rest)


def _parsed(cls: Any, name: str, rest: list[str]) -> Command | None:
    if not {"-h", "--help"} & set(rest):
        # Before tyro, which would take the value of an unknown option for something else.
        check_options(rest, name, options_of(cls))
    complaint, shown = io.StringIO(), LikeStdout()
    # Without the line breaks of the source: paragraphs are wrapped as they are shown.
    description = re.sub(r"(?<!\n)\n(?!\n)", " ", getdoc(cls) or "")
    try:
        with redirect_stderr(complaint), redirect_stdout(shown):
            command, strange = tyro.cli(
                cls, prog=f"unfool {name}", args=rest, config=STYLE, return_unknown_args=True, description=description
            )
    except SystemExit as end:
        if end.code:
            raise SpecError(
                f"{in_own_words(first_paragraph(complaint.getvalue()))}; see unfool {name} --help"
            ) from None
        if {"-h", "--help"} & set(rest):
            print(wrapped(shown.getvalue(), description), end="")
            more = f"\n{cls.more_help()}\n" if hasattr(cls, "more_help") else ""
            print(f"{more}\nexamples:\n{cls.examples.strip(chr(10))}")
        return None
    if strange:
        hint = remedy(rest, strange[0], name, repeatable_options(cls))
        raise SpecError(f"unfool {name} does not understand {strange[0]!r}; {hint}")
    return command
