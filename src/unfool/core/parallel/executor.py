"""What runs jobs: processes of this machine, or a cluster; both behind one interface."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from unfool.core.errors import SpecError
from unfool.core.parallel.address import check_address
from unfool.core.parallel.job import Job
from unfool.core.parallel.local import LocalExecutor, workers_for
from unfool.core.parallel.schedule import More

if TYPE_CHECKING:
    from rich.console import Console


class Executor(Protocol):
    """Runs jobs side by side, about ``workers`` at a time, each on a machine with the ``device``."""

    @property
    def workers(self) -> int: ...

    @property
    def device(self) -> str: ...

    def run(
        self,
        jobs: Iterable[Job],
        folder: Path,
        console: Console,
        *,
        data_dir: Path | None = None,
        more: More | None = None,
    ) -> None:
        """Call every job, the most urgent of those that can begin first, until all are done.

        What jobs leave in their place's folder lands in ``folder``, of which this process is the only writer.
        ``data_dir`` holds the image sets of this machine; None: there is no such folder, in the environment neither.
        ``more`` is asked for further jobs when one is done, by its name. The first error of a job, or an interrupt,
        ends them all and is raised here as it was.
        """
        ...


def executor_for(
    cluster: str | None,
    *,
    device: str = "cpu",
    workers: int | None = None,
    ship_data: bool = True,
    gpu_share: float = 1.0,
) -> Executor:
    """The executor that a command was asked for.

    ``cluster`` is None for this machine (``workers`` processes; None: one a core on the CPU, one on another device),
    or the address of a Ray cluster, ``auto`` for the one that this machine belongs to; there ``device`` may be
    ``auto``, ``ship_data`` says whether nodes are sent image sets that they lack, and a job on a GPU that does not say
    what it takes takes ``gpu_share`` of it. Raises WorkerError for a cluster that cannot be reached, SpecError without
    the package that it needs.
    """
    if cluster is None:
        return LocalExecutor(workers_for(device) if workers is None else workers, device)
    check_address(cluster)
    if not 0 < gpu_share <= 1:
        raise SpecError(f"a share of {gpu_share:g} of a GPU is not allowed; give more than 0 and at most 1")
    if importlib.util.find_spec("ray") is None:
        raise SpecError("--cluster needs the package ray; run pip install 'unfool[cluster]', here and on every node")
    # Read when ray is imported: it reports nothing to anybody, and its log stays out of the terminal.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    excepthook = sys.excepthook
    from unfool.core.cluster.ray_executor import RayExecutor

    sys.excepthook = excepthook  # which ray replaces
    return RayExecutor(cluster, device=device, ship_data=ship_data, gpu_share=gpu_share)
