# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""A run: trains its stages one after the other in a folder of its own, and picks up where it was stopped."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from unfool.core.borders.reading import is_file
from unfool.core.errors import DataError, NonFiniteError, SpecError
from unfool.core.files import folder_lock
from unfool.core.parallel.memory import keep_freed_memory
from unfool.core.processes import joint_batch, summed
from unfool.core.progress import Progress, silent
from unfool.core.streams import Streams
from unfool.data.as_table import TableLike, as_table
from unfool.data.table import Table
from unfool.models.foreign import ForeignClassifier, adapt
from unfool.models.foreign_network import ForeignNetwork, save_own_weights
from unfool.models.header import read_header
from unfool.models.modes import random_layers
from unfool.models.weights import save_network
from unfool.training.checkpoint import RunState, read_checkpoint, restore, save_checkpoint
from unfool.training.config import RunConfig, label_columns
from unfool.training.folder import (
    CHECKPOINT,
    METRICS,
    OWN_WEIGHTS,
    WEIGHTS,
    TrainedRun,
    check_table,
    claim_folder,
    open_run,
    table_fingerprint,
)
from unfool.training.initial_network import check_outputs, initial_network, resolve_start
from unfool.training.metrics import Metrics
from unfool.training.processes import joint_means, make_accelerator, share_of, training_device, warn_of_scripts
from unfool.training.schedule import StageClock, learning_rate, make_optimizer, stage_length
from unfool.training.selection.early_stopping import COLUMNS, classifier_column
from unfool.training.selection.held_out import cut_held_out
from unfool.training.selection.weight_selection import WeightSelection
from unfool.training.stage import Stage
from unfool.training.task_optimizers import TaskOptimizers
from unfool.training.trackers.tracked_run import TrackedRun
from unfool.training.trackers.tracker import RunTracker, Tracker, TrackerLike, check_trackers

LOG_EVERY = 10
"""Steps between two lines of metrics.csv."""


def train(
    config: RunConfig,
    table: TableLike,
    folder: str | Path,
    *,
    model: nn.Module | None = None,
    device: str = "cpu",
    progress: Progress = silent,
    checkpoint_seconds: float = 30.0,
    track: Sequence[TrackerLike] = (),
) -> TrainedRun:
    """Train a run in its folder, or finish one that was stopped there; a finished run is only opened.

    The result is a function of the configuration and the table, unless a stage is limited to ``minutes``: killing and
    resuming changes no bit of the CPU's weights or log (same machine, same number of threads). Several processes that a
    launcher started train it together, to the same weights up to rounding (see `training.processes`).

    Args:
        config: What to train, and how.
        table: The training images; a `Table`, or what `as_table` makes one of.
        folder: The run's folder, with ``config.yaml``, ``metrics.csv``, ``checkpoint/`` while it runs, and
            ``weights.safetensors`` when it is done.
        model: A classifier of another library to train in place of a trunk: a module, or what `adapt` wraps one in.
            It is copied and stays as it is. Its trained weights are also written as ``model.safetensors``, under its
            own names.
        device: A device of torch, such as "cpu" or "cuda".
        progress: Called after each step with the stage, the steps done, the steps in all and the loss.
        checkpoint_seconds: Time between two checkpoints; so many times as long if writing one takes some seconds.
        track: Experiment trackers that get the log too: names such as "tensorboard", `Tracker`, or an accelerate
            ``GeneralTracker`` of your own. A finished run sends nothing.

    Returns:
        The finished run.

    Raises:
        OutputError: The folder is in use, cannot be written, or belongs to another configuration or table.
        NonFiniteError: A loss or gradient that is not finite.
        DataError: A table that is empty, too small to hold images out, or not the configuration's.
        DeviceError: A device that this machine lacks, or a batch that the processes cannot share.
        SpecError: No configuration, tasks that do not fit the data or their settings, or a tracker whose package is
            missing.
        WeightsError: A ``start`` that cannot be read. This one and the three before are raised before anything is
            written.

    Example:
        >>> images, labels = torch.rand(16, 3, 16, 16), [0, 1] * 8
        >>> stage = StageConfig(tasks={"labels": TaskConfig(task="labels")}, steps=2, batch_size=8)
        >>> config = RunConfig(data="noise", stages=(stage,), trunk="convnet:widths=4-8-8")
        >>> run = train(config, (images, labels), "noise-run")
        >>> run.network(images).shape
        torch.Size([16, 2])
    """
    if not isinstance(config, RunConfig):  # pyright: ignore[reportUnnecessaryIsInstance] - callers need not be typed
        raise SpecError(f"config is a {type(config).__name__}; give a RunConfig first, and a classifier as model=")
    classifier = model if isinstance(model, ForeignClassifier) or model is None else adapt(model)
    _train(config, table, Path(folder), classifier, device, progress, checkpoint_seconds, track)
    return open_run(folder, classifier)


def train_until(
    steps: int,
    config: RunConfig,
    table: TableLike,
    folder: str | Path,
    *,
    device: str = "cpu",
    progress: Progress = silent,
    checkpoint_seconds: float = 30.0,
) -> bool:
    """Train a run up to ``steps`` steps of all its stages together; False where it pauses there, its checkpoint kept.

    It goes on from there, by this or by `train`, to the weights of a run that never paused. One that ends earlier is
    finished; at the end of a stage it goes one step into the next. Stages limited to ``minutes`` have no number of
    steps. Raises as `train` does.
    """
    return _train(config, table, Path(folder), None, device, progress, checkpoint_seconds, (), steps)


def check_run(config: RunConfig, table: Table) -> None:
    """Raise what `train` would raise before it writes anything."""
    _Run(resolve_start(config), table, Path(), "cpu", silent, 0.0)


@keep_freed_memory()
def _train(
    config: RunConfig,
    table: TableLike,
    folder: Path,
    classifier: ForeignClassifier | None,
    device: str,
    progress: Progress,
    checkpoint_seconds: float,
    track: Sequence[TrackerLike],
    until: int | None = None,
) -> bool:
    """Train a run, at most ``until`` some step; whether it is finished."""
    trackers, weights = check_trackers(track), folder / WEIGHTS
    table = as_table(table, split="train", name=config.data)
    config = resolve_start(config, classifier)
    if table.name != config.data:
        raise DataError(f"the configuration names the data {config.data!r}, the table is {table.name!r}; give one set")
    run = None
    if not is_file(weights):
        run = _Run(config, table, folder, device, progress, checkpoint_seconds, classifier, trackers)
        run.until = until
    finished = is_file(weights) and not (folder / CHECKPOINT).exists()
    paused = False
    if run is not None and not run.first:
        paused = not run.finish()
    else:
        # A finished run is only read, by as many as want it at once.
        with nullcontext() if finished else folder_lock(folder):
            claim_folder(folder, config)
            if run is not None and not is_file(weights):
                paused = not run.finish()
            if not paused:
                check_table(folder, read_header(weights).metadata.get("table"), table_fingerprint(table))
                # A run killed between its last two acts leaves this behind.
                shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
    if run is not None:
        run.accelerator.wait_for_everyone()
    return not paused


def _first_images(table: Table) -> Tensor:
    """A few images, which a classifier of another library is run on to learn its sizes."""
    return table.batch(torch.arange(min(2, len(table)))).images


class _Run:
    """A run at work in this process, from the checkpoint on if there is one."""

    def __init__(
        self,
        config: RunConfig,
        table: Table,
        folder: Path,
        device: str,
        progress: Progress,
        checkpoint_seconds: float,
        classifier: ForeignClassifier | None = None,
        track: Sequence[Tracker | RunTracker] = (),
    ):
        if not len(table):
            raise DataError(f"{table.name} has no images to train on; give a larger set or label fraction")
        self.device = training_device(device)
        self.accelerator = make_accelerator(self.device)
        self.number, self.processes = self.accelerator.process_index, self.accelerator.num_processes
        self.first = self.number == 0
        if self.processes > 1 and self.device.type != "cpu":
            self.device = self.accelerator.device
        self.config, self.folder, self.track = config, folder, track
        self.until: int | None = None
        self.tracked: TrackedRun | None = None
        self.progress, self.checkpoint_seconds = progress, checkpoint_seconds
        self.checkpoint = folder / CHECKPOINT / "state.safetensors"
        self.fingerprint = table_fingerprint(table)
        self.streams = Streams(config.seed)
        self.table, self.held_out = cut_held_out(config, table)
        for column in label_columns(config):
            table.labels(column)  # says which columns there are, where this is none of them
        classes = {column: len(names) for column, names in table.classes.items()}
        self.network = initial_network(
            config, self.streams, classifier, _first_images(table) if classifier is not None else None
        )
        # Heads of all stages exist from the start, so that the order of stages changes no initial weight.
        self.stages = [Stage(item, self.network, classes, self.streams) for item in config.stages]
        if config.classifier in self.network.heads:
            self.network.classifier = config.classifier
        if isinstance(self.network, ForeignNetwork):
            check_outputs(self.network, table, config)
        for stage in self.stages:
            size = min(stage.config.batch_size, len(self.table))
            stage.check_batch(size)
            share_of(size, self.processes)
            if stage.config.held_out:
                classifier_column(stage)
        warn_of_scripts(self.network, self.processes)
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def finish(self) -> bool:
        """Train what is left of the stages, and write the weights; False where the run pauses before."""
        # All read the same checkpoint: the first may still be writing it for a run that the others know has stopped.
        self.accelerator.wait_for_everyone()
        saved = read_checkpoint(self.checkpoint) if self.checkpoint.is_file() else None
        if saved is not None:
            check_table(self.folder, saved.table, self.fingerprint)
        state = saved.run_state if saved is not None else RunState()
        started = time.process_time() - state.cpu_seconds / self.processes
        metrics = Metrics(self.folder / METRICS, self._columns(), state.lines) if self.first else None
        if metrics is not None:
            self.tracked = TrackedRun(self.track, self.config, self.folder, metrics.rows() if self.track else [])
        try:
            for index in range(state.stage, len(self.stages)):
                if self._reached(index, state.step):
                    return False
                stage = self.stages[index].to(self.device)
                stage.choose_trainable()
                optimizer = make_optimizer(stage.config, stage.ungrouped())
                task_optimizers = TaskOptimizers(stage)
                # The others need no copy of the best weights: the next stage begins with the first process's.
                selection = WeightSelection(stage, self.held_out if self.first else None, self.streams, self.device)
                if saved is not None:
                    restore(saved, stage, [optimizer, *task_optimizers.optimizers.values()], selection.state())
                    saved = None
                if not self._stage(index, stage, optimizer, task_optimizers, selection, state, metrics, started):
                    return False
                selection.finish()
                state.stage, state.step, state.stage_seconds = index + 1, 0, 0.0
        finally:
            if self.tracked is not None:
                self.tracked.finish()
        with joint_batch():
            seconds = summed(torch.tensor(time.process_time() - started, device=self.device))
        cost = {"cpu_seconds": float(seconds), "model_images": state.model_images}
        self.network.requires_grad_(True)
        metadata = {**cost, "table": self.fingerprint}
        if self.first:
            network = self.network.to("cpu").eval()
            if isinstance(network, ForeignNetwork):
                save_own_weights(network, self.folder / OWN_WEIGHTS)
            save_network(network, self.folder / WEIGHTS, metadata)
        return True

    def _columns(self) -> list[str]:
        """The columns of metrics.csv."""
        names = list(dict.fromkeys(name for stage in self.stages for name in stage.tasks))
        groups = list(dict.fromkeys(name for stage in self.stages for name in stage.groups()))
        fixed = ["stage", "step", "epoch", "images_seen", "learning_rate", "loss"]
        held_out = COLUMNS if self.held_out is not None else ()
        losses = [f"loss/{name}" for name in (*names, *groups)]
        return fixed + losses + [f"accuracy/{name}" for name in names] + list(held_out)

    def _stage(
        self,
        index: int,
        stage: Stage,
        optimizer: torch.optim.Optimizer,
        task_optimizers: TaskOptimizers,
        selection: WeightSelection,
        state: RunState,
        metrics: Metrics | None,
        started: float,
    ) -> bool:
        """Train what is left of a stage; False where the run pauses in it. ``started`` is the process time at which the
        run would have begun."""
        config = stage.config
        size = min(config.batch_size, len(self.table))
        share = share_of(size, self.processes)
        length, per_epoch = stage_length(config, len(self.table))
        clock = StageClock(config, length, state.stage_seconds, self.device)
        wrapped, prepared = self.accelerator.prepare(stage, optimizer)
        stage.train()
        streams = self.streams.named(f"stage {index}")
        layers = streams.named(f"random layers of process {self.number}")
        words = f"stage {index + 1}/{len(self.stages)}: {' + '.join(stage.tasks)}"
        counted = state.model_images - stage.model_images
        order, last_saved, pause = torch.empty(0, dtype=torch.int64), time.monotonic(), self.checkpoint_seconds
        for step in range(state.step, clock.steps):
            steps = clock.steps_in_all(step)
            epoch, batch_number = divmod(step, per_epoch)
            if batch_number == 0 or not len(order):
                order = torch.argsort(streams.named("order").at(epoch).bits(self.table.ids), stable=True)
            own = batch_number * size + self.number * share
            batch = self.table.batch(order[own : own + share], self.device)
            rate = learning_rate(config, step, steps, per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = rate
            stage.at(step / steps)
            try:
                with joint_batch(), random_layers(layers.at(step)):
                    losses, scores = wrapped(batch, streams.at(epoch))
                    total = stage.total(losses)
                    named = {f"loss/{name}": values for name, values in losses.items()}
                    means = joint_means({"loss": total, **named, **scores})
                self._backward(stage, prepared, total, means, step)
            finally:
                stage.weight_perturbation.undo()
            prepared.step()
            with joint_batch():
                means |= task_optimizers.step(rate, step)
            selection.after_step(step)
            last = step + 1 == steps
            figures = selection.after_epoch(epoch + 1) if batch_number + 1 == per_epoch or last else {}
            state.model_images = counted + stage.model_images
            if metrics is not None and (step % LOG_EVERY == 0 or last or figures):
                row = {"stage": index, "step": step + 1, "epoch": (step + 1) / per_epoch}
                row |= {"images_seen": (step + 1) * size, "learning_rate": rate}
                row |= {name: float(value) for name, value in means.items()} | figures
                metrics.add(row)
                if self.tracked is not None:
                    self.tracked.log(row, state.model_images, time.process_time() - started)
            pausing = not last and self._reached(index, step + 1)
            if metrics is not None and not last and (pausing or time.monotonic() - last_saved >= pause):
                saving = time.monotonic()
                state.step, state.lines, state.stage_seconds = step + 1, metrics.lines, clock.seconds
                # What the other processes have spent is added at the end; until then each counts as the first one.
                state.cpu_seconds = (time.process_time() - started) * self.processes
                metrics.sync()
                optimizers = [optimizer, *task_optimizers.optimizers.values()]
                save_checkpoint(self.checkpoint, stage, optimizers, state, self.fingerprint, selection.state())
                last_saved = time.monotonic()
                # Those of large networks take seconds, and may not take the time that is there for training.
                pause = self.checkpoint_seconds * max(1.0, last_saved - saving)
            self.progress(words, step + 1, steps, f"loss {float(means['loss']):.3f}")
            if last or pausing:
                return last
        return True

    def _reached(self, index: int, step: int) -> bool:
        """Whether the run pauses before that step of a stage; never before its first, of which no checkpoint tells."""
        if self.until is None or not step:
            return False
        lengths = [stage_length(stage, len(self.table))[0] for stage in self.config.stages[:index]]
        return sum(lengths) + step >= self.until

    def _backward(
        self,
        stage: Stage,
        optimizer: torch.optim.Optimizer,
        total: Tensor,
        means: dict[str, Tensor],
        step: int,
    ) -> None:
        """The gradients of a step, unless the loss or they are not finite: then the weights stay as they are."""
        if not torch.isfinite(means["loss"]):
            bad = [name for name in stage.tasks if not torch.isfinite(means[f"loss/{name}"])]
            raise NonFiniteError(
                f"the loss of {', '.join(bad) or 'the stage'} is not finite at step {step + 1}; "
                "lower the learning rate or raise the temperature (the weights of the last checkpoint are intact)"
            )
        optimizer.zero_grad()
        self.accelerator.backward(total)
        gradients = [parameter.grad for parameter in stage.parameters() if parameter.grad is not None]
        if not torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
            raise NonFiniteError(
                f"the gradient is not finite at step {step + 1}; lower the learning rate "
                "(the weights of the last checkpoint are intact)"
            )
