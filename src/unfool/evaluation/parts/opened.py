"""What every job of an evaluation opens: the system, its images and its attacks, once in each process."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from unfool.attacks import ProxySettings
from unfool.core.errors import UnfoolWarning, WorkerError
from unfool.core.parallel.job import Place
from unfool.core.parallel.memory import keep_freed_memory_for_good
from unfool.core.parallel.reporting import in_worker
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.evaluation.crafting.chosen_attacks import ChosenAttack
from unfool.evaluation.crafting.crafted_batches import Crafting
from unfool.evaluation.crafting.proxy import proxy_for
from unfool.evaluation.evaluate import labelled
from unfool.evaluation.identity import identity
from unfool.evaluation.results.rows import is_unverified


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A system with the images that it is evaluated on, the column of their labels, and the attacks on it."""

    model: nn.Module
    table: Table
    column: str | None
    attacks: Sequence[ChosenAttack] = ()


def ready(opened: Opened) -> Opened:
    """With labels that are numbers of the model's outputs, as `evaluate` makes them."""
    return replace(opened, table=labelled(opened.model, opened.table, None, opened.column))


class Opener(Protocol):
    """Opens a system in the place of a job, as the asker did; picklable, and equal to another that opens the same."""

    def __call__(self, place: Place) -> Opened: ...


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What jobs are about: what ``opens`` the system, its ``identity`` where that was asked, and settings."""

    opens: Opener
    identity: str
    seed: int = 0
    precision: str = "fp32"


class OpenedOnce:
    """An opened subject, with what jobs in one process share: the faster copy of its model, and its labels."""

    def __init__(self, subject: Subject, opened: Opened):
        self.model = opened.model
        self.table = opened.table
        self.column = opened.column
        self.attacks = opened.attacks
        self.labels: Tensor = opened.table.labels(opened.column)
        self.proxy: ProxySettings | None = proxy_for(opened.model, subject.precision)
        self._streams = Streams(subject.seed).named("attack")
        self._crafting: dict[int, Crafting] = {}

    def crafting(self, number: int) -> Crafting:
        """One attack on the images; which of them are right without it, the caller says."""
        if number not in self._crafting:
            self._crafting[number] = Crafting(
                self.model, self.table, self.attacks[number].attack, self.labels, self._streams, self.proxy
            )
        return self._crafting[number]


def opened_once(subject: Subject, place: Place) -> OpenedOnce:
    """The subject as this process has opened it; WorkerError where that is another system than the asker's."""
    if in_worker():
        keep_freed_memory_for_good()
    files = tuple(sorted(place.files.items()))
    return _opened(subject, files, place.data_dir, place.device)


@lru_cache(maxsize=1)
def _opened(subject: Subject, files: tuple[tuple[Path, Path], ...], data_dir: Path | None, device: str) -> OpenedOnce:
    place = Place(folder=Path(), data_dir=data_dir, device=device, files=dict(files))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfoolWarning)  # the asker has seen them
        opened = ready(subject.opens(place))
        own = identity(opened.model)
        if own != subject.identity and not is_unverified(own):
            raise WorkerError(
                f"a worker opened another system ({own}) than the one to evaluate ({subject.identity}); give "
                "weights where the model draws its own, and install the same versions of unfool, PyTorch and the "
                "model's packages on all nodes"
            )
        return OpenedOnce(subject, opened)
