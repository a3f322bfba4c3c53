"""The networks that a study trains, and the defenses around them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from unfool.core.errors import UnfoolWarning
from unfool.core.streams import Streams
from unfool.defenses import make_defense
from unfool.evaluation import identity
from unfool.studies.framework.pieces import Images, path_of
from unfool.studies.framework.workspace import Piece, Workspace
from unfool.training import RunConfig, TrainedRun, cut_held_out, train
from unfool.training.folder import METRICS, WEIGHTS
from unfool.training.initial_network import initial_network


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkSpec(Piece):
    """One network: how it is trained, on which images, and the words for it.

    ``key`` names it in ordered words: ``data``, ``model``, ``seed`` and whatever else tells networks of the study
    apart. Its path is made of them all; its rows are of that model and seed, and the other words are their settings.
    ``config`` is the run's configuration, or makes it in a workspace where it depends on what networks ``after`` cost.
    ``start`` is the network whose weights training begins with. ``images`` are what it learns from (default: the
    training set of its data). One that is not ``trained`` keeps the random weights that training would begin with.
    ``quiet`` keeps back warnings about settings that a source chose.
    """

    in_memory: ClassVar[bool] = True
    defense: ClassVar[str] = "none"
    passes: ClassVar[int] = 1

    key: Mapping[str, str | int]
    config: RunConfig | Callable[[Workspace], RunConfig]
    start: NetworkSpec | None = None
    after: tuple[NetworkSpec, ...] = ()
    images: Images | None = None
    trained: bool = True
    quiet: bool = False

    @property
    def path(self) -> str:
        return path_of(*self.key.values())

    @property
    def data(self) -> str:
        """The data set that it learns from, by its name in the catalog."""
        return self.config.data if isinstance(self.config, RunConfig) else str(self.key["data"])

    @property
    def model(self) -> str:
        """What rows call it."""
        return str(self.key["model"])

    @property
    def seed(self) -> int:
        """The training seed that rows name."""
        return int(self.key.get("seed", 0))

    @property
    def settings(self) -> dict[str, object]:
        """What tells its rows apart from those of the same model."""
        other = [word for word in self.key if word not in ("data", "model", "seed")]
        return {word: self.key[word] for word in other if self.key[word] != ""}

    @property
    def network(self) -> NetworkSpec:
        """The network itself, as that inside a defense."""
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NetworkSpec) or self.path != other.path:
            return False
        return self.config == other.config or not isinstance(self.config, RunConfig)

    def __hash__(self) -> int:
        return hash(self.path)

    def needs(self) -> Sequence[Piece]:
        return [*([self.start] if self.start is not None else []), *self.after]

    def run_config(self, work: Workspace) -> RunConfig:
        """The run's configuration, with the file that it starts from."""
        config = self.config if isinstance(self.config, RunConfig) else self.config(work)
        if self.start is None:
            return config
        return replace(config, start=str(self.start.folder(work).resolve() / WEIGHTS), trunk=None, normalisation=None)

    def learns_from(self, work: Workspace) -> Images:
        """The images of the run, held-out ones included."""
        size = self.config.size if isinstance(self.config, RunConfig) else 0
        return self.images or Images(data=self.data, split="train", size=size)

    def cost(self, work: Workspace) -> float:
        if not self.trained:
            return 0.0
        if not isinstance(self.config, RunConfig):
            # How long it trains is only known when the networks before it are there; about as long as they took.
            return sum(network.cost(work) for network in self.after)
        return self.run_config(work).model_images(len(self.learns_from(work).table(work)))

    def exists(self, work: Workspace) -> bool | None:
        return (self.folder(work) / WEIGHTS).is_file() if self.trained else None

    def make(self, work: Workspace) -> TrainedRun:
        """The finished run: trained, resumed or read; random weights cost nothing."""
        if self.start is not None:
            work.get(self.start)
        config, folder = self.run_config(work), self.folder(work)
        if self.trained:
            table = self.learns_from(work).table(work)
            with work.bar(f"train {self.path}", quiet=bool(self.exists(work))) as advance, warnings.catch_warnings():
                if self.quiet:
                    warnings.simplefilter("ignore", UnfoolWarning)
                run = train(config, table, folder, device=work.device, progress=advance)
        else:
            network = initial_network(config, Streams(config.seed))
            run = TrainedRun(folder=folder, config=config, network=network, cpu_seconds=0, model_images=0)
        run.network.to(work.device).eval()
        return run

    def module(self, work: Workspace) -> nn.Module:
        """Images in [0,1] → logits."""
        return work.get(self).network

    def folder(self, work: Workspace) -> Path:
        """The run's folder."""
        return work.out / "models" / self.path

    def metrics(self, work: Workspace) -> Path:
        """The training log."""
        return self.folder(work) / METRICS


@dataclass(frozen=True, kw_only=True)
class Defended(Piece):
    """A network behind a defense: ``kind`` is the registered name, ``words`` what rows call it, ``defense_settings``
    its settings, and ``variant`` what tells rows of several such defenses apart; ``name`` only its path.

    Its bank is filled from the run's training images; a gate (``fresh``) is set on images that the run held out.
    """

    in_memory: ClassVar[bool] = True

    network: NetworkSpec
    kind: str
    words: str
    defense_settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    variant: Mapping[str, Any] = field(default_factory=dict[str, Any])
    fresh: bool = False
    name: str = ""

    @property
    def path(self) -> str:
        return f"{self.network.path}/{path_of('behind', self.words, *self.variant.values(), self.name)}"

    @property
    def defense(self) -> str:
        """What rows call it."""
        return self.words

    @property
    def settings(self) -> dict[str, object]:
        """What tells its rows apart from those of the same model and defense."""
        return {**self.network.settings, **self.variant}

    @property
    def passes(self) -> int:
        """About how many images go through the network for one prediction."""
        values = {"steps": 10, "views": 1, **self.defense_settings}
        return 1 + int(values["steps"]) * int(values["views"])

    def needs(self) -> Sequence[Piece]:
        return (self.network,)

    def make(self, work: Workspace) -> nn.Module:
        run, values = work.get(self.network), dict(self.defense_settings)
        table, held_out = cut_held_out(run.config, self.network.learns_from(work).table(work))
        table = held_out if self.fresh and held_out is not None else table
        if self.fresh and "bank" in values:
            # Half of the held-out images are a gate's bank at most, since its threshold needs the others.
            values["bank"] = min(values["bank"], len(table) // 2)
            values["drawn"] = min(values.get("drawn", values["bank"]), values["bank"])
        classes = {column: len(names) for column, names in table.classes.items()}
        streams = Streams(0).named("defense")
        with warnings.catch_warnings():
            # That predictions depend on batch-mates is a property of some references, and told on the page.
            warnings.simplefilter("ignore", UnfoolWarning)
            return make_defense(self.kind, run.network, classes, data=table, streams=streams, settings=values)

    def module(self, work: Workspace) -> nn.Module:
        """Images in [0,1] → logits."""
        return work.get(self)


System = NetworkSpec | Defended
"""What is attacked and measured: a network by itself, or behind a defense."""


def identity_of(system: System, work: Workspace) -> str:
    """The identity of a system as results carry it."""
    return work.once(f"{system.path} identity", lambda: identity(system.module(work)))
