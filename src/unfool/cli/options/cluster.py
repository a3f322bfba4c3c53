"""Options of the commands whose work can be done by a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from unfool.core.parallel.executor import Executor


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Where the work is done."""

    cluster: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="ADDRESS",
            help="Ray cluster that does the work: HOST:PORT of its head, or auto for the one that this machine belongs "
            "to. Results land here.",
            help_behavior_hint="(default: this machine)",
        ),
    ] = None
    ship_data: Annotated[
        bool,
        tyro.conf.arg(
            help="Refuse nodes of the cluster that lack an image set of --data-dir, which by default are sent it, once "
            "each.",
            help_behavior_hint="",
        ),
    ] = True
    gpu_share: Annotated[
        float,
        tyro.conf.arg(
            metavar="SHARE", help="Part of a GPU that a piece of work on the cluster takes; 0.25: four a GPU."
        ),
    ] = 1.0

    def executor(self, device: str, workers: int | None = None) -> Executor:
        """What does the work: processes of this machine, or the cluster; ``device`` is the word that a user wrote.

        Raises WorkerError for a cluster that cannot be reached, SpecError for options that do not go together.
        """
        from unfool.cli.parsing.systems import choose_device
        from unfool.core.parallel.executor import executor_for

        self.refuse_without_cluster()
        return executor_for(
            self.cluster,
            device=choose_device(device) if self.cluster is None else device,
            workers=workers,
            ship_data=self.ship_data,
            gpu_share=self.gpu_share,
        )

    def own_device(self, device: str) -> str:
        """The word for the device of this process: ``cuda`` is meant for the nodes of a cluster."""
        return "auto" if self.cluster is not None and device == "cuda" else device

    def check(self, workers: int | None) -> None:
        """SpecError for options that do not go together; ``workers`` is None where the user gave no number."""
        from unfool.core.errors import SpecError

        if workers is not None and workers < 1:
            raise SpecError(f"--workers {workers} is not allowed; give at least 1")
        if workers is not None and self.cluster is not None:
            raise SpecError("--workers are processes of this machine; leave it out beside --cluster")
        self.refuse_without_cluster()

    def refuse_without_cluster(self) -> None:
        """SpecError for options of a cluster where there is none."""
        from unfool.core.errors import SpecError

        if self.cluster is None and (not self.ship_data or self.gpu_share != 1.0):
            option = "--no-ship-data" if not self.ship_data else f"--gpu-share {self.gpu_share:g}"
            raise SpecError(f"{option} is for --cluster; add --cluster auto, or leave it out")


@dataclass(frozen=True, kw_only=True)
class PieceOptions(ClusterOptions):
    """Who makes the pieces of a study or the runs of a sweep, several at a time."""

    workers: Annotated[
        int | None,
        tyro.conf.arg(
            metavar="N",
            help="Processes of this machine that work side by side, with one thread each; 1: this one alone.",
            help_behavior_hint="(default: one a core on the CPU, else one)",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class WorkOptions(ClusterOptions):
    """Who does the work."""

    workers: Annotated[
        int,
        tyro.conf.arg(
            metavar="N", help="Processes of this machine that share the images, with one thread each; same results."
        ),
    ] = 1

    @property
    def shared(self) -> bool:
        """Whether anybody but this process does some of it; SpecError for numbers and launchers that do not go."""
        from unfool.core.errors import SpecError
        from unfool.core.processes import rank_and_world_size

        self.check(None if self.workers == 1 else self.workers)
        chosen = self.workers > 1 or self.cluster is not None
        if chosen and rank_and_world_size()[1] > 1:
            raise SpecError("torchrun has started processes already; leave --workers and --cluster out")
        return chosen
