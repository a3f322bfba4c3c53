"""A job on a node: called in a thread, while its progress and what it writes are sent to the asker."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from unfool.core.cluster.messages import Bytes, Message, Package
from unfool.core.cluster.outgoing import NodeFolder
from unfool.core.errors import UnfoolWarning
from unfool.core.parallel.job import Place
from unfool.core.parallel.reporting import EVERY, Report, progress_of, send_reports_to

Item = TypeVar("Item")

LOOK_EVERY = 1.0
"""Seconds between two looks at what a job has written so far, such as a checkpoint."""


def run_package(
    package: Package,
    workspace: NodeFolder,
    fetch: Callable[[object], Bytes],
    data_dir: Path | None = None,
    files: Callable[[str], Path] = Path,
) -> Iterator[Message]:
    """Call a job in a workspace, and give messages until it is done or has failed.

    ``fetch`` gives the bytes of a part of an input, ``files`` where a parcel lies.
    """
    workspace.bring_in(package.inputs, fetch)
    reports: SimpleQueue[Report] = SimpleQueue()
    warned: SimpleQueue[str] = SimpleQueue()
    send_reports_to(reports.put)
    place = Place(
        folder=workspace.folder,
        data_dir=data_dir,
        device=package.device,
        progress=progress_of(package.name),
        files={path: files(parcel) / name for path, (parcel, name) in package.files.items()},
    )
    outcome: list[BaseException | None] = []
    over = threading.Event()

    def call() -> None:
        try:
            if package.device == "cpu":
                _one_thread()
            with _warnings_to(warned.put):
                package.call(place)
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)
        finally:
            over.set()

    threading.Thread(target=call, name=f"unfool {package.name}", daemon=True).start()
    waited = 0.0
    while not over.wait(EVERY):
        waited += EVERY
        if waited >= LOOK_EVERY:
            waited = 0.0
            yield from workspace.messages()
        yield from _with_words((), _latest(reports), _all(warned))
    error = outcome[0]
    # What a call that failed left, such as a checkpoint, is kept as on one machine.
    ending = workspace.messages(last=error is None)
    yield from _with_words(ending, _latest(reports), _all(warned))
    if error is not None:
        yield Message(error=error.with_traceback(None))


def _with_words(messages: Iterable[Message], reports: tuple[Report, ...], warned: tuple[str, ...]) -> Iterator[Message]:
    """The messages, with reports and warnings in the first of them, or else in one of their own."""
    for message in messages:
        yield replace(message, reports=reports, warnings=warned)
        reports = warned = ()
    if reports or warned:
        yield Message(reports=reports, warnings=warned)


@contextmanager
def _warnings_to(send: Callable[[str], None]) -> Generator[None]:
    """Inside, warnings of this library are sent; others go where they go."""
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, UnfoolWarning):
            send(str(message))
        else:
            before(message, category, *place, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def _one_thread() -> None:
    """One thread computes, as in processes of one machine; the number belongs to the thread that sets it."""
    import torch

    torch.set_num_threads(1)


def _latest(reports: SimpleQueue[Report]) -> tuple[Report, ...]:
    """The latest report of each title, those that end a piece included."""
    return tuple({(report[0], report[1] >= report[2]): report for report in _all(reports)}.values())


def _all(queue: SimpleQueue[Item]) -> tuple[Item, ...]:
    """What has come so far."""
    items: list[Item] = []
    with suppress(Empty):
        while True:
            items.append(queue.get_nowait())
    return tuple(items)
