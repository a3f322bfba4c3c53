"""Training a run in a folder of its own, where it picks up what was stopped."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from torch import nn

from unfool.core.borders.reading import is_file
from unfool.core.errors import DataError, SpecError
from unfool.core.files import folder_lock
from unfool.core.parallel.memory import keep_freed_memory
from unfool.core.progress import Progress, silent
from unfool.data.as_table import TableLike, as_table
from unfool.data.table import Table
from unfool.models.foreign import ForeignClassifier, adapt
from unfool.models.header import read_header
from unfool.training.config import RunConfig
from unfool.training.folder import (
    CHECKPOINT,
    WEIGHTS,
    TrainedRun,
    check_table,
    claim_folder,
    open_run,
    table_fingerprint,
)
from unfool.training.initial_network import resolve_start
from unfool.training.running.prepared import PreparedRun
from unfool.training.running.trainer import Trainer
from unfool.training.trackers.tracker import TrackerLike, check_trackers


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
    PreparedRun(resolve_start(config), table)


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
    trainer = None
    if not is_file(weights):
        run = PreparedRun(config, table, device, classifier)
        trainer = Trainer(
            run, folder, progress=progress, checkpoint_seconds=checkpoint_seconds, track=trackers, until=until
        )
    finished = is_file(weights) and not (folder / CHECKPOINT).exists()
    paused = False
    if trainer is not None and not trainer.run.first:
        paused = not trainer.finish()
    else:
        # A finished run is only read, by as many as want it at once.
        with nullcontext() if finished else folder_lock(folder):
            claim_folder(folder, config)
            if trainer is not None and not is_file(weights):
                paused = not trainer.finish()
            if not paused:
                check_table(folder, read_header(weights).metadata.get("table"), table_fingerprint(table))
                # A run killed between its last two acts leaves this behind.
                shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
    if trainer is not None:
        trainer.run.accelerator.wait_for_everyone()
    return not paused
