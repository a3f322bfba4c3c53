"""Pages of documentation, run as a reader would: block after block, in one folder.

```python    run, all blocks of a page in one namespace; written to a file instead where its first line is ``# NAME``
```sh        run line by line: ``unfool ...`` and ``python NAME``
```text      printed by the block before it: these lines in this order, numbers aside; ``...`` stands for any lines
<!-- not run: WHY -->   on the line before a block that is shown alone
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from unfool.cli import main

_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>.*) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_FILE = re.compile(r"# ([\w.-]+\.\w+)")
_NUMBER = re.compile(r"[+-]?\d[\d.,]*(?:e[+-]\d+)?")
_SEPARATORS = re.compile(r"[\s─━]+")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, its line in the page, and why it is not run, if it is not."""

    kind: str
    text: str
    line: int
    why: str | None


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page in order."""
    return [
        Block(match["kind"], match["text"], page.count("\n", 0, match.start("kind")) + 1, match["why"])
        for match in _BLOCK.finditer(page)
    ]


def commands_of(block: Block) -> list[list[str]]:
    """The words of each command of a shell block, comments left out."""
    lines = block.text.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [each for each in words if each]


def run_page(path: Path, stand_ins: Mapping[str, Callable[[list[str]], object]] | None = None) -> str:
    """Run a page in the current folder; returns all that it printed. ``stand_ins`` are called in place of programs.

    Fails where a command does, where a block is of no kind that can be run, and where another output is shown.
    """
    printed, last = "", ""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks_of(path.read_text(encoding="utf-8")):
        where = f"{path.name}, line {block.line}"
        if block.why is not None:
            assert len(block.why.split()) > 2, f"{where}: say why it is not run"
        elif block.kind == "text":
            missing = unprinted(block.text, last)
            assert missing is None, f"{where}: {missing!r} was not printed, but\n{last}"
        else:
            last = _run(block, where, namespace, stand_ins or {})
            printed += last
    return printed


def unprinted(shown: str, printed: str) -> str | None:
    """The first shown line that was not printed after those before it, numbers aside; None if all were."""
    lines = iter([_plain(line) for line in printed.splitlines()])
    wanted = [line for line in shown.splitlines() if line.strip() not in ("", "...")]
    return next((line for line in wanted if _plain(line) not in lines), None)


def _plain(line: str) -> str:
    return _SEPARATORS.sub(" ", _NUMBER.sub("#", line)).strip()


def _run(
    block: Block, where: str, namespace: dict[str, Any], stand_ins: Mapping[str, Callable[[list[str]], object]]
) -> str:
    """What a block prints."""
    out = io.StringIO()
    if block.kind == "python":
        file = _FILE.fullmatch(block.text.partition("\n")[0])
        if file is not None:
            Path(file[1]).write_text(block.text, encoding="utf-8")
            return ""
        with contextlib.redirect_stdout(out):
            exec(compile(block.text, where, "exec"), namespace)
        return out.getvalue()
    if block.kind != "sh":
        pytest.fail(f"{where}: a block of {block.kind or 'no language'!r} is not run; say why, or make it text")
    for words in commands_of(block):
        errors = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            if words[0] == "unfool":
                code = main(words[1:])
                assert code == 0, f"{where}: {shlex.join(words)} ended with {code}: {errors.getvalue()}"
            elif words[0] in stand_ins:
                stand_ins[words[0]](words)
            elif words[0] == "python" and len(words) == 2:
                runpy.run_path(words[1], run_name="__main__")
            else:
                pytest.fail(f"{where}: {words[0]!r} is not run here; say why with <!-- not run: WHY -->")
    return out.getvalue()
