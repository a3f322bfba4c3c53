"""Which tests call which functions, and what each test costs: a test file is run once, and that is kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

LIMITS = {resource.RLIMIT_AS: 24 << 30, resource.RLIMIT_FSIZE: 1 << 30, resource.RLIMIT_CORE: 0}
"""What no test may exceed: bytes of address space and of a file."""
MOST_SECONDS = 10
"""CPU seconds of a test file; of one that takes longer the first tests count."""


@dataclass(frozen=True)
class Calls:
    """Of one test file: seconds by test, and for each function the tests that call it (all of them: ``*``)."""

    seconds: dict[str, float]
    callers: dict[str, list[str]]
    fresh: bool = False
    """It was run for this."""

    def tests_of(self, function: str) -> list[tuple[float, str]]:
        """Seconds and name of the tests that call a function, the cheapest first."""
        callers = self.callers.get(function, [])
        return sorted((cost, test) for test, cost in self.seconds.items() if "*" in callers or test in callers)


class _Watch:
    """A pytest plugin that notes the functions of a folder that each test calls."""

    def __init__(self, source: Path, stored: Path):
        self.source = f"{source}{os.sep}"
        self.stored = stored
        self.kept_at = 0.0
        self.at = time.process_time()
        self.called: dict[str, set[str]] = {}
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()
        self.current = "*"
        self.files: dict[str, str | None] = {}

    def watch(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        name = self.files.get(code.co_filename, "")
        if name == "":
            inside = code.co_filename.startswith(self.source)
            name = self.files[code.co_filename] = code.co_filename[len(self.source) :] if inside else None
        if name is not None:
            self.called.setdefault(f"{name} {code.co_name}", set()).add(self.current)

    def pytest_runtest_logreport(self, report: Any) -> None:
        # Of the CPU: a busy machine makes no test dear.
        before, self.at = self.at, time.process_time()
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + self.at - before
        if report.failed:
            self.failed.add(report.nodeid)
        if report.when == "teardown" and time.process_time() > self.kept_at + 0.5:
            self.keep()

    def keep(self) -> None:
        calls = {function: sorted(tests) for function, tests in self.called.items()}
        seconds = {test: round(value, 3) for test, value in self.seconds.items() if test not in self.failed}
        temporary = self.stored.with_suffix(".new")
        temporary.write_text(json.dumps({"seconds": seconds, "calls": calls}))
        temporary.replace(self.stored)
        self.kept_at = time.process_time()

    def pytest_runtest_setup(self) -> None:
        # A fixture may be shared by the tests of the file.
        self.current = "*"

    def pytest_runtest_call(self, item: Any) -> None:
        self.current = item.nodeid

    def pytest_runtest_teardown(self) -> None:
        self.current = "*"


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
    deadline = time.monotonic() + 40 * seconds + 60
    while True:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            return None
        time.sleep(0.05)


def run_tests(arguments: list[str], plugins: list[object] | None = None) -> int:
    """Pytest's exit status for these arguments."""
    import pytest

    return int(pytest.main(["-q", "-p", "no:cacheprovider", *arguments], plugins=plugins or []))


def calls_of(test_file: Path, source: Path, keep: Path, only_known: bool = False) -> Calls:
    """What a test file of the working folder calls, read from the folder ``keep`` if it has not changed since.

    Otherwise it is run, or, where ``only_known``, taken to call nothing.
    """
    keep.mkdir(parents=True, exist_ok=True)
    digest = hashlib.blake2b(test_file.read_bytes(), digest_size=6).hexdigest()
    stored = keep / f"{str(test_file).replace('/', '.')}.{digest}.json"
    fresh = not stored.exists()
    if fresh and only_known:
        return Calls({}, {})
    if fresh:
        print(f"  reading {test_file}", file=sys.stderr, flush=True)
        in_child(lambda: _watch_file(str(test_file), source, stored), MOST_SECONDS)
    if not stored.exists():
        stored.write_text(json.dumps({"seconds": {}, "calls": {}}))
    values = json.loads(stored.read_text())
    return Calls(values["seconds"], values["calls"], fresh)


def _watch_file(name: str, source: Path, stored: Path) -> int:
    watch = _Watch(source / "unfool", stored)
    sys.settrace(watch.watch)
    status = run_tests([name], [watch])
    sys.settrace(None)
    watch.keep()
    return status


def likely_tests(file: str, function: str, source: str, texts: dict[Path, str]) -> list[Path]:
    """Test files that speak of a function, of its module and of its room, the likeliest first."""
    path = Path(file)
    module = f"unfool.{file.removesuffix('.py').replace('/', '.')}"
    package = module.rpartition(".")[0]
    public = re.findall(r"^(?:class|def|async def) ([A-Za-z]\w+)", source, re.MULTILINE)
    scores: dict[Path, float] = {}
    for test_file, text in texts.items():
        words = set(re.findall(r"\w+", text))
        score = 4.0 * (f"from {module} import" in text or f"from {package} import {path.stem}\n" in text)
        score += 2 * (not function.startswith("__") and function in words)
        score += 3 * (path.stem in test_file.stem) + 2 * (path.stem[:6] in test_file.stem)
        score += 2 * (test_file.parent.name == path.parts[0]) + (f"from {package} import" in text)
        score += min(3, sum(name in words for name in public))
        # Of equals the one that says least beside it.
        scores[test_file] = score - len(text) / 1e6
    return sorted((test_file for test_file in texts if scores[test_file] > 2.5), key=lambda each: -scores[each])
