"""Which weights a stage ends with: the last ones, their running average, or the best of either on held-out images."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.training.selection.averaging import Average, holding
from unfool.training.selection.early_stopping import EarlyStopping
from unfool.training.stage import Stage


class WeightSelection:
    """Selects weights step by step and epoch by epoch; with neither ``ema`` nor ``held_out`` it does nothing.

    ``held_out`` is the table cut from the training images, None if no stage holds any out.
    """

    def __init__(self, stage: Stage, held_out: Table | None, streams: Streams, device: torch.device):
        self.stage = stage
        self.average = Average(stage.network, stage.config.ema) if stage.config.ema else None
        self.stopping: EarlyStopping | None = None
        if stage.config.held_out and held_out is not None:
            self.stopping = EarlyStopping(stage, held_out, streams.named("early stopping"), device)

    def state(self) -> dict[str, Tensor]:
        """All that a checkpoint must keep, by name; the tensors themselves, to be written into on resumption."""
        parts = {"average": self.average, "stopping": self.stopping}
        return {
            f"{name}/{key}": value
            for name, part in parts.items()
            if part is not None
            for key, value in part.tensors.items()
        }

    def after_step(self, step: int) -> None:
        """Take in the weights after step ``step``, counted from 0."""
        if self.average is not None:
            self.average.update(self.stage.network, step)

    def after_epoch(self, epoch: int) -> dict[str, float]:
        """Evaluate what the stage would end with now, after ``epoch`` epochs; gives figures for the log."""
        if self.stopping is None:
            return {}
        network = self.stage.network
        with holding(network, self.average.tensors) if self.average is not None else nullcontext():
            figures, cost = self.stopping.evaluate(epoch)
        self.stage.model_images += cost
        return figures

    def finish(self) -> None:
        """Give the network the weights that the stage ends with."""
        if self.stopping is not None:
            self.stage.network.load_state_dict(self.stopping.best)
        elif self.average is not None:
            self.stage.network.load_state_dict(self.average.tensors)
