"""One ladder as it is run: what the rungs share, and what each of them leaves."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from unfool.attacks import Attack, ProxySettings
from unfool.core.borders.checksum import checksum
from unfool.core.borders.reading import is_file
from unfool.core.errors import DataError
from unfool.core.processes import rank_and_world_size
from unfool.core.progress import Progress, renamed, silent
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.table import Table
from unfool.defenses import Defense, WholeModel, as_defense
from unfool.defenses.backward import AfterPurification
from unfool.evaluation.adaptive.settings import LadderSettings
from unfool.evaluation.classify import classify
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.batches import BATCH_SIZE, device_of
from unfool.evaluation.crafting.craft import craft
from unfool.evaluation.crafting.sharded_images import ImagesInChunks
from unfool.evaluation.identity import identity
from unfool.evaluation.records import Records
from unfool.evaluation.reliability.blocked_gradients import MOST_IMAGES, probed
from unfool.evaluation.reliability.over_draws import DRAWS, RecordsOverDraws, over_draws
from unfool.evaluation.results.rows import is_unverified
from unfool.evaluation.results.versions import versions
from unfool.models.surrogates.inner import inner_classifiers
from unfool.models.surrogates.pinned import draws_at_random
from unfool.models.surrogates.probing import Probe

_FIRST = "a"
"""The rung in whose folder the records of clean images lie."""


class WarmStarts:
    """The examples of an adversarial set, looked up by the ids of their images; those must be in it."""

    def __init__(self, examples: AdversarialSet):
        self.examples = examples
        self.order = examples.ids.argsort()
        self.ids = examples.ids[self.order]
        images = ImagesInChunks(examples.images.shape, lambda rows: examples.read(self.order[rows]))
        self.checksum = checksum({"attack": examples.attack}, {"ids": self.ids, "images": images})

    def of(self, ids: Tensor, images: Tensor) -> Tensor:
        """The examples of ``ids`` (n,) on the device of ``images``, and of their dtype."""
        return self.examples.read(self.order[torch.searchsorted(self.ids, ids.cpu())]).to(images)


class LadderRun:
    """What the rungs of one ladder share.

    ``defense`` is the deployed system, ``declared`` the same with what it declares, ``network`` the classifier inside;
    ``attack`` is the static one, ``images`` the number of images by rung. ``sets`` are the examples by rung.
    """

    def __init__(
        self,
        defense: nn.Module,
        table: Table,
        attack: Attack,
        settings: LadderSettings,
        images: Mapping[str, int],
        column: str | None = None,
        folder: str | Path | None = None,
        progress: Progress = silent,
    ):
        self.defense = defense
        self._few = table.batch(torch.arange(min(MOST_IMAGES, len(table))), device_of(defense))
        self.declared = _declared(defense, self._few.images)
        self.network = self.declared.classifier
        self.table = table
        self.attack = attack
        self.threat: ThreatModel = attack.threat
        self.settings = settings
        self.images = images
        self.column = column
        self.folder = Path(folder) if folder is not None else None
        self.progress = progress
        self.sets: dict[str, AdversarialSet] = {}
        self._starts: WarmStarts | None = None
        self._right: dict[nn.Module, dict[int, bool]] = {}

    @cached_property
    def random(self) -> bool:
        """Whether the deployed system draws at random; a `Defense` whose draws follow from its images does not."""
        return draws_at_random(self.defense, self._few.images)

    @cached_property
    def random_network(self) -> bool:
        """Whether the network inside draws at random."""
        return self.random if self.network is self.defense else draws_at_random(self.network, self._few.images)

    @cached_property
    def blocked(self) -> Probe:
        """The parts of the deployed system that block its gradient; of a defense those behind its purification."""
        model, images = self.defense, self._few.images
        if not isinstance(self.declared, WholeModel):
            model = AfterPurification(self.declared)
            with torch.no_grad():
                images = self.declared.purified_images(images)[: len(images)].detach()
        return probed(model, images, self.threat, Streams(self.settings.seed).named("blocked"))

    @property
    def starts(self) -> WarmStarts:
        """The examples of the static attack; DataError before there are any."""
        if self._starts is None:
            raise DataError("the static attack has not been run; run it before the rungs that start from its examples")
        return self._starts

    def part(self, key: str) -> Table:
        """The images of a rung; smaller draws lie inside larger ones."""
        count = self.images.get(key, len(self.table))
        return self.table.sample(count, Streams(self.settings.seed).named("ladder images"))

    def craft(self, key: str, model: nn.Module, attack: Attack, proxy: ProxySettings | None = None) -> AdversarialSet:
        """The examples of a rung, crafted on a model; with a folder, those that it holds."""
        table, right = self.part(key), self._right.get(model)
        self.sets[key] = craft(
            model,
            table,
            attack,
            column=self.column,
            seed=self.settings.seed,
            proxy=proxy,
            batch_size=self.settings.batch_size,
            folder=self.folder / key if self.folder is not None else None,
            right=None if right is None else [right[int(number)] for number in table.ids],
            progress=renamed(self.progress, f"({key}) {attack.name}"),
        )
        return self.sets[key]

    def start_from(self, examples: AdversarialSet) -> None:
        """Let the rungs to come start from these examples."""
        self._starts = WarmStarts(examples)

    def evaluate(self, on: AdversarialSet | Table) -> Records:
        """The deployed defense on images, counted in images through a network; a random one over several draws."""
        records = self.evaluate_on(self.defense, on)
        times = 1 + records.draws if isinstance(records, RecordsOverDraws) else 1
        more = (self.declared.images_per_prediction - 1) * len(on) * times
        return dataclasses.replace(records, model_images=records.model_images + more)

    def evaluate_on(self, model: nn.Module, on: AdversarialSet | Table) -> Records:
        """The deployed system or the network inside on images, a random one over several draws.

        With a folder, these are the records that it holds.
        """
        records = self._records(model, on)
        if isinstance(on, Table) and isinstance(records, RecordsOverDraws):
            # An image that is wrong in one draw by luck is still to be fooled.
            pairs = zip(records.ids, records.right, strict=True)
            self._right[model] = {number: count > 0 for number, count in pairs}
        return records

    def _records(self, model: nn.Module, on: AdversarialSet | Table) -> Records:
        kept = self.folder is not None and not is_unverified(identity(model))
        file = self._file_of(model, on) if kept else None
        # Several processes share the images among them: none can leave the others.
        if file is not None and rank_and_world_size()[1] == 1:
            if not is_file(file):
                self._classified(model, on).save(file)
            return Records.load(file)
        return self._classified(model, on)

    def _draws(self, model: nn.Module) -> bool:
        """Whether the deployed system, or the network inside, draws at random."""
        return self.random if model is self.defense else self.random_network

    def _classified(self, model: nn.Module, on: AdversarialSet | Table) -> Records:
        """A model's records on images, those of a random one over several draws."""
        size = self.settings.batch_size or BATCH_SIZE
        records = classify(model, on, column=self.column, threat=str(self.threat), batch_size=size)
        if not self._draws(model):
            return records
        started = time.process_time()
        judged = over_draws(model, on, column=self.column, seed=self.settings.seed, batch_size=size)
        return RecordsOverDraws.of(
            records,
            judged,
            cpu_seconds=records.cpu_seconds + time.process_time() - started,
            model_images=records.model_images + judged.draws * len(on),
        )

    def _file_of(self, model: nn.Module, on: AdversarialSet | Table) -> Path | None:
        """Where the records of a model on images are kept, in the folder of the rung, by all that they follow from."""
        key = next((key for key, examples in self.sets.items() if examples is on), _FIRST)

        def read(rows: Tensor) -> Tensor:
            return on.read(rows) if isinstance(on, AdversarialSet) else on.batch(rows).images

        shape = on.images.shape if isinstance(on, AdversarialSet) else torch.Size((len(on), *on.shape))
        labels = on.labels if isinstance(on, AdversarialSet) else on.labels(self.column)
        drawn = {"draws": DRAWS, "seed": self.settings.seed} if self._draws(model) else {}
        request = {"model": identity(model), "threat": str(self.threat), "size": self.settings.batch_size,
                   "versions": versions(), **drawn}  # fmt: skip
        name = checksum(request, {"images": ImagesInChunks(shape, read), "labels": labels, "ids": on.ids})
        return self.folder / key / f"records-{name}.json" if self.folder is not None else None


def _declared(system: nn.Module, images: Tensor) -> Defense:
    """A system with what it declares; of one that declares nothing, what a look at it shows."""
    if isinstance(system, Defense) or (hasattr(system, "network") and hasattr(system, "purify")):
        return as_defense(system)
    return WholeModel(system, inner_classifiers(system, images))
