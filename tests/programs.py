"""Programs of the tests in processes that are forked from one that has imported PyTorch and the library.

They start in milliseconds, and share with the process that asks neither memory, nor threads, nor the order of sets.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.context import BaseContext
from pathlib import Path
from subprocess import CompletedProcess

from unfool.core.parallel.job import OPTIMIZERS
from unfool.core.parallel.local import worker_context


def forked() -> BaseContext:
    """Where such processes come from; elsewhere than on Linux they start from nothing."""
    return worker_context("cpu", OPTIMIZERS)


def run_program(path: Path, *arguments: object, timeout: float = 300.0, **variables: str) -> CompletedProcess[str]:
    """Run a Python file as ``python FILE ARGUMENTS`` does, with ``variables`` of the environment besides."""
    words = [str(path), *map(str, arguments)]
    code, out, err = run_calls([(runpy_main, (words, variables))], timeout)[0]
    return CompletedProcess(words, code, out, err)


def runpy_main(words: list[str], variables: dict[str, str]) -> None:
    os.environ.update(variables)
    sys.argv[:] = words
    sys.path.insert(0, str(Path(words[0]).parent))
    runpy.run_path(words[0], run_name="__main__")


def run_calls(
    calls: list[tuple[Callable[..., object], tuple[object, ...]]], timeout: float = 300.0
) -> list[tuple[int, str, str]]:
    """Call functions side by side, each in a process of its own; exit code, stdout and stderr of each."""
    context = forked()
    with tempfile.TemporaryDirectory() as folder:
        files = [(Path(folder, f"{number}.out"), Path(folder, f"{number}.err")) for number in range(len(calls))]
        processes = [
            context.Process(target=_caught, args=(function, arguments, dict(os.environ), *map(str, pair)), daemon=False)
            for (function, arguments), pair in zip(calls, files, strict=True)
        ]
        for process in processes:
            process.start()
        try:
            for process in processes:
                process.join(timeout)
            assert all(process.exitcode is not None for process in processes), f"it takes more than {timeout:g} s"
        finally:
            for process in processes:
                process.kill()
        return [
            (process.exitcode, out.read_text(), err.read_text())
            for process, (out, err) in zip(processes, files, strict=True)
        ]


def _caught(
    function: Callable[..., object], arguments: tuple[object, ...], environment: dict[str, str], out: str, err: str
) -> None:
    """Call a function with the environment of the process that asks, its output in files."""
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    function(*arguments)
