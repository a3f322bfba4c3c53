"""How long a study has taken over all calls that made something of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from unfool.core.errors import OutputError
from unfool.core.files import write_text

EVERY = 10.0
"""Seconds between two writings: what a process that is killed outright can lose of its time."""

SECONDS = "seconds"
"""The file below a study's folder."""
_WRITTEN_FROM_PIECES = ("results", "report.html")


@contextmanager
def study_clock(out: Path) -> Generator[Callable[[], float]]:
    """Keep wall time in ``OUT/seconds`` as it passes; yields how to ask for it, earlier calls included.

    The time that was asked for last is the one that is kept, so that a later call tells the same. A call that found
    every piece, and only wrote results and page again, leaves no trace of its time.
    """
    path, started, began = out / SECONDS, time.monotonic(), time.time()
    before = _read(path)
    over = threading.Event()

    def passed() -> float:
        return before + time.monotonic() - started

    answer: float | None = None

    def spent() -> float:
        nonlocal answer
        answer = passed() if _made_since(out, began) else before
        return answer

    def beat() -> None:
        # A disk that is full is told by whoever writes next; here it would end in a thread's traceback.
        with suppress(OutputError):
            while not over.wait(EVERY):
                write_text(path, f"{passed():.1f}\n")

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield spent
    finally:
        over.set()
        heart.join()
        write_text(path, f"{spent() if answer is None else answer:.1f}\n")


def _made_since(out: Path, began: float) -> bool:
    """Whether a piece of the study was written since then; hidden files are locks and what is being written."""
    for entry in out.iterdir():
        if entry.name in (SECONDS, *_WRITTEN_FROM_PIECES) or entry.name.startswith("."):
            continue
        below = entry.rglob("*") if entry.is_dir() else [entry]
        if any(path.is_file() and not path.name.startswith(".") and path.stat().st_mtime > began for path in below):
            return True
    return False


def _read(path: Path) -> float:
    """Wall time that earlier calls have spent."""
    try:
        return float(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0
