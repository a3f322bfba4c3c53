# pyright: reportUnknownMemberType=false
"""A run before it begins: its images, network and stages, and every reason why it cannot begin."""

from __future__ import annotations

import torch

from unfool.core.errors import DataError
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.models.foreign import ForeignClassifier
from unfool.models.foreign_network import ForeignNetwork
from unfool.training.config import RunConfig, label_columns
from unfool.training.folder import table_fingerprint
from unfool.training.initial_network import check_outputs, initial_network
from unfool.training.processes import make_accelerator, share_of, training_device, warn_of_scripts
from unfool.training.schedule import stage_length
from unfool.training.selection.early_stopping import COLUMNS, classifier_column
from unfool.training.selection.held_out import cut_held_out
from unfool.training.stage import Stage


class PreparedRun:
    """A run that can begin in this process; what keeps it from that is raised, and nothing is written.

    ``table`` holds the images that are trained on, ``held_out`` those that were cut from them (None if no stage holds
    any out), ``fingerprint`` tells all of them from others. ``rank`` is this process's number among the ``processes``
    that train together.
    """

    def __init__(
        self, config: RunConfig, table: Table, device: str = "cpu", classifier: ForeignClassifier | None = None
    ):
        if not len(table):
            raise DataError(f"{table.name} has no images to train on; give a larger set or label fraction")
        self.config = config
        self.device = training_device(device)
        self.accelerator = make_accelerator(self.device)
        self.rank, self.processes = self.accelerator.process_index, self.accelerator.num_processes
        if self.processes > 1 and self.device.type != "cpu":
            self.device = self.accelerator.device
        self.fingerprint = table_fingerprint(table)
        self.streams = Streams(config.seed)
        self.table, self.held_out = cut_held_out(config, table)
        for column in label_columns(config):
            table.labels(column)  # says which columns there are, where this is none of them
        # A classifier of another library is run on a few images, to learn its sizes.
        few = table.batch(torch.arange(min(2, len(table)))).images if classifier is not None else None
        self.network = initial_network(config, self.streams, classifier, few)
        # Heads of all stages exist from the start, so that the order of stages changes no initial weight.
        classes = {column: len(names) for column, names in table.classes.items()}
        self.stages = [Stage(item, self.network, classes, self.streams) for item in config.stages]
        if config.classifier in self.network.heads:
            self.network.classifier = config.classifier
        if isinstance(self.network, ForeignNetwork):
            check_outputs(self.network, table, config)
        for stage in self.stages:
            size = self.batch_size(stage)
            stage.check_batch(size)
            share_of(size, self.processes)
            if stage.config.held_out:
                classifier_column(stage)
        warn_of_scripts(self.network, self.processes)
        self.network.to(self.device, memory_format=self.network.memory_format)  # type: ignore[call-overload]

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes, and evaluates held-out images."""
        return self.rank == 0

    def batch_size(self, stage: Stage) -> int:
        """Images of a step of a stage, of all processes together."""
        return min(stage.config.batch_size, len(self.table))

    def steps_before(self, stage: int) -> int:
        """Steps of all stages before one, without those that minutes may take away."""
        return sum(stage_length(config, len(self.table))[0] for config in self.config.stages[:stage])

    def columns(self) -> list[str]:
        """The columns of metrics.csv."""
        names = list(dict.fromkeys(name for stage in self.stages for name in stage.tasks))
        groups = list(dict.fromkeys(name for stage in self.stages for name in stage.groups()))
        fixed = ["stage", "step", "epoch", "images_seen", "learning_rate", "loss"]
        held_out = COLUMNS if self.held_out is not None else ()
        losses = [f"loss/{name}" for name in (*names, *groups)]
        scores = list(dict.fromkeys(name for stage in self.stages for name in stage.score_columns()))
        return fixed + losses + scores + list(held_out)
