"""The script that completes commands, options and choices in a shell: tyro's, with words and files it leaves out."""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout, suppress
from typing import get_args

import tyro

from unfool.cli.commands.completion import Shell
from unfool.cli.commands.listing import Kind
from unfool.cli.commands.study import CATALOGUE
from unfool.cli.help_text import STYLE, every_command

_FILES_ELSE = {
    "bash": (
        (r'matches+=("$completion")', r'[[ -n "$completion" ]] && matches+=("$completion")'),
        ("complete -F", "complete -o bashdefault -o default -F"),
    ),
    "zsh": (
        ('completion_array+=("$', '[[ -n "$completion" ]] && completion_array+=("$'),
        (
            "_describe 'unfool completions' completion_array",
            "if (( $#completion_array )); then _describe 'unfool completions' completion_array; else _files; fi",
        ),
    ),
    "fish": (
        (
            'test "$results" = __TYRO_COMPLETE_FILES__',
            'test -z "$results"; or test "$results" = __TYRO_COMPLETE_FILES__',
        ),
    ),
}
"""By shell, what is replaced in the script so that files are offered where there is no word: runs, images, plugins."""


def completion_script(shell: Shell) -> str:
    """The script for a shell. Making it loads no torch, so that a shell may make it as it starts."""
    printed = io.StringIO()
    arguments = ["--tyro-print-completion", shell]
    with redirect_stdout(printed), suppress(SystemExit):
        tyro.cli(every_command(), prog="unfool", args=arguments, config=STYLE)
    # An option that is left out is None, which nobody types.
    script = re.sub(r"(?:, 'None'(?=[],]))|(?:(?<=\[)'None', )", "", printed.getvalue()).rstrip()
    studies = list(json.loads(CATALOGUE.read_text(encoding="utf-8")))
    for command, words in {"list": get_args(Kind), "completion": get_args(Shell), "study": studies}.items():
        script = _with_words(script, command, words)
    for written, instead in _FILES_ELSE[shell]:
        script = script.replace(written, instead)
    return script


def _with_words(script: str, command: str, words: list[str] | tuple[str, ...]) -> str:
    """The script with the words that may follow a command, each a subcommand with the command's own options."""
    none = "'subcommands': {}"
    begin = script.index("'options': ", script.index(f"'{command}': {{'description'"))
    end = script.index(none, begin)
    entries = [f"'{word}': {{'description': '{word}', {script[begin:end]}{none}}}" for word in words]
    return f"{script[:end]}'subcommands': {{{', '.join(entries)}}}{script[end + len(none) :]}"
