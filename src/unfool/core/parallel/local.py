"""Jobs in processes of this machine: one with one thread for each core, each job as soon as what it needs is done.

Small networks gain next to nothing from a second thread, and everything from a second process. What a job makes lies
in files, so nothing but progress comes back.

On Linux, workers on the CPU are forked from a process that has imported what they need and has done nothing else:
importing PyTorch takes seconds and 200 MB, for each worker anew. Elsewhere, and beside a GPU's driver, which no fork
survives, each worker starts from nothing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING

from unfool.core.errors import WorkerError
from unfool.core.parallel.job import Job, Place
from unfool.core.parallel.reporting import EVERY, Report, progress_of, send_reports_to, show_report
from unfool.core.parallel.schedule import More, Schedule
from unfool.core.plugins import VARIABLE, load_listed_plugins
from unfool.core.progress import renamed
from unfool.core.progress_display import progress_bars

if TYPE_CHECKING:
    from rich.console import Console


def workers_for(device: str) -> int:
    """How many processes share jobs: one a core on the CPU, and one in all on any other device."""
    return len(os.sched_getaffinity(0)) if device == "cpu" else 1


@dataclass(frozen=True)
class LocalExecutor:
    """Runs jobs in ``workers`` processes of this machine with one thread each; with one worker in this process, one
    job after the other. Jobs work in the asker's folder itself."""

    workers: int
    device: str = "cpu"

    def run(
        self,
        jobs: Iterable[Job],
        folder: Path,
        console: Console,
        *,
        data_dir: Path | None = None,
        more: More | None = None,
    ) -> None:
        """As `Executor.run`. Workers end with this process, even if it is killed."""
        jobs = list(jobs)
        schedule = Schedule(jobs, more)
        if self.workers > 1:
            context = worker_context(self.device, {name for job in jobs for name in job.imports})
            self._run_in_pool(context, schedule, folder, console, data_dir)
            return
        with progress_bars(console) as bars:
            while job := schedule.begin():
                here = {path: path for path in job.paths}
                progress = renamed(bars, job.name)
                job.call(Place(folder=folder, data_dir=data_dir, device=self.device, progress=progress, files=here))
                schedule.done(job.name)

    def _run_in_pool(
        self, context: BaseContext, schedule: Schedule, folder: Path, console: Console, data_dir: Path | None
    ) -> None:
        others = set(multiprocessing.active_children())
        queue: Queue[Report] = context.Queue()
        initial = (queue, dict(os.environ))
        pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=_start_worker, initargs=initial)
        try:
            self._submit(pool, schedule, queue, folder, console, data_dir)
        except BaseException:
            # What a worker leaves half made is resumed by the next call, or swept; waiting would hide the error.
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _submit(
        self,
        pool: ProcessPoolExecutor,
        schedule: Schedule,
        queue: Queue[Report],
        folder: Path,
        console: Console,
        data_dir: Path | None,
    ) -> None:
        """Submit jobs as they become ready and show their progress until all are done; raises the first error."""
        running: dict[Future[None], str] = {}
        with progress_bars(console) as bars:

            def drain(seconds: float) -> None:
                with contextlib.suppress(Empty):
                    while True:
                        show_report(queue.get(timeout=seconds), bars, console)

            while schedule.active:
                while len(running) < self.workers and (job := schedule.begin()):
                    with deaf_to_interrupts():
                        future = pool.submit(_call, job.name, job.call, job.paths, folder, data_dir, self.device)
                    running[future] = job.name
                finished, _ = wait(running, timeout=EVERY, return_when=FIRST_COMPLETED)
                drain(0.0)  # a wait here would leave workers idle
                for future in finished:
                    try:
                        future.result()
                    except BrokenProcessPool as error:
                        raise WorkerError(
                            f"a worker process was killed while it made {', '.join(running.values())}, perhaps because "
                            "memory ran out; free some memory or take smaller settings, and start again: what is "
                            "finished is kept"
                        ) from error
                    schedule.done(running.pop(future))
            drain(EVERY)


def worker_context(device: str, imports: Iterable[str] = ()) -> BaseContext:
    """How workers start; those that are forked have the modules ``imports`` and what this process has of the library.

    The process that they are forked from is started by the first that asks, and knows no plugins: those of one call
    are not those of the next.
    """
    if sys.platform != "linux" or device != "cpu":
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    root = __name__.partition(".")[0]
    own = [name for name in sys.modules if name.partition(".")[0] == root and not name.endswith(".__main__")]
    context.set_forkserver_preload(["torch", *own, *sorted(imports)])
    plugins = os.environ.pop(VARIABLE, None)
    try:
        with deaf_to_interrupts():
            forkserver.ensure_running()
    except OSError:  # no place for its socket, whose path may not be long
        return multiprocessing.get_context("spawn")
    finally:
        if plugins is not None:
            os.environ[VARIABLE] = plugins
    return context


@contextlib.contextmanager
def deaf_to_interrupts() -> Generator[None]:
    """Inside, processes start that hear no interrupt, not even while they import; this one hears it at the end.

    A terminal interrupts every process of a group: the asker decides what becomes of its workers, and says so once. One
    that is half started is none that it knows of.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # Where it starts inside, it lets interrupts through again.
    heard: list[int] = []
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, _: heard.append(number)) if in_main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main:
            signal.signal(signal.SIGINT, signal.SIG_DFL if handler is None else handler)
        if heard:
            signal.raise_signal(signal.SIGINT)


def _call(
    name: str,
    call: Callable[[Place], object],
    files: tuple[Path, ...],
    folder: Path,
    data_dir: Path | None,
    device: str,
) -> None:
    """Call a job in a worker."""
    load_listed_plugins()
    here = {path: path for path in files}
    call(Place(folder=folder, data_dir=data_dir, device=device, progress=progress_of(name), files=here))


def _start_worker(queue: Queue[Report], environment: dict[str, str]) -> None:
    import torch  # not needed by the process that waits

    # A fork has the environment of the process that it was forked from.
    os.environ.clear()
    os.environ.update(environment)
    send_reports_to(queue.put)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where a process cannot start deaf to it
    # After another job's error nobody reads progress any more, and a worker would wait for a reader when it ends.
    queue.cancel_join_thread()
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A worker that outlived its study would keep the run folder locked against the study's next call.
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
