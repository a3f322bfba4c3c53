# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Jobs as core tasks of a Ray cluster. Imported only when a cluster was asked for, since it needs the package ray."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Generator, Hashable, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before ray is imported: it reads them then. Nothing is reported to anybody, and its log does not reach the terminal.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import ray
from ray.exceptions import (
    GetTimeoutError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from unfool.core.cluster import ray_tasks
from unfool.core.cluster.dispatch import Lost, run_on
from unfool.core.cluster.messages import CHUNK, Message, Package
from unfool.core.cluster.parcels import Parcel, contents, parcel_of
from unfool.core.cluster.versions import Versions, check_versions, versions_here
from unfool.core.errors import DataError, DeviceError, SpecError, UnfoolError, WorkerError
from unfool.core.parallel.job import Job
from unfool.core.parallel.schedule import More, Schedule
from unfool.core.plugins import plugin_files

if TYPE_CHECKING:
    from rich.console import Console

GREETING_SECONDS = 120.0
"""How long a node may take to say which versions it has: a first worker starts there."""

NODES_EVERY = 5.0
"""Seconds between two looks at which nodes there are."""


@dataclass(eq=False)
class RayExecutor:
    """Runs jobs as tasks of the Ray cluster at ``address`` (``auto``: the one that this machine belongs to).

    ``device`` is what jobs compute on there, ``auto`` for GPUs where the cluster has any; a job on a GPU that does not
    say what it takes takes ``gpu_share`` of one. With ``ship_data`` image sets of this machine are sent to nodes that
    lack them. WorkerError for a cluster that cannot be reached, SpecError for an address or a share that is none.
    """

    address: str
    device: str = "auto"
    ship_data: bool = True
    gpu_share: float = 1.0

    def __post_init__(self) -> None:
        if self.address.startswith("ray://"):
            raise SpecError(f"{self.address} is a Ray client's address; give HOST:PORT of the head, or auto on a node")
        if not 0 < self.gpu_share <= 1:
            raise SpecError(f"a share of {self.gpu_share:g} of a GPU is not allowed; give more than 0 and at most 1")
        _connect(self.address)
        if self.device == "auto":
            self.device = "cuda" if ray.cluster_resources().get("GPU", 0) else "cpu"
        if self.device == "cuda" and not ray.cluster_resources().get("GPU", 0):
            raise DeviceError("the cluster has no GPU; give --device cpu, or ray start --num-gpus on its nodes")

    @property
    def workers(self) -> int:
        """How many jobs of one core run at a time now; more as nodes join."""
        return max(2, int(ray.cluster_resources().get("CPU", 0)))

    def run(
        self,
        jobs: Iterable[Job],
        folder: Path,
        console: Console,
        *,
        data_dir: Path | None = None,
        more: More | None = None,
    ) -> None:
        """As `Executor.run`."""
        jobs = list(jobs)
        data_dir = data_dir or (Path(text) if (text := os.environ.get("UNFOOL_DATA_DIR")) else None)
        shipped = _Shipped.of(jobs, data_dir, self.ship_data)
        asker = ray_tasks.AskerRun(
            run=secrets.token_hex(6),
            versions=versions_here(),
            folder=folder.resolve(),
            data_dir=None if data_dir is None else data_dir.resolve(),
            sets=shipped.sets,
            plugins=shipped.plugins,
        )
        nodes = _Nodes(asker, shipped)
        try:
            nodes.meet(console)
            transport = _RayTransport(asker, nodes, self, console)
            run_on(transport, Schedule(jobs, more), folder, console, device=self.device, files=shipped.files)
        finally:
            nodes.clear()


def _connect(address: str) -> None:
    """Connect this process to a cluster, unless it is."""
    if ray.is_initialized():
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        with _silent_stderr():
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise WorkerError(
            f"there is no Ray cluster at {address} ({said}); start one with ray start --head, or check the address"
        ) from error
    finally:
        signal.signal(signal.SIGTERM, before)
    # What becomes of workers is told by this program, in a line; the engine would print paragraphs on stdout.
    ray._private.worker._worker_logs_enabled = False


@contextmanager
def _silent_stderr() -> Generator[None]:
    """Inside, what is written to the standard error goes nowhere: the engine's own code writes there before it reads
    that it should not."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@dataclass
class _Shipped:
    """What nodes are sent: parcels with their places here, by digest, and what each is for."""

    places: dict[str, tuple[Parcel, Path]] = field(default_factory=dict[str, "tuple[Parcel, Path]"])
    files: dict[Path, str] = field(default_factory=dict[Path, str])
    sets: dict[str, str] = field(default_factory=dict[str, str])
    plugins: tuple[str, ...] = ()
    ship_data: bool = True

    @classmethod
    def of(cls, jobs: Sequence[Job], data_dir: Path | None, ship_data: bool) -> _Shipped:
        shipped = cls(ship_data=ship_data)
        for path in {path for job in jobs for path in job.files}:
            shipped.files[path] = shipped._add(path)
        for name in {name for job in jobs for name in job.data}:
            if data_dir is not None and (data_dir / name).is_dir():
                shipped.sets[name] = shipped._add(data_dir / name, image_set=True)
        shipped.plugins = tuple(shipped._add(path) for path in plugin_files())
        return shipped

    def _add(self, path: Path, *, image_set: bool = False) -> str:
        parcel = parcel_of(path, image_set=image_set)
        self.places[parcel.digest] = (parcel, path)
        return parcel.digest


class _Nodes:
    """The nodes of the cluster: each is greeted before anything runs, and sent what it lacks."""

    def __init__(self, asker: ray_tasks.AskerRun, shipped: _Shipped):
        self._asker, self._shipped = asker, shipped
        self._met: set[str] = set()
        self._looked = 0.0

    def meet(self, console: Console) -> None:
        """Greet nodes that are new, from time to time; WorkerError for one whose versions differ, DataError for one
        that lacks an image set which is not to be sent."""
        if self._met and time.monotonic() - self._looked < NODES_EVERY:
            return
        self._looked = time.monotonic()
        new = [node for node in _alive_nodes() if node not in self._met]
        self._met.update(new)
        greeted = {node: _on(ray_tasks.greet, node).remote() for node in new}
        names = {node: name for node, answer in greeted.items() if (name := _checked(node, answer))}
        parcels = tuple(parcel for parcel, _ in self._shipped.places.values())
        if not parcels:
            return
        answers = {node: _on(ray_tasks.lacks, node).remote(self._asker, parcels) for node in names}
        lacking: dict[str, list[str]] = {}
        for node, answer in answers.items():
            for digest in _answer(node, answer) or ():
                parcel = self._shipped.places[digest][0]
                if parcel.image_set and not self._shipped.ship_data:
                    raise DataError(
                        f"{names[node]} lacks the image set {parcel.name}, or has another version of it; put it into "
                        "its UNFOOL_DATA_DIR, or leave --no-ship-data out"
                    )
                lacking.setdefault(digest, []).append(node)
        for digest, nodes in lacking.items():
            self._send(*self._shipped.places[digest], nodes, console)

    def clear(self) -> None:
        """Remove what the run has on every node, as far as nodes answer within seconds."""
        with suppress(RayError):
            alive = _alive_nodes()
            going = [_on(ray_tasks.clear, node).remote(self._asker.run) for node in self._met if node in alive]
            ray.wait(going, num_returns=len(going), timeout=5) if going else None

    def _send(self, parcel: Parcel, path: Path, nodes: Sequence[str], console: Console) -> None:
        """Send a parcel to nodes; each part is read once, and dropped when all have it."""
        if parcel.bytes > CHUNK:
            count = f"{len(nodes)} node{'s' * (len(nodes) > 1)}"
            console.print(
                f"  sending {parcel.name} ({parcel.bytes / 2**20:.0f} MiB) to {count}", highlight=False, soft_wrap=True
            )
        under_way: list[list[Any]] = []
        for file, offset, part in contents(parcel, path):
            handle = ray.put(part)
            under_way.append(
                [_on(ray_tasks.write, node).remote(self._asker.run, parcel, file, offset, handle) for node in nodes]
            )
            del handle, part
            # Parts of one file go one after the other; the next is read while one is written.
            if len(under_way) > 1:
                _gather(under_way.pop(0))
        for tasks in under_way:
            _gather(tasks)
        _gather([_on(ray_tasks.close, node).remote(self._asker.run, parcel) for node in nodes])


def _gather(tasks: Sequence[Any]) -> None:
    """Wait for tasks; one whose node is lost is left, since its jobs begin again elsewhere."""
    for task in tasks:
        try:
            ray.get(task)
        except RayTaskError as error:
            raise WorkerError(f"a node could not take a file: {error.cause}; free some space there") from error
        except RayError:
            continue


def _alive_nodes() -> list[str]:
    return [str(node["NodeID"]) for node in ray.nodes() if node["Alive"]]


def _on(task: Any, node: str) -> Any:
    """A task for one node."""
    return task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))


def _checked(node: str, answer: Any) -> str | None:
    """The name of a node whose versions are those of this process; None for one that is lost meanwhile."""
    words = _answer(node, answer)
    if words is None:
        return None
    check_versions(words[0], Versions(*words[1:]))
    return words[0]


def _answer(node: str, answer: Any) -> tuple[str, ...] | None:
    """What a node answers; None for one that is lost meanwhile."""
    try:
        return ray.get(answer, timeout=GREETING_SECONDS)
    except GetTimeoutError as error:
        raise WorkerError(
            f"node {node[:12]} gave no answer in {GREETING_SECONDS:.0f} s; see whether it is well"
        ) from error
    except RayTaskError as error:
        if isinstance(error.cause, UnfoolError):
            raise error.cause from error
        said = " ".join(str(error).split())[-200:]
        raise WorkerError(
            f"node {node[:12]} cannot work for this machine, which has {versions_here()}, and says: {said}; install "
            "the same there"
        ) from error
    except RayError:
        return None


class _RayTransport:
    """Packages as streaming tasks: a handle is the generator of a task's messages."""

    def __init__(self, asker: ray_tasks.AskerRun, nodes: _Nodes, executor: RayExecutor, console: Console):
        self._asker = ray.put(asker)
        self._nodes, self._executor, self._console = nodes, executor, console
        self._capacity, self._looked = executor.workers, time.monotonic()

    def room(self, job: Job, running: int) -> bool:
        """One job waits for each that runs, so that no core is idle and an autoscaler sees what is wanted."""
        if time.monotonic() - self._looked > NODES_EVERY:
            self._capacity, self._looked = self._executor.workers, time.monotonic()
        return running < 2 * self._capacity

    def put(self, part: object) -> object:
        return ray.put(part)

    def submit(self, job: Job, package: Package) -> Hashable:
        takes, gpus = job.resources, job.resources.gpus
        if self._executor.device == "cuda" and not gpus:
            gpus = self._executor.gpu_share
        task: Any = ray_tasks.call.options(
            name=job.name,
            num_cpus=takes.cpus,
            num_gpus=gpus,
            memory=takes.memory or None,
            _generator_backpressure_num_objects=2,
        )
        return task.remote(self._asker, package)

    def events(self, handles: Sequence[Hashable], seconds: float) -> Generator[tuple[Hashable, Message | Lost]]:
        self._nodes.meet(self._console)
        waiting: list[Any] = list(handles)
        ready, _ = ray.wait(waiting, num_returns=1, timeout=seconds)
        if len(ready) and len(waiting) > 1:
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        for handle in ready:
            yield handle, _event(handle)

    def cancel(self, handles: Sequence[Hashable]) -> None:
        for handle in handles:
            with suppress(RayError, ValueError, TypeError):
                ray.cancel(handle, force=True)


def _event(handle: Any) -> Message | Lost:
    """The next message of a task, or what became of it; its own errors come as messages."""
    try:
        return ray.get(next(handle))
    except StopIteration:
        return Lost("its task ended without a word")
    except OutOfMemoryError as error:
        return Lost(f"memory ran out on its node ({_first_line(error)})")
    except LocalRayletDiedError as error:
        raise WorkerError("the Ray node of this machine has ended; start it and run the same command again") from error
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None
    except RayError as error:
        return Lost(_first_line(error))


def _first_line(error: Exception) -> str:
    """What the engine says of a lost task, in a few words."""
    if isinstance(error, WorkerCrashedError):
        return "its worker was killed"
    if isinstance(error, (NodeDiedError, ObjectLostError)):
        return "its node is gone"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
