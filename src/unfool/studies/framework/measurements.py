"""What is measured of a network or of a defense around it: clean, attacked and corrupted images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from unfool.attacks import Attack, ProxySettings
from unfool.attacks.ensemble import attack_passes
from unfool.core.files import JsonObject
from unfool.data.corruptions import CORRUPTIONS
from unfool.evaluation import AdversarialSet, Records, classify, craft, load_set, save_set
from unfool.evaluation.corruptions import classify_corrupted, mean_corruption_accuracy
from unfool.evaluation.results.rows import Cost, Row
from unfool.studies.framework.networks import NetworkSpec, System, identity_of
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


def images_per_prediction(system: System, work: Workspace) -> int:
    """How many images one prediction of a system sends through the network."""
    return int(getattr(system.module(work), "images_per_prediction", 1))


def training_cost(network: NetworkSpec, work: Workspace) -> Cost:
    """What training a network cost, as its clean row carries it."""
    run = work.get(network)
    return Cost(cpu_seconds=round(run.cpu_seconds, 1), model_images=run.model_images)


@dataclass(frozen=True, kw_only=True)
class SystemMeasurement(Measurement):
    """What most measurements have: one JSON file below ``folder`` for one system.

    ``words`` and ``panel`` tell its rows apart and say where the page shows them; ``name`` tells measurements of one
    system apart that agree in everything else.
    """

    folder: ClassVar[str] = "records"

    system: System
    words: Mapping[str, Any] = field(default_factory=dict[str, Any])
    panel: str | None = None
    name: str = ""

    @property
    def title(self) -> str:
        """The last word of its path."""
        return type(self).__name__

    @property
    def path(self) -> str:
        return f"{self.system.path}/{path_of(self.title, self.name)}"

    def needs(self) -> Sequence[Piece]:
        return (self.system,)

    def exists(self, work: Workspace) -> bool | None:
        return work.file(self.folder, self.path).is_file()

    def measured(self, result: Any, work: Workspace) -> Iterator[Measured]:
        passes = images_per_prediction(self.system, work)
        yield Measured(row=row_of(result, self.system, self.words, self.panel, passes), records=result)


@dataclass(frozen=True, kw_only=True)
class Clean(SystemMeasurement):
    """A system on clean images; the row of a network by itself carries what training it cost.

    ``column`` names the labels (default: the table's primary ones), ``threat`` only what rows say.
    """

    images: Images
    threat: str = "linf:8/255"
    column: str | None = None

    def cost(self, work: Workspace) -> float:
        return len(self.images.table(work)) * self.system.passes

    def make(self, work: Workspace) -> Records:
        table = self.images.table(work)
        ids: list[Any] = list(table.ids.tolist())  # pyright: ignore
        evaluate = lambda: classify(self.system.module(work), table, column=self.column, threat=self.threat)  # noqa: E731
        return work.records(self.path, evaluate, lambda records: records.ids == ids)

    def measured(self, result: Records, work: Workspace) -> Iterator[Measured]:
        for item in super().measured(result, work):
            if isinstance(self.system, NetworkSpec):
                item = replace(item, row=replace(item.row, cost=training_cost(self.system, work)))
            yield item


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
    def title(self) -> str:
        """Attack, threat model, split and number of images as a word of a path."""
        counts = [count for _, count, _ in self.images.draws[-1:]]
        return path_of(
            " ".join(map(str, (self.attack.name, self.attack.threat, self.images.split, *counts, self.name)))
        )

    @property
    def path(self) -> str:
        return f"{self.network.path}/examples/{self.title}"

    def needs(self) -> Sequence[Piece]:
        return (self.network,)

    def cost(self, work: Workspace) -> float:
        return len(self.images.table(work)) * attack_passes(self.attack.parts, self.attack.averaged_passes)

    def exists(self, work: Workspace) -> bool | None:
        return (work.out / "sets" / f"{self.path}.safetensors").exists() if self.kept else None

    def make(self, work: Workspace) -> AdversarialSet:
        file, own = work.out / "sets" / f"{self.path}.safetensors", identity_of(self.network, work)
        if file.exists() and (examples := load_set(file)).crafted_on == own:
            return examples
        proxy = ProxySettings(dtype=self.precision)
        with work.bar(f"{self.attack.name} on {self.network.path}") as advance:
            table, model = self.images.table(work), self.network.module(work)
            examples = craft(
                model, table, self.attack, column=self.column, seed=self.seed, proxy=proxy, progress=advance
            )
        if self.kept:
            save_set(examples, file)
        return examples


@dataclass(frozen=True, kw_only=True)
class Attacked(SystemMeasurement):
    """A system on adversarial examples: white-box if they were crafted on it, transfer if on anything else."""

    examples: Examples

    @property
    def title(self) -> str:
        crafted_on = self.examples.network
        return f"{self.examples.title} {f'of {crafted_on.path}' if crafted_on != self.system.network else ''}"

    def needs(self) -> Sequence[Piece]:
        return (self.system, self.examples)

    def cost(self, work: Workspace) -> float:
        return len(self.examples.images.table(work)) * self.system.passes

    def make(self, work: Workspace) -> Records:
        evaluate = lambda: classify(self.system.module(work), work.get(self.examples))  # noqa: E731
        return work.records(self.path, evaluate, lambda records: records.judged_on == identity_of(self.system, work))


@dataclass(frozen=True, kw_only=True)
class Corrupted(SystemMeasurement):
    """A system under every common corruption at one severity; its row is the mean over them, at the cost of all."""

    images: Images
    severity: int = 3

    @property
    def title(self) -> str:
        return f"corrupted {self.severity}"

    def cost(self, work: Workspace) -> float:
        return len(list(CORRUPTIONS)) * len(self.images.table(work)) * self.system.passes

    def exists(self, work: Workspace) -> bool | None:
        return all(work.file("records", f"{self.path}/{kind}").is_file() for kind in CORRUPTIONS)

    def make(self, work: Workspace) -> list[Records]:
        if not self.exists(work):
            with work.bar(f"corruptions on {self.system.path}") as advance:
                table, model = self.images.table(work), self.system.module(work)
                for records in classify_corrupted(model, table, severities=[self.severity], progress=advance):
                    records.save(work.file("records", f"{self.path}/{records.settings['corruption']}"))
        return [Records.load(work.file("records", f"{self.path}/{kind}")) for kind in CORRUPTIONS]

    def measured(self, result: list[Records], work: Workspace) -> Iterator[Measured]:
        words = {"corruptions": f"mean of {len(result)}, severity {self.severity}", **self.words}
        passes = images_per_prediction(self.system, work)
        mean, low, high = (round(share, 6) for share in mean_corruption_accuracy(result))
        loss = round(sum(sum(records.losses) / records.count for records in result) / len(result), 6)
        row = row_of(result[0], self.system, words, self.panel)
        every = [row_of(records, self.system, {}, passes=passes).cost for records in result]
        cost = Cost(
            cpu_seconds=round(sum(each.cpu_seconds or 0.0 for each in every), 2),
            model_images=sum(each.model_images or 0 for each in every),
        )
        yield Measured(row=replace(row, accuracy=mean, low=low, high=high, loss=loss, cost=cost))


@dataclass(frozen=True, kw_only=True)
class Figures(SystemMeasurement):
    """Figures of a system that are kept as one JSON file, for claims and charts; a kind of them writes `measure`.

    ``folder`` is where their files lie, and ends their path. A file that lacks one of ``keys``, such as that of an
    earlier version, is made again. By default they give no rows.
    """

    keys: ClassVar[Sequence[str]] = ()

    @property
    def title(self) -> str:
        return self.folder

    def cost(self, work: Workspace) -> float:
        return len(Images(data=self.system.network.data).table(work)) * self.system.passes

    def exists(self, work: Workspace) -> bool | None:
        return work.holds(self.folder, self.path, self.keys)

    def make(self, work: Workspace) -> JsonObject:
        return work.json(self.folder, self.path, lambda: self.measure(work), self.keys)

    @abstractmethod
    def measure(self, work: Workspace) -> JsonObject:
        """The figures, as JSON takes them."""
        ...

    def measured(self, result: JsonObject, work: Workspace) -> Iterator[Measured]:
        return iter(())
