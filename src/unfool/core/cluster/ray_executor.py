# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Jobs as core tasks of a Ray cluster. Imported only when a cluster was asked for, since it needs the package ray."""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Generator, Hashable, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from unfool.core.cluster import ray_tasks
from unfool.core.cluster.dispatch import Lost, run_on
from unfool.core.cluster.messages import Message, Package
from unfool.core.cluster.ray_nodes import NODES_EVERY, Nodes, Shipped, a_gpu_answers
from unfool.core.cluster.versions import versions_here
from unfool.core.errors import DeviceError, WorkerError
from unfool.core.parallel.job import Job
from unfool.core.parallel.schedule import More, Schedule

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(eq=False)
class RayExecutor:
    """Runs jobs as tasks of the Ray cluster at ``address`` (``auto``: the one that this machine belongs to).

    ``device`` is what jobs compute on there, ``auto`` for GPUs where the cluster has any; a job on a GPU that does not
    say what it takes takes ``gpu_share`` of one. With ``ship_data`` image sets of this machine are sent to nodes that
    lack them. WorkerError for a cluster that cannot be reached, DeviceError for one without the device.
    """

    address: str
    device: str = "auto"
    ship_data: bool = True
    gpu_share: float = 1.0

    def __post_init__(self) -> None:
        _connect(self.address)
        has_gpu = self.device in ("auto", "cuda") and a_gpu_answers()
        if self.device == "auto":
            self.device = "cuda" if has_gpu else "cpu"
        if self.device == "cuda" and not has_gpu:
            raise DeviceError("the cluster has no GPU; give --device cpu, or ray start --num-gpus on its nodes")

    @property
    def workers(self) -> int:
        """How many jobs of one core, or of a share of a GPU, run at a time now; more as nodes join."""
        resources = ray.cluster_resources()
        on_gpus = self.device == "cuda"
        return max(2, int(resources.get("GPU", 0) / self.gpu_share if on_gpus else resources.get("CPU", 0)))

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
        shipped = Shipped.of(jobs, self.ship_data)
        asker = ray_tasks.AskerRun(
            run=secrets.token_hex(6),
            versions=versions_here(),
            folder=folder.resolve(),
            data_dir=None if data_dir is None else data_dir.resolve(),
            sets=shipped.sets,
            plugins=shipped.plugins,
        )
        nodes = Nodes(asker, shipped)
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
        where = (
            "this machine belongs to no Ray cluster" if address == "auto" else f"no Ray cluster answers at {address}"
        )
        said = " ".join(str(error).split())[:160]
        raise WorkerError(f"{where} ({said}); start one with ray start --head, or give another address") from error
    finally:
        signal.signal(signal.SIGTERM, before)
    # What becomes of workers is told by this program, in a line; the engine would print paragraphs on stdout.
    importlib.import_module("ray._private.worker").__dict__["_worker_logs_enabled"] = False


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


class _RayTransport:
    """Packages as streaming tasks: a handle is the generator of a task's messages."""

    def __init__(self, asker: ray_tasks.AskerRun, nodes: Nodes, executor: RayExecutor, console: Console):
        self._asker = ray.put(asker)
        self._nodes, self._executor, self._console = nodes, executor, console
        self._capacity, self._looked = executor.workers, time.monotonic()
        self._wanted: set[str] = set()

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
        self._tell_unless_a_node_has({"CPU": takes.cpus, "GPU": gpus, "memory": float(takes.memory)}, job.name)
        task: Any = ray_tasks.call.options(
            name=job.name,
            num_cpus=takes.cpus,
            num_gpus=gpus,
            memory=takes.memory or None,
            _generator_backpressure_num_objects=2,
        )
        return task.remote(self._asker, replace(package, call=ray.put(package.call)))

    def _tell_unless_a_node_has(self, wanted: dict[str, float], name: str) -> None:
        """A line, once for each want, where a job waits for a node that is not there yet."""
        words = ", ".join(f"{amount:g} {kind}" for kind, amount in wanted.items() if amount)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]] if words not in self._wanted else []
        if nodes and not any(all(node.get(kind, 0) >= wanted[kind] for kind in wanted) for node in nodes):
            self._console.print(
                f"  no node has {words}: {name} waits until such a node joins", highlight=False, soft_wrap=True
            )
        self._wanted.add(words)

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
        message: Any = ray.get(next(handle))
        return message
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
