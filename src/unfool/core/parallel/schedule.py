"""The order of jobs: each as soon as what it needs is done, the most urgent of those that can begin first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from graphlib import TopologicalSorter

from unfool.core.parallel.job import Job

More = Callable[[str], Iterable[Job]]
"""The jobs that follow from one that is done, by its name."""


def urgency(jobs: Sequence[Job]) -> dict[str, float]:
    """The cost of each job and of the longest chain of jobs that waits for it; ValueError for jobs in a circle."""
    named = {job.name: job for job in jobs}
    total: dict[str, float] = dict.fromkeys(named, 0.0)
    for name in reversed(list(TopologicalSorter({job.name: job.needs & named.keys() for job in jobs}).static_order())):
        total[name] += named[name].cost
        for need in named[name].needs & named.keys():
            total[need] = max(total[need], total[name])
    return total


class Schedule:
    """Jobs that wait, that run and that are done; ``more`` is asked for further jobs whenever one is done.

    A job is told by its name, so no two may have the same: ValueError for that, and for jobs in a circle.
    """

    def __init__(self, jobs: Iterable[Job], more: More | None = None):
        self._more = more
        self._waiting: dict[str, Job] = {}
        self._running: dict[str, Job] = {}
        self._done: set[str] = set()
        self._urgency: dict[str, float] = {}
        self.add(jobs)

    @property
    def active(self) -> bool:
        """Whether any job waits or runs."""
        return bool(self._waiting or self._running)

    @property
    def waiting(self) -> int:
        """How many jobs have not begun."""
        return len(self._waiting)

    def add(self, jobs: Iterable[Job]) -> None:
        """Take further jobs."""
        jobs = list(jobs)
        for job in jobs:
            if job.name in self._waiting or job.name in self._running or job.name in self._done:
                raise ValueError(f"two jobs are called {job.name}; give one of them another name")
            self._waiting[job.name] = job
        if jobs:
            self._urgency = urgency([*self._waiting.values(), *self._running.values()])

    def begin(self) -> Job | None:
        """The most urgent job whose needs are done, which runs from now on; None if there is none."""
        undone = self._waiting.keys() | self._running.keys()
        ready = [job for job in self._waiting.values() if not job.needs & undone]
        if not ready:
            return None
        job = max(ready, key=lambda job: self._urgency[job.name])
        self._running[job.name] = self._waiting.pop(job.name)
        return job

    def again(self, name: str) -> None:
        """A job that ran waits once more."""
        self._waiting[name] = self._running.pop(name)

    def done(self, name: str) -> None:
        """A job that ran is done."""
        del self._running[name]
        self._done.add(name)
        if self._more is not None:
            self.add(self._more(name))
