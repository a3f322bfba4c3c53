"""Jobs in processes of this machine: one with one thread for each core, each job as soon as what it needs is done.

Small networks gain next to nothing from a second thread, and everything from a second process. What a job makes lies
in files, so nothing but progress comes back.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from graphlib import TopologicalSorter
from multiprocessing.queues import Queue
from queue import Empty
from typing import TYPE_CHECKING

from unfool.core.progress import Progress
from unfool.core.progress_display import progress_bars

if TYPE_CHECKING:
    from rich.console import Console

ProgressMessage = tuple[str, int, int, str]
"""Title of a piece of work, how much of it is done, of how much, and a note."""

EVERY = 0.2
"""Seconds between two messages of progress."""

OVER = 1 << 40
"""Stands for how much is done when all of a piece is."""

_queue: Queue[ProgressMessage] | None = None
"""In a worker: where its progress goes."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A picklable ``call``; it waits until the jobs it ``needs`` are done, and goes before others of less ``cost``."""

    name: str
    call: Callable[[], object]
    needs: frozenset[str] = frozenset()
    cost: float = 0.0


def workers_for(device: str, jobs: int) -> int:
    """How many processes share the jobs: one a core on the CPU, and one in all on any other device."""
    return min(jobs, len(os.sched_getaffinity(0))) if device == "cpu" else 1


def urgency(jobs: Sequence[Job]) -> dict[str, float]:
    """The cost of each job and of the longest chain of jobs that waits for it; ValueError for jobs in a circle."""
    named = {job.name: job for job in jobs}
    total: dict[str, float] = dict.fromkeys(named, 0.0)
    for name in reversed(list(TopologicalSorter({job.name: job.needs & named.keys() for job in jobs}).static_order())):
        total[name] += named[name].cost
        for need in named[name].needs & named.keys():
            total[need] = max(total[need], total[name])
    return total


def run_jobs(jobs: Sequence[Job], console: Console, workers: int) -> None:
    """Call every job in a process of its own, ``workers`` at a time, the most urgent of those that can begin first.

    The first error, or an interrupt, ends them all and is raised here. Workers end with this process, even if it is
    killed.
    """
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    queue: Queue[ProgressMessage] = context.Queue()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(queue,))
    try:
        _run(pool, jobs, queue, console, workers)
    except BaseException:
        # What a worker leaves half made is resumed by the next call, or swept; waiting would hide the error.
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _run(
    pool: ProcessPoolExecutor, jobs: Sequence[Job], queue: Queue[ProgressMessage], console: Console, workers: int
) -> None:
    """Submit jobs as they become ready and show their progress until all are done; raises the first error."""
    total, calls = urgency(jobs), {job.name: job.call for job in jobs}
    graph = TopologicalSorter({job.name: job.needs & calls.keys() for job in jobs})
    graph.prepare()
    ready: list[str] = []
    running: dict[Future[object], str] = {}
    with progress_bars(console) as bars:

        def drain(seconds: float) -> None:
            with contextlib.suppress(Empty):
                while True:
                    title, count, size, note = queue.get(timeout=seconds)
                    bars(title, count, size, note)
                    if count == OVER:
                        console.print(f"  {title}: {note}", highlight=False, soft_wrap=True)

        while graph.is_active():
            ready = sorted([*ready, *graph.get_ready()], key=lambda name: -total[name])
            while ready and len(running) < workers:
                name = ready.pop(0)
                running[pool.submit(calls[name])] = name
            finished, _ = wait(running, timeout=EVERY, return_when=FIRST_COMPLETED)
            drain(0.01)
            for future in finished:
                future.result()
                graph.done(running.pop(future))
        drain(EVERY)


def _start_worker(queue: Queue[ProgressMessage]) -> None:
    import torch  # not needed by the process that waits

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


@contextlib.contextmanager
def report_to_parent(title: str) -> Generator[Progress]:
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
