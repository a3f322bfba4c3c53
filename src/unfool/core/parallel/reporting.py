"""Progress of a job, sent by the process that runs it to the one that shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from unfool.core.progress import Progress
from unfool.core.progress_display import progress_bar

if TYPE_CHECKING:
    from rich.console import Console

Report = tuple[str, int, int, str]
"""Title of a piece of work, how much of it is done, of how much, and a note."""

EVERY = 0.2
"""Seconds between two reports."""

OVER = 1 << 40
"""Stands for how much is done when all of a piece is."""

_send: Callable[[Report], None] | None = None
"""In a worker: where its reports go."""


def send_reports_to(send: Callable[[Report], None]) -> None:
    """From now on this process is a worker, and its reports go there."""
    global _send
    _send = send


def in_worker() -> bool:
    """Whether this process makes pieces for another one."""
    return _send is not None


@contextmanager
def report_to_parent(title: str) -> Generator[Progress]:
    """In a worker: progress of a piece for the parent to show, a few times a second, and a line when it is over."""
    started = time.monotonic()
    yield progress_of(title)
    if _send is not None:
        _send((title, OVER, OVER, f"{time.monotonic() - started:.0f} s"))


@contextmanager
def report_or_show(title: str, console: Console) -> Generator[Progress]:
    """Progress of a piece: in a worker for the parent to show, elsewhere as a bar, and in a line when it is over."""
    if in_worker():
        with report_to_parent(title) as advance:
            yield advance
        return
    started = time.monotonic()
    with progress_bar(console, title) as advance:
        yield advance
    console.print(f"  {title}: {time.monotonic() - started:.0f} s", highlight=False, soft_wrap=True)


def progress_of(title: str) -> Progress:
    """Progress that a worker sends under that title, a few times a second."""
    last = -1.0

    def advance(what: str, done: int, total: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if _send is not None and (now - last > EVERY or done >= total):
            _send((title, done, total, ", ".join(filter(None, (what, note)))))
            last = now

    return advance


def show_report(report: Report, bars: Progress, console: Console) -> None:
    """Show a report in the process that waits: as a bar, and in a line when it is over."""
    title, count, size, note = report
    bars(title, count, size, note)
    if count == OVER:
        console.print(f"  {title}: {note}", highlight=False, soft_wrap=True)
