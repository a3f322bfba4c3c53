# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""One stage of a run at work: its optimizers and its clock, and what a step of it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.core.batch import Batch
from unfool.core.errors import NonFiniteError
from unfool.core.processes import joint_batch
from unfool.models.modes import random_layers
from unfool.training.processes import joint_means, share_of
from unfool.training.running.checkpoint import Checkpoint, RunState, restore
from unfool.training.running.prepared import PreparedRun
from unfool.training.running.task_optimizers import TaskOptimizers
from unfool.training.schedule import StageClock, learning_rate, make_optimizer, stage_length
from unfool.training.selection.weight_selection import WeightSelection


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """What a step came to: its rate, the mean losses and accuracies of its batch, and ``figures`` of held-out images
    where an epoch ended."""

    rate: float
    means: Mapping[str, Tensor]
    figures: Mapping[str, float]

    @property
    def loss(self) -> float:
        """The mean loss of the batch."""
        return float(self.means["loss"])


class StageTraining:
    """The training of one stage, from ``state`` on, which says how far the run is and is kept up to date.

    ``saved`` is the checkpoint that the stage goes on from; None for one that begins.
    """

    def __init__(self, run: PreparedRun, state: RunState, saved: Checkpoint | None):
        self.run, self.state = run, state
        self.stage = run.stages[state.stage].to(run.device)
        self.stage.choose_trainable()
        config = self.stage.config
        self.optimizer = make_optimizer(config, self.stage.ungrouped())
        self.task_optimizers = TaskOptimizers(self.stage)
        # The others need no copy of the best weights: the next stage begins with the first process's.
        self.selection = WeightSelection(self.stage, run.held_out if run.first else None, run.streams, run.device)
        if saved is not None:
            restore(saved, self.stage, self.optimizers, self.selection.state())
        self.size = run.batch_size(self.stage)
        length, self.per_epoch = stage_length(config, len(run.table))
        self.clock = StageClock(config, length, state.stage_seconds, run.device)
        self._joint_stage, self._joint_optimizer = run.accelerator.prepare(self.stage, self.optimizer)
        self.stage.train()
        self._streams = run.streams.named(f"stage {state.stage}")
        self._layers = self._streams.named(f"random layers of process {run.rank}")
        self._images_before = state.model_images - self.stage.model_images
        self._order = torch.empty(0, dtype=torch.int64)

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The stage's own optimizer, then those of its tasks."""
        return [self.optimizer, *self.task_optimizers.optimizers.values()]

    @property
    def model_images(self) -> int:
        """Images that went through the network since the run began."""
        return self._images_before + self.stage.model_images

    def step(self, step: int, steps: int) -> StepOutcome:
        """Make step ``step`` (counted from 0) of ``steps``; NonFiniteError before weights are touched."""
        epoch, batch_number = divmod(step, self.per_epoch)
        batch = self._batch(epoch, batch_number)
        rate = learning_rate(self.stage.config, step, steps, self.per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.stage.at(step / steps)
        try:
            with joint_batch(), random_layers(self._layers.at(step)):
                losses, scores = self._joint_stage(batch, self._streams.at(epoch))
                total = self.stage.total(losses)
                named = {f"loss/{name}": values for name, values in losses.items()}
                means = joint_means({"loss": total, **named, **scores})
            self._backward(total, means, step)
        finally:
            self.stage.weight_perturbation.undo()
        self._joint_optimizer.step()
        with joint_batch():
            means |= self.task_optimizers.step(rate, step)
        self.selection.after_step(step)
        ends_epoch = batch_number + 1 == self.per_epoch or step + 1 == steps
        figures = self.selection.after_epoch(epoch + 1) if ends_epoch else {}
        self.state.model_images = self.model_images
        return StepOutcome(rate=rate, means=means, figures=figures)

    def row(self, step: int, outcome: StepOutcome) -> dict[str, float | int]:
        """The line of the log after so many steps."""
        row = {"stage": self.state.stage, "step": step, "epoch": step / self.per_epoch}
        row |= {"images_seen": step * self.size, "learning_rate": outcome.rate}
        return row | {name: float(value) for name, value in outcome.means.items()} | dict(outcome.figures)

    def _batch(self, epoch: int, number: int) -> Batch:
        """This process's part of a batch; the order of the images is drawn anew in each epoch."""
        if number == 0 or not len(self._order):
            bits = self._streams.named("order").at(epoch).bits(self.run.table.ids)
            self._order = torch.argsort(bits, stable=True)
        share = share_of(self.size, self.run.processes)
        own = number * self.size + self.run.rank * share
        return self.run.table.batch(self._order[own : own + share], self.run.device)

    def _backward(self, total: Tensor, means: Mapping[str, Tensor], step: int) -> None:
        """The gradients of a step, unless the loss or they are not finite: then the weights stay as they are."""
        if not torch.isfinite(means["loss"]):
            bad = [name for name in self.stage.tasks if not torch.isfinite(means[f"loss/{name}"])]
            raise NonFiniteError(
                f"the loss of {', '.join(bad) or 'the stage'} is not finite at step {step + 1}; "
                "lower the learning rate or raise the temperature (the weights of the last checkpoint are intact)"
            )
        self._joint_optimizer.zero_grad()
        self.run.accelerator.backward(total)
        gradients = [parameter.grad for parameter in self.stage.parameters() if parameter.grad is not None]
        if not torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
            raise NonFiniteError(
                f"the gradient is not finite at step {step + 1}; lower the learning rate "
                "(the weights of the last checkpoint are intact)"
            )
