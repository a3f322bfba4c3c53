"""A progress bar with the time left, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[[int, int, str], None]
"""Told how many steps are done, how many there are in all, and a note."""


@contextmanager
def progress_bar(console: Console, title: str) -> Iterator[Advance]:
    """A bar on a terminal that vanishes when it is over; nothing anywhere else."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=None, note="")
        yield lambda done, total, note: progress.update(bar, completed=done, total=total, note=note)
