"""What a command works on, opened from what the user wrote: a device, a network, its images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from unfool.cli.options.from_settings import explicit
from unfool.cli.options.shared import DataOptions, ModelOptions, OutsideOptions
from unfool.cli.parsing.images import ReadingOptions, by_label_sets, open_images
from unfool.core.borders.reading import is_file
from unfool.core.errors import DeviceError, SpecError
from unfool.core.streams import Streams
from unfool.data.classes.class_map import by_outputs
from unfool.data.decode import Framing
from unfool.data.table import Table
from unfool.evaluation.identity import one_identity
from unfool.models.foreign import ForeignClassifier, load_classifier
from unfool.models.foreign_network import ForeignNetwork
from unfool.models.look import check_classifier
from unfool.models.outside.preparation import Adaptation
from unfool.models.weights import load_network
from unfool.tasks import make_task
from unfool.training import RunConfig, open_run
from unfool.training.config import read_config
from unfool.training.folder import CONFIG, OWN_WEIGHTS, WEIGHTS


def choose_device(word: str) -> str:
    """``auto``, ``cpu`` or ``cuda`` as the device to use; DeviceError for a GPU that is not there."""
    if word == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device cuda was asked for, but PyTorch finds no CUDA GPU here; use --device cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if word == "auto" else word


LOOKED_AT = 8
"""Images that a foreign classifier is looked at with before it is believed."""


@dataclass(frozen=True, kw_only=True)
class OpenedSystem:
    """A classifier on its device, under the name that the user gave it; ``config`` is its run's, if it has one.

    A ``foreign`` one is unknown, and left in the mode it came in until `check` has looked at it. ``classes`` names the
    outputs; those of a ``multi_label`` one are labels by themselves.
    """

    name: str
    network: nn.Module
    config: RunConfig | None
    foreign: bool = False
    classes: Path | None = None
    multi_label: bool = False

    def images(self, options: DataOptions, batch_size: int | None = None) -> tuple[Table, str | None]:
        """Test images of a set (default: the run's), drawn as the studies draw them, and the label column."""
        if options.images < 1:
            raise SpecError(f"--images {options.images} is not allowed; give at least 1")
        self._check_classifies()
        table = self.split(options, "test")
        chosen = table.sample(min(options.images, len(table)), Streams(0).named("attacked images"))
        outputs, column = self.check_on(chosen, batch_size), self._column(options)
        return self.labelled(chosen, outputs, column), column

    def splits(self, options: ReadingOptions, batch_size: int | None = None) -> tuple[Table, Table, str | None]:
        """The training and the test images of a set (default: the run's), and the label column."""
        self._check_classifies()
        train, test = (self.split(options, name) for name in ("train", "test"))
        outputs, column = self.check_on(test, batch_size), self._column(options)
        return self.labelled(train, outputs, column), self.labelled(test, outputs, column), column

    def split(self, options: ReadingOptions, name: str) -> Table:
        """One split of a set (default: the run's), its labels as the set has them."""
        columns = [options.column]
        return open_images(options, name, self.config, columns=columns, system=self.name, own_size=self.own_size)

    def _check_classifies(self) -> None:
        """Refuse a run that learnt no labels, with the command that trains a head for them."""
        if getattr(self.network, "classifier", "") is not None:
            return
        weights = self.name if self.name.endswith(".safetensors") else str(Path(self.name) / WEIGHTS)
        data = self.config.data if self.config is not None else "NAME"
        raise SpecError(
            f"{self.name} learnt no labels, so it classifies nothing; train a head for them: "
            f"unfool train --data {data} --start {weights} --trainable heads --task labels --out DIR"
        )

    def _column(self, options: ReadingOptions) -> str | None:
        """The label column that the options name, else the one that the run learnt if the set is its own."""
        if options.column or self.config is None or options.data not in (None, self.config.data):
            return options.column or None
        return _classified(self.config)

    def labelled(self, table: Table, outputs: int, column: str | None) -> Table:
        """The table with labels that are numbers of the classifier's outputs, or of the sets that it then knows."""
        network = self.network.classifier_alone if isinstance(self.network, ForeignNetwork) else self.network
        if isinstance(network, ForeignClassifier) and (self.multi_label or network.label_sets is not None):
            return by_label_sets(table, network, self.classes, column)
        return by_outputs(table, outputs, self.classes, column)

    def framing(self, options: ReadingOptions) -> Framing:
        """How images are framed, by the options or as the run's were."""
        own = self.config.size or None if self.config is not None else self.own_size
        crop = self.config.crop if self.config is not None else 1.0
        return Framing(options.size or own, crop if options.crop is None else options.crop)

    @property
    def own_size(self) -> int | None:
        """The side of the images that a foreign classifier was made for, where that is known."""
        return self.network.size if isinstance(self.network, ForeignClassifier) else None

    def check(self, images: Tensor, batch_size: int | None = None) -> int:
        """Look at what a foreign classifier makes of a few images, and count its outputs (0: not foreign).

        ``batch_size`` is one that it may be made for. Raises as `check_classifier` does.
        """
        if not self.foreign:
            return 0
        device = next((tensor.device for tensor in (*self.network.parameters(), *self.network.buffers())), None)
        with one_identity(self.network):
            outputs = check_classifier(
                self.network,
                images[:LOOKED_AT].to(device),
                [batch_size] if batch_size else (),
                multi_label=self.multi_label,
            )
        self.network.eval()
        return outputs

    def check_on(self, table: Table, batch_size: int | None = None) -> int:
        """The same on the first images of a table."""
        return self.check(table.batch(torch.arange(min(LOOKED_AT, len(table)))).images, batch_size)


def _classified(config: RunConfig) -> str | None:
    """The label column that a run's classifier was trained on last; None for the set's primary one."""
    trained = [stage.tasks[config.classifier] for stage in config.stages if config.classifier in stage.tasks]
    columns = [column for item in trained for column in make_task(item.task, item.settings).needs]
    return columns[-1] if columns else None


def open_system(options: ModelOptions, device_name: str) -> OpenedSystem:
    """Open a run folder, a weights file or a foreign model; raises as their readers do, SpecError for none or two."""
    device, path = choose_device(device_name), options.system
    if options.model is not None:
        if path is not None:
            return _run_of_another(path, options, device)
        return open_foreign(options, open_outside(options).to(device))
    if path is None:
        raise SpecError("no SYSTEM was given; give a run's folder, a weights file or --model; see the command's --help")
    for name in explicit(options, without=["system", "model", "classes"]):
        raise SpecError(f"--{name.replace('_', '-')} belongs to --model FILE.py:NAME; {path} brings its own")
    if path.suffix != ".safetensors" and not is_file(path):
        run = open_run(path)
        network, config = run.network, run.config
    else:
        network, config = load_network(path), _config_beside(path)
    return OpenedSystem(name=str(path), network=network.to(device), config=config, classes=options.classes)


def open_foreign(options: OutsideOptions, network: ForeignClassifier) -> OpenedSystem:
    """The classifier of --model as a system that nothing is known of but what the options say."""
    return OpenedSystem(
        name=options.model or "",
        network=network,
        config=None,
        foreign=True,
        classes=options.classes,
        multi_label=options.multi_label,
    )


def open_outside(options: OutsideOptions) -> ForeignClassifier:
    """The classifier that --model names, with what the options beside it say."""
    return load_classifier(
        options.model or "",
        options.weights,
        adaptation=Adaptation(
            mean=options.mean,
            std=options.std,
            features=options.features,
            output=options.output,
            scale=options.scale if options.scale is not None else 1.0,
            layout=options.layout or "nchw",
        ),
        key=options.key,
        prefix=options.prefix,
    )


def _run_of_another(path: Path, options: ModelOptions, device: str) -> OpenedSystem:
    """The run that trained the classifier of --model; SpecError for a run that trained something else."""
    if path.suffix == ".safetensors" or not is_file(path / CONFIG):
        raise SpecError(f"two systems were given, {path} and --model {options.model}; give one of them")
    config = read_config(path / CONFIG)
    if config.model is None:
        raise SpecError(f"{path} trained a network of unfool's own, not a --model; leave --model out")
    if options.weights is not None:
        raise SpecError(f"{path} holds the weights of its classifier; leave --weights out")
    # Its own weights from the start: those of a hub are not fetched, and lazy layers get theirs.
    own = path / OWN_WEIGHTS
    run = open_run(path, open_outside(replace(options, weights=own if is_file(own) else None)))
    return OpenedSystem(name=str(path), network=run.network.to(device), config=run.config, classes=options.classes)


def _config_beside(path: Path) -> RunConfig | None:
    """The configuration of the run whose weights file this is; None for a file that lies elsewhere."""
    beside = path.with_name(CONFIG)
    return read_config(beside) if path.name == WEIGHTS and is_file(beside) else None
