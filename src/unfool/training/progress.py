"""A progress bar with the time left, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[[int, int, str], None]
"""Told how many steps are done, how many there are in all, and a note."""


def _progress(console: Console) -> Progress:
    """Bars on a terminal that vanish when they are over; nothing anywhere else."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def progress_bar(console: Console, title: str) -> Iterator[Advance]:
    """A bar on a terminal that vanishes when it is over; nothing anywhere else."""
    with _progress(console) as progress:
        bar = progress.add_task(title, total=None, note="")
        yield lambda done, total, note: progress.update(bar, completed=done, total=total, note=note)


@contextmanager
def progress_bars(console: Console) -> Iterator[Callable[[str, int, int, str], None]]:
    """As ``progress_bar``, for several pieces at once: told their titles too; a bar goes when its piece is done."""
    with _progress(console) as progress:
        bars: dict[str, TaskID] = {}

        def advance(title: str, done: int, total: int, note: str) -> None:
            if title not in bars:
                bars[title] = progress.add_task(title, total=total, note=note)
            progress.update(bars[title], completed=done, total=total, note=note, visible=done < total)

        yield advance
