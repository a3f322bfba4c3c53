"""What commands print: one JSON object, or text for a person; progress goes to stderr."""

from __future__ import annotations

import io
import json
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from unfool.core.borders.reading import STREAM
from unfool.core.errors import SpecError
from unfool.core.files import atomic_path

if TYPE_CHECKING:
    from unfool.evaluation.results.claims import ClaimResult

_REACH = "Out of reach here"
"""How the sentence begins that says how much is left for a claim at most."""
WIDTH = 100
"""Columns for tables where the output is no terminal."""


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout, in ASCII so that every terminal and pipe takes it."""
    print(json.dumps(value, allow_nan=False))


def stdout() -> Console:
    """The console for results; a terminal's own width, else wide enough for the tables."""
    console = Console(file=sys.stdout, highlight=False)
    return console if console.is_terminal else Console(file=sys.stdout, width=WIDTH, highlight=False)


def stderr() -> Console:
    """The console for progress; of several processes only the first shows any."""
    return Console(file=sys.stderr, highlight=False, quiet=os.environ.get("RANK", "0") != "0")


def print_lines(lines: Iterable[str]) -> None:
    """Lines as they are: neither wrapped nor read as markup, so that paths stay whole."""
    for line in lines:
        print(line)


def print_names(sections: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Names with a sentence each, under the title of their section."""
    for title, names in sections.items():
        print(title)
        indent = 4 + max((len(name) for name, _ in names), default=0)
        for name, text in names:
            wrapped = textwrap.wrap(text, WIDTH - indent) or [""]
            print(f"  {name:<{indent - 2}}{wrapped[0]}".rstrip())
            print_lines(f"{'':{indent}}{line}" for line in wrapped[1:])


def print_claims(claims: Sequence[ClaimResult], reasons: bool = True, indent: int = 0) -> None:
    """Each claim behind its verdict, with its evidence; without ``reasons`` only what keeps it out of reach."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from unfool.evaluation.results.claims import FAILS, HOLDS, NOT_REPRODUCED, OUT_OF_REACH, UNDECIDED

    styles = {HOLDS: "bold green", FAILS: "bold red", UNDECIDED: "bold yellow"}
    styles |= dict.fromkeys((NOT_REPRODUCED, OUT_OF_REACH), "bold magenta")
    table = Table.grid(padding=(0, 2))
    for claim in claims:
        table.add_row(Text(claim.verdict.upper(), styles[claim.verdict]), Text(claim.text))
        if reasons:
            sentences = claim.sentences
        else:
            sentences = [text[text.find(_REACH) :] for text in claim.sentences if _REACH in text]
        for sentence in sentences:
            table.add_row("", Text(sentence, "dim"))
    stdout().print(Padding(table, (0, 0, 0, indent), expand=False))


@contextmanager
def shared() -> Iterator[None]:
    """Work in the group of processes that torchrun or accelerate started, if any; only the first of them prints."""
    from unfool.evaluation.crafting.processes import joined

    with joined() as first, nullcontext() if first else redirect_stdout(io.StringIO()):
        yield


class _OnlyLookingError(Exception):
    pass


def check_writable(path: Path, *, streams: bool = False) -> None:
    """Fail before the work and not after it: OutputError if ``path`` could not be written; leaves no file.

    ``-`` is the standard output for results that it ``streams``, in place of what is printed otherwise.
    """
    if streams and str(path) == STREAM:
        return
    with suppress(_OnlyLookingError), atomic_path(path):
        raise _OnlyLookingError


def check_page(path: Path) -> None:
    """As `check_writable`, for a page; SpecError for a name that browsers do not take for one."""
    check_writable(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise SpecError(f"{path} is to be a page; give a name that ends in .html")
