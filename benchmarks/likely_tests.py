"""Which test files are likely to find a bug in a function; and tests run in a child process with a limit of its own."""

from __future__ import annotations

import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMITS = {resource.RLIMIT_AS: 24 << 30, resource.RLIMIT_FSIZE: 1 << 30, resource.RLIMIT_CORE: 0}
"""What no test may exceed: bytes of address space and of a file."""


class _FirstFailure:
    """A pytest plugin that writes down which test failed first."""

    def __init__(self, note: Path):
        self.note = note

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.note.exists():
            self.note.write_text(report.nodeid)


def run_tests(tests: list[str], note: Path) -> int:
    """Pytest's exit status for these tests, up to the first that fails, which is written to ``note``."""
    import pytest

    return int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests], plugins=[_FirstFailure(note)]))


def in_child(action: Callable[[], int], seconds: int) -> int | None:
    """Run an action in a child process with a limit of CPU seconds, silently: its exit status, None at the limit."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 3
        try:
            for limit, most in LIMITS.items():
                resource.setrlimit(limit, (most, most))
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            status = action()
        finally:
            os._exit(status)
    # By the clock too, since a bug may wait for something that never comes.
    deadline = time.monotonic() + 40 * seconds
    while True:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            return None
        time.sleep(0.05)


def likely_tests(file: str, function: str, before: str, source: str, texts: dict[Path, str],
                 users: list[tuple[str, str]]) -> list[Path]:  # fmt: skip
    """Test files that speak of a function, of what stands in it, of its module and of its room, the likeliest first.

    ``users`` are the modules that use this one, each with its text: what nobody calls by its name is tested by theirs.
    """
    path = Path(file)
    module = f"unfool.{file.removesuffix('.py').replace('/', '.')}"
    package = module.rpartition(".")[0]
    public, theirs = _public(source), {name for _, text in users for name in _public(text)}
    stems = {Path(user).stem for user, _ in users}
    inside = {part for word in re.findall(r"[a-z_]{6,}", before) for part in word.split("_") if len(part) > 5}
    scores: dict[Path, float] = {}
    for test_file, text in texts.items():
        words = set(re.findall(r"\w+", text))
        score = 4.0 * (f"from {module} import" in text or f"from {package} import {path.stem}\n" in text)
        score += 2 * (not function.startswith("__") and function in words)
        score += 3 * (path.stem in test_file.stem) + 2 * (path.stem[:6] in test_file.stem)
        score += 2 * (test_file.parent.name == path.parts[0]) + (f"from {package} import" in text)
        score += min(3, sum(name in words for name in public))
        score += 1.5 * min(2, sum(word in str(test_file) or word in words for word in inside))
        score += max((min(2.0, text.count(part) / 5) for part in path.stem.split("_") if len(part) > 2), default=0)
        score += 2 * any(folder[:5] in test_file.stem for folder in path.parts[1:-1])
        score += 2 * any(stem in test_file.stem for stem in stems) + min(2, 0.5 * len(theirs & words))
        # Of equals the one that says least beside it.
        scores[test_file] = score - len(text) / 1e6
    return sorted((test_file for test_file in texts if scores[test_file] > 2.5), key=lambda each: -scores[each])


def users_of(file: str, texts: dict[str, str]) -> list[tuple[str, str]]:
    """The files of ``texts`` that import a module, and those of its room that import these, with their texts."""
    room = Path(file).parts[0]
    users, latest = dict[str, str](), {file}
    for _ in range(2):
        modules = [f"unfool.{each.removesuffix('.py').replace('/', '.')} import" for each in latest]
        latest = {
            name for name, text in texts.items()
            if name != file and name not in users and Path(name).parts[0] == room
            if any(f"from {module}" in text for module in modules)
        }  # fmt: skip
        users |= {name: texts[name] for name in latest}
    return list(users.items())


def _public(source: str) -> list[str]:
    return re.findall(r"^(?:class|def|async def) ([A-Za-z]\w+)", source, re.MULTILINE)
