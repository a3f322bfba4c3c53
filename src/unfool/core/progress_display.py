"""Progress shown to whoever watches: bars on a terminal, elsewhere a line about every half minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unfool.core.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console

LINE_SECONDS = 30.0
"""Seconds between two lines where there is no terminal."""


@contextmanager
def progress_bar(console: Console, title: str) -> Generator[Progress, None, None]:
    """Show one piece of work under ``title``; what is being done and the note stand behind it."""
    with _display(console, vanish=False) as bars:

        def advance(what: str, done: int, total: int, note: str = "") -> None:
            bars(title, done, total, ", ".join(filter(None, (what, note))))

        bars(title, 0, 0)
        yield advance


@contextmanager
def progress_bars(console: Console) -> Generator[Progress, None, None]:
    """Show several pieces of work at once, one for each ``what``; a piece vanishes when it is done.

    On a terminal they are bars with the time left. Elsewhere a line names all of them every `LINE_SECONDS`.
    """
    with _display(console, vanish=True) as advance:
        yield advance


def _display(console: Console, *, vanish: bool) -> AbstractContextManager[Progress]:
    """Bars or lines; with ``vanish`` a piece goes when it is done."""
    return _bars(console, vanish) if console.is_terminal else _lines(console, vanish)


@contextmanager
def _bars(console: Console, vanish: bool) -> Generator[Progress, None, None]:
    # Imported here: a run whose output goes to a file needs no bars.
    from rich import progress as rich_progress

    columns = (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(24),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[note]}", markup=False),
    )
    bars: dict[str, rich_progress.TaskID] = {}
    with rich_progress.Progress(*columns, console=console, transient=True) as display:

        def advance(what: str, done: int, total: int, note: str = "") -> None:
            if what not in bars:
                bars[what] = display.add_task(what, total=None, note="")
            visible = not vanish or done < total
            display.update(bars[what], completed=done, total=total or None, note=note, visible=visible)

        yield advance


@dataclass
class _Piece:
    """How far a piece of work is, and how far it was when it was first seen."""

    begun: float
    first: int
    done: int
    total: int
    note: str

    def line(self, what: str, now: float) -> str:
        """The piece in words, with an estimate of the time left."""
        words = [what, f"{self.done}/{self.total}" if self.total else "", self.note, _duration(now - self.begun)]
        if self.first < self.done < self.total:
            left = (now - self.begun) * (self.total - self.done) / (self.done - self.first)
            words.append(f"about {_duration(left)} left")
        return ", ".join(filter(None, words))


@contextmanager
def _lines(console: Console, vanish: bool) -> Generator[Progress, None, None]:
    """A line every `LINE_SECONDS` from a thread of its own, so that a slow step does not silence it."""
    pieces: dict[str, _Piece] = {}
    lock, over = threading.Lock(), threading.Event()

    def advance(what: str, done: int, total: int, note: str = "") -> None:
        with lock:
            if vanish and done >= total:
                pieces.pop(what, None)
            elif what in pieces and done >= pieces[what].done and pieces[what].total == total:
                pieces[what].done, pieces[what].note = done, note
            else:
                pieces[what] = _Piece(time.monotonic(), done, done, total, note)

    def write() -> None:
        while not over.wait(LINE_SECONDS):
            with lock:
                lines = [piece.line(what, time.monotonic()) for what, piece in pieces.items()]
            for line in lines:
                console.print(line, markup=False, highlight=False, soft_wrap=True)

    writer = threading.Thread(target=write, name="unfool progress", daemon=True)
    writer.start()
    try:
        yield advance
    finally:
        over.set()
        writer.join()


def _duration(seconds: float) -> str:
    """Seconds in words, such as ``45 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
