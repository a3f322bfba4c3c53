"""What is measured of a network or of a defense around it: clean, attacked and corrupted images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from unfool.attacks import Attack, ProxySettings
from unfool.data.corruptions import CORRUPTIONS
from unfool.evaluation import AdversarialSet, Records, craft, judge, load_set, save_set
from unfool.evaluation.corruptions import judge_corrupted, mean_corruption_accuracy
from unfool.evaluation.rows import Cost, Row
from unfool.studies.framework.networks import NetworkSpec, System, attack_passes, identity_of, images_per_prediction
from unfool.studies.framework.pieces import Images, Measured, Measurement, path_of
from unfool.studies.framework.workspace import Piece, Workspace


def row_of(
    records: Records, system: System, words: Mapping[str, Any], panel: str | None = None, passes: int = 1
) -> Row:
    """The row of records: ``words`` go over the system's own settings (None takes one away), and a prediction sends
    ``passes`` images through the network."""
    settings = {key: value for key, value in {**system.settings, **words}.items() if value is not None}
    network = system.network
    row = records.row(network.model, seed=network.seed, settings=settings, defense=system.defense)
    images = records.model_images + (passes - 1) * records.count
    return replace(row, panel=panel, cost=replace(row.cost, model_images=images))


def training_cost(network: NetworkSpec, work: Workspace) -> Cost:
    """What training a network cost, as its clean row carries it."""
    run = work.get(network)
    return Cost(cpu_seconds=round(run.cpu_seconds, 1), model_images=run.model_images)


@dataclass(frozen=True, kw_only=True)
class Clean(Measurement):
    """A system on clean images; the row of a network by itself carries what training it cost.

    ``column`` names the labels (default: the table's primary ones), ``threat`` only what rows say, ``words`` and
    ``panel`` what tells the row apart and where the page shows it; ``name`` tells measurements of one system apart.
    """

    system: System
    images: Images
    threat: str = "linf:8/255"
    column: str | None = None
    words: Mapping[str, Any] = field(default_factory=dict)
    panel: str | None = None
    name: str = ""

    @property
    def path(self) -> str:
        return f"{self.system.path}/{path_of('clean', self.name)}"

    def needs(self) -> Sequence[Piece]:
        return (self.system,)

    def cost(self, work: Workspace) -> float:
        return len(self.images.table(work)) * self.system.passes

    def exists(self, work: Workspace) -> bool | None:
        return work.file("records", self.path).is_file()

    def make(self, work: Workspace) -> Records:
        table = self.images.table(work)
        return work.records(
            self.path,
            lambda: judge(self.system.module(work), table, column=self.column, threat=self.threat),
            lambda records: records.ids == table.ids.tolist(),
        )

    def measured(self, result: Records, work: Workspace) -> Iterator[Measured]:
        passes = images_per_prediction(self.system.module(work))
        row = row_of(result, self.system, self.words, self.panel, passes)
        if self.system == self.system.network:
            row = replace(row, cost=training_cost(self.system.network, work))
        yield Measured(row=row, records=result)


@dataclass(frozen=True, kw_only=True)
class Examples(Piece):
    """Adversarial examples crafted on a network by itself.

    ``kept`` ones are stored, and other systems are measured on them; others are only made where they are needed.
    ``precision`` is that of the proxy that searches. ``name`` tells sets of one network apart that agree in attack,
    threat model and images.
    """

    network: NetworkSpec
    attack: Attack
    images: Images
    seed: int = 0
    column: str | None = None
    precision: str = "fp32"
    kept: bool = False
    name: str = ""

    @property
    def words(self) -> str:
        """Attack, threat model, split and number of images as a part of a path."""
        counts = [count for _, count, _ in self.images.draws[-1:]]
        return path_of(f"{self.attack.name} {self.attack.threat} {self.images.split}", *counts, self.name).replace(
            "/", "-"
        )

    @property
    def path(self) -> str:
        return f"{self.network.path}/examples/{self.words}"

    def needs(self) -> Sequence[Piece]:
        return (self.network,)

    def cost(self, work: Workspace) -> float:
        return len(self.images.table(work)) * attack_passes(self.attack)

    def exists(self, work: Workspace) -> bool | None:
        return (work.out / "sets" / f"{self.path}.safetensors").is_file() if self.kept else None

    def make(self, work: Workspace) -> AdversarialSet:
        file = work.out / "sets" / f"{self.path}.safetensors"
        if file.is_file():
            examples = load_set(file)
            if examples.crafted_on == identity_of(self.network, work):
                return examples
        with work.bar(f"{self.attack.name} on {self.network.path}") as advance:
            examples = craft(
                self.network.module(work),
                self.images.table(work),
                self.attack,
                column=self.column,
                seed=self.seed,
                proxy=ProxySettings(dtype=self.precision),
                progress=advance,
            )
        if self.kept:
            save_set(examples, file)
        return examples


@dataclass(frozen=True, kw_only=True)
class Attacked(Measurement):
    """A system on adversarial examples: white-box if they were crafted on it, transfer if on anything else.

    ``words``, ``panel`` and ``name`` are those of `Clean`.
    """

    system: System
    examples: Examples
    words: Mapping[str, Any] = field(default_factory=dict)
    panel: str | None = None
    name: str = ""

    @property
    def path(self) -> str:
        crafted_on = self.examples.network
        origin = "" if crafted_on == self.system.network else f"of {crafted_on.path}"
        words = path_of(f"{self.examples.words} {origin}".replace("/", "-"), self.name)
        return f"{self.system.path}/{words}"

    def needs(self) -> Sequence[Piece]:
        return (self.system, self.examples)

    def cost(self, work: Workspace) -> float:
        return len(self.examples.images.table(work)) * self.system.passes

    def exists(self, work: Workspace) -> bool | None:
        return work.file("records", self.path).is_file()

    def make(self, work: Workspace) -> Records:
        # Weights that were trained again are another system: what is known of the old ones says nothing of them.
        return work.records(
            self.path,
            lambda: judge(self.system.module(work), work.get(self.examples)),
            lambda records: records.judged_on == identity_of(self.system, work),
        )

    def measured(self, result: Records, work: Workspace) -> Iterator[Measured]:
        passes = images_per_prediction(self.system.module(work))
        yield Measured(row=row_of(result, self.system, self.words, self.panel, passes), records=result)


@dataclass(frozen=True, kw_only=True)
class Corrupted(Measurement):
    """A system under every common corruption at one severity; its row is the mean over them."""

    system: System
    images: Images
    severity: int = 3
    words: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"{self.system.path}/corrupted/{self.severity}"

    def needs(self) -> Sequence[Piece]:
        return (self.system,)

    def cost(self, work: Workspace) -> float:
        return len(list(CORRUPTIONS)) * len(self.images.table(work)) * self.system.passes

    def exists(self, work: Workspace) -> bool | None:
        return all(work.file("records", f"{self.path}/{kind}").is_file() for kind in CORRUPTIONS)

    def make(self, work: Workspace) -> list[Records]:
        files = [work.file("records", f"{self.path}/{kind}") for kind in CORRUPTIONS]
        if not self.exists(work):
            with work.bar(f"corruptions on {self.system.path}") as advance:
                every = judge_corrupted(
                    self.system.module(work),
                    self.images.table(work),
                    severities=[self.severity],
                    progress=advance,
                )
            for records in every:
                records.save(work.file("records", f"{self.path}/{records.settings['corruption']}"))
        return [Records.load(file) for file in files]

    def measured(self, result: list[Records], work: Workspace) -> Iterator[Measured]:
        words = {"corruptions": f"mean of {len(result)}, severity {self.severity}", **self.words}
        row = row_of(result[0], self.system, words)
        mean, low, high = (round(share, 6) for share in mean_corruption_accuracy(result))
        loss = round(sum(sum(records.losses) / records.count for records in result) / len(result), 6)
        yield Measured(row=replace(row, accuracy=mean, low=low, high=high, loss=loss))


@dataclass(frozen=True, kw_only=True)
class Figures(Measurement):
    """Figures of a system that are kept as one JSON file, for claims and charts; a kind of them writes `measure`.

    ``folder`` is where their files lie, and ends their path.
    """

    folder: ClassVar[str]

    system: System

    @property
    def path(self) -> str:
        return f"{self.system.path}/{self.folder}"

    def needs(self) -> Sequence[Piece]:
        return (self.system,)

    def cost(self, work: Workspace) -> float:
        return len(Images(data=self.system.network.data).table(work)) * self.system.passes

    def exists(self, work: Workspace) -> bool | None:
        return work.file(self.folder, self.path).is_file()

    def make(self, work: Workspace) -> dict[str, Any]:
        return work.json(self.folder, self.path, lambda: self.measure(work))

    @abstractmethod
    def measure(self, work: Workspace) -> dict[str, Any]:
        """The figures, as JSON takes them."""
        ...

    def measured(self, result: dict[str, Any], work: Workspace) -> Iterator[Measured]:
        """No rows by default."""
        return iter(())
