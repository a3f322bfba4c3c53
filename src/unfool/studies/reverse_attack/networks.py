"""Networks of system B that are not trained: one of published weights, and a classifier that is used wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from unfool.models.misuse import misused
from unfool.models.published import read_published
from unfool.models.weights import load_network, save_network
from unfool.studies import framework as fw
from unfool.training import TrainedRun
from unfool.training.folder import WEIGHTS


@dataclass(frozen=True, kw_only=True, eq=False)
class PublishedWeights(fw.NetworkSpec):
    """A classifier from a ``file`` of weights: in a published layout, or as unfool writes them."""

    file: str
    trained: bool = False

    def exists(self, work: fw.Workspace) -> bool | None:
        return (self.folder(work) / WEIGHTS).is_file()

    def make(self, work: fw.Workspace) -> TrainedRun:
        path = self.folder(work) / WEIGHTS
        if not path.is_file():
            save_network(read_published(self.file), path)
        network, config = load_network(path), self.run_config(work)
        return TrainedRun(folder=path.parent, config=config, network=network, cpu_seconds=0.0, model_images=0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Misused(fw.NetworkSpec):
    """The network ``right``, used wrongly: one of `MISUSES`, which its rows name as their ``cause``."""

    right: fw.NetworkSpec
    trained: bool = False

    @classmethod
    def of(cls, right: fw.NetworkSpec, cause: str) -> Misused:
        """The network used wrongly in this way."""
        return cls(key={**right.key, "cause": cause}, config=right.config, right=right)

    def needs(self) -> Sequence[fw.Piece]:
        return (self.right,)

    def make(self, work: fw.Workspace) -> TrainedRun:
        run = work.get(self.right)
        network = misused(run.network, str(self.key["cause"])).to(work.device)
        return replace(run, network=network, cpu_seconds=0.0, model_images=0)
