"""Systems of the playground, opened as the other commands open theirs."""

from __future__ import annotations

from unfool.cli.options.shared import DataOptions, ImageOptions, ModelOptions
from unfool.cli.parsing.systems import OpenedSystem, open_system
from unfool.core.errors import SpecError, UnfoolError
from unfool.data.classes.names_file import read_class_names
from unfool.data.folders import data_folder
from unfool.data.readers.parquet import hub_folders
from unfool.data.sources import SETS
from unfool.data.table import Table
from unfool.models.network import Network
from unfool.playground import PlaygroundSystem
from unfool.training import cut_held_out

_IMAGES = 200
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def playground_system(model: ModelOptions, data: ImageOptions, device: str) -> PlaygroundSystem:
    """A system to play with; its own images where the set is here already, or where --data names one.

    Raises as `open_system` does, and SpecError for a classifier whose image size nothing says.
    """
    system = open_system(model, device)
    options = DataOptions(**vars(data), images=_IMAGES)
    if not _has_images(system, options):
        side = _side(system, options)
        channels = system.network.trunk.spec.channels if isinstance(system.network, Network) else 3
        return PlaygroundSystem(
            name=system.name,
            network=system.network.eval(),
            classes=_class_names(system),
            shape=(channels, side, side),
            crop=_crop(system, options),
        )
    examples, column = system.images(options)
    train = system.split(options, "train")
    held_out = cut_held_out(system.config, train)[1] if system.config is not None else None
    return PlaygroundSystem(
        name=system.name,
        network=system.network,
        classes=examples.classes[column or examples.label_column or ""],
        shape=examples.shape,
        crop=_crop(system, options),
        examples=examples,
        column=column,
        calibration=_enough(held_out, train),
    )


def _enough(held_out: Table | None, train: Table) -> Table:
    """Images to calibrate on: the run's held-out ones, where they are enough for a bank of negatives, else train."""
    return held_out if held_out is not None and len(held_out) >= 1200 else train


def _has_images(system: OpenedSystem, options: DataOptions) -> bool:
    """Whether the set is named, or here without fetching it."""
    if options.data is not None:
        return True
    name = system.config.data if system.config is not None else None
    if name is None:
        return False
    if name in SETS and SETS[name].source.startswith("hub:"):
        return name in hub_folders(data_folder(options.data_dir))
    try:
        system.split(options, "train")
    except UnfoolError:
        return False
    return True


def _side(system: OpenedSystem, options: DataOptions) -> int:
    name = system.config.data if system.config is not None else ""
    own = system.config.size if system.config is not None else system.own_size
    side = options.size or own or (SETS[name].size if name in SETS else None)
    if not side:
        raise SpecError(f"{system.name} does not say how large its images are; give --size PIXELS, or --data")
    return side


def _crop(system: OpenedSystem, options: DataOptions) -> float:
    return options.crop if options.crop is not None else system.config.crop if system.config is not None else 1.0


def _class_names(system: OpenedSystem) -> list[str]:
    if system.classes is not None:
        return read_class_names(system.classes)
    return list(_CIFAR10) if system.config is not None and system.config.data == "cifar10" else []
