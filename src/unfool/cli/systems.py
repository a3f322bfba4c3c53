"""What a command works on, opened from what the user wrote: a device, a network, its images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from unfool.core.errors import DeviceError, SpecError
from unfool.core.streams import Streams
from unfool.data.catalog import open_table
from unfool.data.table import ImageTable
from unfool.models.network import Network
from unfool.models.weights import load_network
from unfool.tasks import make_task
from unfool.training import RunConfig, open_run


def choose_device(word: str) -> str:
    """``auto``, ``cpu`` or ``cuda`` as the device to use; DeviceError for a GPU that is not there."""
    if word == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device cuda was asked for, but PyTorch finds no CUDA GPU here; use --device cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if word == "auto" else word


@dataclass(frozen=True, kw_only=True)
class OpenedSystem:
    """A network on its device, under the name that the user gave it; ``config`` is its run's, None for a lone file."""

    name: str
    network: Network
    config: RunConfig | None

    def images(
        self, data: str | None, column: str | None, count: int, data_dir: Path | None
    ) -> tuple[ImageTable, str | None]:
        """``count`` test images of a set (default: the run's), drawn as the studies draw them, and the label column."""
        own = self.config is not None and data in (None, self.config.data)
        name = self.config.data if self.config is not None and data is None else data
        if name is None:
            raise SpecError(f"{self.name} is a lone weights file and does not say what it was trained on; give --data")
        if count < 1:
            raise SpecError(f"--images {count} is not allowed; give at least 1")
        size = (self.config.size or None) if self.config is not None else None
        table = open_table(name, "test", data_dir=data_dir, size=size)
        chosen = table.sample(min(count, len(table)), Streams(0).named("attacked images"))
        return chosen, column or (_classified(self.config) if own and self.config is not None else None)


def _classified(config: RunConfig) -> str | None:
    """The label column that a run's classifier was trained on last; None for the set's primary one."""
    trained = [stage.tasks[config.classifier] for stage in config.stages if config.classifier in stage.tasks]
    columns = [column for item in trained for column in make_task(item.task, item.settings).needs]
    return columns[-1] if columns else None


def open_system(path: Path, device: str) -> OpenedSystem:
    """Open a run folder or a weights file; raises as ``open_run`` and ``load_network`` do."""
    if path.suffix != ".safetensors" and not path.is_file():
        run = open_run(path)
        return OpenedSystem(name=str(path), network=run.network.to(device), config=run.config)
    return OpenedSystem(name=str(path), network=load_network(path).to(device), config=None)
