"""Progress of long work, reported the same way everywhere."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then with what is being done, how much of it is done, of how much, and perhaps a short note."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None: ...


def silent(what: str, done: int, total: int, note: str = "") -> None:
    """Progress that nobody watches."""


def renamed(progress: Progress, name: str) -> Progress:
    """Progress that always calls the work ``name``, whatever the worker calls it."""

    def advance(what: str, done: int, total: int, note: str = "") -> None:
        progress(name, done, total, note)

    return advance
