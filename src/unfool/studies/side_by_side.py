"""Pieces of a study made side by side: one process with one thread for each core, all in the same workspace.

Small networks gain next to nothing from a second thread, and everything from a second process. A piece is found again
by whoever asks for it next, so nothing but progress comes back.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from rich.console import Console

from unfool.core.progress import Progress
from unfool.core.progress_display import progress_bars

Told = tuple[str, int, int, str]
"""Title of a piece, how much of it is done, of how much, and a note."""

EVERY = 0.2
"""Seconds between two words of progress."""

OVER = 1 << 40
"""Stands for how much is done when all of a piece is."""

_queue: Queue[Told] | None = None
"""In a worker: where its progress goes."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a worker needs to open the workspace."""

    out: Path
    data_dir: Path | None
    device: str


def workers_for(device: str, jobs: int) -> int:
    """How many processes share the jobs: one a core on the CPU, and one in all on any other device."""
    return min(jobs, len(os.sched_getaffinity(0))) if device == "cpu" else 1


def run_jobs(jobs: Sequence[Callable[[Any], object]], place: Place, console: Console, workers: int) -> None:
    """Call every job with a workspace at ``place``, ``workers`` at a time; jobs must be picklable.

    The first error, or an interrupt, ends them all and is raised here. Workers end with this process, even if it is
    killed.
    """
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    queue: Queue[Told] = context.Queue()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(queue,))
    try:
        futures = [pool.submit(_make, job, place) for job in jobs]
        _show(futures, queue, console)
    except BaseException:
        # What a worker leaves half made is resumed by the next call, or swept; waiting would hide the error.
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _show(futures: Sequence[Future[None]], queue: Queue[Told], console: Console) -> None:
    """Show the workers' progress until all are done; raises the first error."""
    with progress_bars(console) as bars:

        def drain(seconds: float) -> None:
            with contextlib.suppress(Empty):
                while True:
                    title, count, total, note = queue.get(timeout=seconds)
                    bars(title, count, total, note)
                    if count == OVER:
                        console.print(f"  {title}: {note}", highlight=False, soft_wrap=True)

        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=EVERY)
            drain(0.01)
            for future in done:
                future.result()
        drain(EVERY)


def _begin(queue: Queue[Told]) -> None:
    global _queue
    _queue = queue
    # A terminal interrupts every process of a group: the study decides what becomes of its workers, and says so once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # After another job's error nobody reads progress any more, and a worker would wait for a reader when it ends.
    queue.cancel_join_thread()
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A worker that outlived its study would keep the run folder locked against the study's next call.
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _make(job: Callable[[Any], object], place: Place) -> None:
    from unfool.studies.workspace import Workspace

    job(Workspace(place.out, place.data_dir, place.device, Console(quiet=True)))


@contextlib.contextmanager
def report_to_parent(title: str) -> Iterator[Progress]:
    """In a worker: progress of a piece for the parent to show, a few times a second, and a line when it is over."""
    started, last = time.monotonic(), -1.0

    def advance(what: str, done: int, total: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if _queue is not None and (now - last > EVERY or done >= total):
            _queue.put((title, done, total, ", ".join(filter(None, (what, note)))))
            last = now

    yield advance
    if _queue is not None:
        _queue.put((title, OVER, OVER, f"{time.monotonic() - started:.0f} s"))


def in_worker() -> bool:
    """Whether this process makes pieces for another one."""
    return _queue is not None
