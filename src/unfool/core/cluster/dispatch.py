"""Jobs on a cluster as the asker sees them: handed out, followed, landed, and handed out again when a node is lost."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from unfool.core.cluster.landing import Landing
from unfool.core.cluster.messages import Digest, Input, Message, Package, parts_of
from unfool.core.errors import UnfoolWarning, WorkerError
from unfool.core.parallel.job import Job
from unfool.core.parallel.reporting import EVERY, show_report
from unfool.core.parallel.schedule import Schedule
from unfool.core.progress_display import progress_bars

if TYPE_CHECKING:
    from rich.console import Console

ATTEMPTS = 4
"""How often a job is begun at most when its workers are lost."""

INLINE = 1 << 18
"""Bytes of a file that travel with the job itself; those of larger files are handed over once for all jobs at work."""


@dataclass(frozen=True)
class Lost:
    """What became of a job whose worker or node is gone: where it ran and why it ended, as far as that is known."""

    reason: str


class Transport(Protocol):
    """Carries packages to nodes and messages back. Handles are its own."""

    def room(self, job: Job, running: int) -> bool:
        """Whether a job should be handed out now, beside so many that run."""
        ...

    def put(self, part: object) -> object:
        """What stands for a part of a file, until all that hold it drop it."""
        ...

    def submit(self, job: Job, package: Package) -> Hashable:
        """Hand a job out."""
        ...

    def events(self, handles: Sequence[Hashable], seconds: float) -> Iterable[tuple[Hashable, Message | Lost]]:
        """What has come of these jobs, after waiting so long at most."""
        ...

    def cancel(self, handles: Sequence[Hashable]) -> None:
        """End jobs at once."""
        ...


@dataclass
class Inputs:
    """The files that jobs at work read: each is handed over once, and dropped when none of them reads it any more."""

    folder: Path
    transport: Transport
    _large: dict[str, tuple[tuple[int, int], Input, set[str]]] = field(
        default_factory=dict[str, tuple[tuple[int, int], Input, set[str]]]
    )

    def of(self, job: Job) -> tuple[Input, ...]:
        """What a job reads now."""
        files: dict[str, Path] = {}
        for place in job.reads():
            for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
                path = file.relative_to(self.folder)
                if file.is_file() and not any(word.startswith(".") for word in path.parts):
                    files[path.as_posix()] = file
        return tuple(self._input(path, file, job.name) for path, file in files.items())

    def drop(self, name: str) -> None:
        """A job no longer reads anything."""
        for path, (_, _, readers) in list(self._large.items()):
            readers.discard(name)
            if not readers:
                del self._large[path]

    def _input(self, path: str, file: Path, reader: str) -> Input:
        status, digest = file.stat(), Digest()
        if status.st_size <= INLINE:
            parts = tuple(digest.passing(parts_of(file)))
            return Input(path=path, size=status.st_size, digest=digest.text(), parts=parts)
        stamp = (status.st_mtime_ns, status.st_size)
        kept = self._large.get(path)
        if kept is None or kept[0] != stamp:
            parts = tuple(self.transport.put(part) for part in digest.passing(parts_of(file)))
            item = Input(path=path, size=status.st_size, digest=digest.text(), parts=parts)
            kept = self._large[path] = (stamp, item, set())
        kept[2].add(reader)
        return kept[1]


@dataclass
class _Running:
    job: Job
    landing: Landing


def run_on(
    transport: Transport,
    schedule: Schedule,
    folder: Path,
    console: Console,
    *,
    device: str,
    files: Mapping[Path, tuple[str, str]],
) -> None:
    """Run jobs on what a transport reaches until all are done; ``files`` names parcels, and the file in each, by the
    asker's paths.

    A job whose worker or node is lost is begun again, from what has landed of it, ATTEMPTS times at most: then
    WorkerError. The first error of a job itself is raised as it is, and ends all others, as an interrupt does.
    """
    running: dict[Hashable, _Running] = {}
    lost: Counter[str] = Counter()
    inputs = Inputs(folder, transport)
    try:
        with progress_bars(console) as bars:
            while schedule.active:
                while job := schedule.begin():
                    if not transport.room(job, len(running)):
                        schedule.again(job.name)
                        break
                    own = {path: files[path] for path in job.paths}
                    package = Package(name=job.name, call=job.call, inputs=inputs.of(job), device=device, files=own)
                    running[transport.submit(job, package)] = _Running(job, Landing(folder))
                for handle, event in transport.events(list(running), EVERY):
                    item = running[handle]
                    name = item.job.name
                    if isinstance(event, Lost):
                        del running[handle]
                        item.landing.abandon()
                        inputs.drop(name)
                        lost[name] += 1
                        _tell_lost(name, event.reason, lost[name], console)
                        schedule.again(name)
                        continue
                    for report in event.reports:
                        show_report(report, bars, console)
                    for words in event.warnings:
                        warnings.warn(words, UnfoolWarning, stacklevel=2)
                    item.landing.take(event)
                    if event.error is not None:
                        raise event.error
                    if event.done:
                        del running[handle]
                        inputs.drop(name)
                        schedule.done(name)
                    del event
    except BaseException:
        transport.cancel(list(running))
        raise
    finally:
        for item in running.values():
            item.landing.abandon()


def _tell_lost(name: str, reason: str, times: int, console: Console) -> None:
    """A line that a job begins again; WorkerError when it has begun often enough."""
    if times >= ATTEMPTS:
        raise WorkerError(
            f"{name} was lost {times} times, at last because {reason}; if memory runs out, take smaller batches or "
            "settings or let fewer jobs share a node (ray start --num-cpus), and start again: what is finished is kept"
        )
    console.print(f"  {name} begins again: {reason}", highlight=False, markup=False, soft_wrap=True)
