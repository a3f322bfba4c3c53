# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""What a Ray cluster runs for an asker: greeting a node, sending it parcels, calling jobs, and clearing up."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import ray

from unfool.core.cluster.messages import Bytes, Message, Package
from unfool.core.cluster.node import Lack, NodeRun, sweep_runs
from unfool.core.cluster.parcels import Parcel
from unfool.core.cluster.versions import Versions, check_versions, versions_here
from unfool.core.cluster.worker import run_package
from unfool.core.plugins import VARIABLE


@dataclass(frozen=True, kw_only=True)
class AskerRun:
    """A run as every task of it is told: its name, its asker's versions and folder, the asker's data directory, the
    digests of the parcels of image sets by place, and those of plugin files with the file."""

    run: str
    versions: Versions
    folder: Path
    data_dir: Path | None
    sets: Mapping[str, str]
    plugins: tuple[tuple[str, str], ...]


@cache
def _here(run: str) -> NodeRun:
    """This worker's view of its node."""
    # A terminal's interrupt is for the asker, which ends its tasks by itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return NodeRun(run, ray.get_runtime_context().get_node_id())


def node_name() -> str:
    """This machine as messages name it."""
    return f"node {ray.get_runtime_context().get_node_id()[:12]} ({socket.gethostname()})"


@ray.remote(num_cpus=0, max_retries=0)
def greet() -> tuple[str, ...]:
    """What this node is called, and its versions: plain words, which any version of this code understands."""
    return node_name(), *astuple(versions_here())


@ray.remote(num_cpus=0, max_retries=0)
def lacks(asker: AskerRun, parcels: tuple[Parcel, ...]) -> tuple[tuple[str, Lack], ...]:
    """What this node lacks of parcels, by their digests; what dead runs left here goes."""
    here = _here(asker.run)
    sweep_runs()
    return tuple((parcel.digest, lack) for parcel in parcels if (lack := here.lacks(parcel, asker.data_dir)))


@ray.remote(num_cpus=0, max_retries=0)
def write(run: str, parcel: Parcel, file: str, offset: int, part: Bytes) -> None:
    """Write a part of a parcel on this node."""
    _here(run).write(parcel, file, offset, part)


@ray.remote(num_cpus=0, max_retries=0)
def close(run: str, parcel: Parcel) -> None:
    """All of a parcel is on this node."""
    _here(run).close(parcel)


@ray.remote(num_cpus=0, max_retries=0)
def clear(run: str) -> None:
    """Remove what a run has on this node."""
    _here(run).remove()
    sweep_runs()


@ray.remote(num_returns="streaming", max_retries=0)
def call(asker: AskerRun, package: Package) -> Iterator[Message]:
    """Call a job on this node."""
    try:
        check_versions(node_name(), asker.versions)
        here = _here(asker.run)
        plugins = [str(here.parcel(digest) / file) for digest, file in asker.plugins]
        os.environ[VARIABLE] = os.pathsep.join(plugins)
        data_dir = here.data_dir(dict(asker.sets), asker.data_dir)
        # Only now: the call may be of a class in a plugin file.
        package = replace(package, call=_fetch(package.call))
        messages = run_package(package, here.workspace(asker.folder), _fetch, data_dir, here.parcel)
    except Exception as error:
        yield Message(error=_portable(error))
        return
    for message in messages:
        yield message if message.error is None else replace(message, error=_portable(message.error))


def _portable(error: BaseException) -> BaseException:
    """The error, or one that says the same where it cannot travel."""
    try:
        if type(ray.get(ray.put(error))) is type(error):
            return error
    except Exception:  # whatever its class does when it is packed or unpacked
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")


def _fetch(part: Any) -> Any:
    """A part of what came with a job, or what stands for it in the object store."""
    return ray.get(part) if isinstance(part, ray.ObjectRef) else part
