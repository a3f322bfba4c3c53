"""A job on a node: called in a thread, while its progress and what it writes are sent to the asker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue

from unfool.core.cluster.messages import Bytes, Message, Package
from unfool.core.cluster.outgoing import NodeFolder
from unfool.core.parallel.job import Place
from unfool.core.parallel.reporting import EVERY, Report, progress_of, send_reports_to

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
    send_reports_to(reports.put)
    place = Place(
        folder=workspace.folder,
        data_dir=data_dir,
        device=package.device,
        progress=progress_of(package.name),
        files={path: files(parcel) for path, parcel in package.files.items()},
    )
    outcome: list[BaseException | None] = []
    over = threading.Event()

    def call() -> None:
        try:
            if package.device == "cpu":
                _one_thread()
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
        if said := _drain(reports):
            yield Message(reports=said)
    error = outcome[0]
    # What a call that failed left, such as a checkpoint, is kept as on one machine.
    ending = workspace.messages(last=error is None)
    yield from _with_reports(ending, _drain(reports))
    if error is not None:
        yield Message(error=error.with_traceback(None))


def _with_reports(messages: Iterator[Message], reports: tuple[Report, ...]) -> Iterator[Message]:
    """The messages, with reports in the first of them."""
    for message in messages:
        yield replace(message, reports=reports)
        reports = ()
    if reports:
        yield Message(reports=reports)


def _one_thread() -> None:
    """One thread computes, as in processes of one machine; the number belongs to the thread that sets it."""
    import torch

    torch.set_num_threads(1)


def _drain(reports: SimpleQueue[Report]) -> tuple[Report, ...]:
    """The latest report of each title, those that end a piece included."""
    said: dict[tuple[str, bool], Report] = {}
    with suppress(Empty):
        while True:
            report = reports.get_nowait()
            said[report[0], report[1] >= report[2]] = report
    return tuple(said.values())
