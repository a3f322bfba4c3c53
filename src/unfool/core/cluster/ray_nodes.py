# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The nodes of a Ray cluster: greeted before they work, sent what they lack, and cleared at the end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from unfool.core.cluster import ray_tasks
from unfool.core.cluster.messages import CHUNK
from unfool.core.cluster.node import PARCEL_SECONDS
from unfool.core.cluster.parcels import Parcel, contents, parcel_of
from unfool.core.cluster.versions import Versions, check_versions, versions_here
from unfool.core.errors import DataError, UnfoolError, WorkerError
from unfool.core.parallel.job import CodeFile, Job
from unfool.core.plugins import plugin_files
from unfool.core.user_code import imported_below

if TYPE_CHECKING:
    from rich.console import Console

GREETING_SECONDS = 120.0
"""How long a node may take to say which versions it has: a first worker starts there."""

NODES_EVERY = 5.0
"""Seconds between two looks at which nodes there are."""


@dataclass
class Shipped:
    """What nodes are sent: parcels by digest, and what each is for: by the asker's path, with the file in it, and by
    the place of an image set."""

    parcels: dict[str, Parcel] = field(default_factory=dict[str, Parcel])
    files: dict[Path, tuple[str, str]] = field(default_factory=dict[Path, "tuple[str, str]"])
    sets: dict[str, str] = field(default_factory=dict[str, str])
    plugins: tuple[tuple[str, str], ...] = ()
    ship_data: bool = True

    @classmethod
    def of(cls, jobs: Sequence[Job], ship_data: bool) -> Shipped:
        """What jobs name: their files and image sets, and all plugin files with what these import beside them."""
        shipped = cls(ship_data=ship_data)
        for file in {file for job in jobs for file in job.files}:
            if isinstance(file, CodeFile):
                shipped.files[file.path] = shipped._add_code(file)
            else:
                shipped.files[file] = shipped._add(parcel_of(file)), ""
        sets = {each.place: each for job in jobs for each in job.data}
        for place, each in sets.items():
            files = each.files() if each.files is not None else None
            shipped.sets[place] = shipped._add(parcel_of(each.folder, place=place, only=files))
        shipped.plugins = tuple(shipped._add_code(CodeFile(path, imported_below(path))) for path in plugin_files())
        return shipped

    def _add_code(self, file: CodeFile) -> tuple[str, str]:
        path = file.path.resolve()
        return self._add(parcel_of(path.parent, only=[path, *file.modules])), path.name

    def _add(self, parcel: Parcel) -> str:
        self.parcels[parcel.digest] = parcel
        return parcel.digest


class Nodes:
    """The nodes of the cluster: each is greeted before anything runs, and sent what it lacks."""

    def __init__(self, asker: ray_tasks.AskerRun, shipped: Shipped):
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
        for digest, nodes in self._lacking(names).items():
            parcel = self._shipped.parcels[digest]
            if parcel.place and not self._shipped.ship_data:
                raise DataError(
                    f"{names[nodes[0]]} lacks the image set {parcel.name}, or has another version of it; put it into "
                    "its UNFOOL_DATA_DIR, or leave --no-ship-data out"
                )
            self._send(parcel, nodes, console)

    def _lacking(self, nodes: Iterable[str]) -> dict[str, list[str]]:
        """Which nodes must be sent which parcels, by digest. A set of which a node has the names and sizes is read."""
        parcels, lacking = tuple(self._shipped.parcels.values()), dict[str, list[str]]()
        seconds = GREETING_SECONDS  # Names and sizes are known at once; reading a set takes as long as sending it.
        while parcels:
            answers = {node: _on(ray_tasks.lacks, node).remote(self._asker, parcels) for node in nodes}
            unread: dict[str, list[str]] = {}
            for node, answer in answers.items():
                for digest, lack in _answer(node, answer, seconds) or ():
                    unsent = unread if lack == "content" else lacking
                    unsent.setdefault(digest, []).append(node)
            self._shipped.parcels.update({digest: self._shipped.parcels[digest].read() for digest in unread})
            parcels = tuple(self._shipped.parcels[digest] for digest in unread)
            nodes, seconds = {node for unsure in unread.values() for node in unsure}, PARCEL_SECONDS
        return {digest: list(dict.fromkeys(where)) for digest, where in lacking.items()}

    def clear(self) -> None:
        """Remove what the run has on every node, as far as nodes answer within seconds."""
        with suppress(RayError, RuntimeError, OSError):  # a cluster that is gone has nothing to clear
            alive = _alive_nodes()
            going = [_on(ray_tasks.clear, node).remote(self._asker.run) for node in self._met if node in alive]
            ray.wait(going, num_returns=len(going), timeout=5) if going else None

    def _send(self, parcel: Parcel, nodes: Sequence[str], console: Console) -> None:
        """Send a parcel to nodes; each part is read once, and dropped when all have it."""
        if parcel.bytes > CHUNK:
            count = f"{len(nodes)} node{'s' * (len(nodes) > 1)}"
            console.print(
                f"  sending {parcel.name} ({parcel.bytes / 2**20:.0f} MiB) to {count}", highlight=False, soft_wrap=True
            )
        under_way: list[list[Any]] = []
        for file, offset, part in contents(parcel):
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


def a_gpu_answers() -> bool:
    """Whether a node with a GPU is there. The engine counts a node that died for some seconds more, and jobs that want
    its GPU would wait for another."""
    nodes = [str(node["NodeID"]) for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0)]
    answers = [_on(ray_tasks.greet, node).remote() for node in nodes]
    for answer in answers:
        try:
            ray.get(answer, timeout=GREETING_SECONDS)
        except RayTaskError:  # it lives, and is told from others when nodes are met
            return True
        except RayError:
            continue
        return True
    return False


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


def _answer(node: str, answer: Any, seconds: float = GREETING_SECONDS) -> Any:
    """What a node answers; None for one that is lost meanwhile."""
    try:
        return ray.get(answer, timeout=seconds)
    except GetTimeoutError as error:
        raise WorkerError(f"node {node[:12]} gave no answer in {seconds:.0f} s; see whether it is well") from error
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
