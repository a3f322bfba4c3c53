"""A sweep: trains the runs of a plan through an executor, stops hopeless ones early, and collects the results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from unfool.core.borders.reading import is_file
from unfool.core.config import to_plain
from unfool.core.errors import SpecError
from unfool.core.files import folder_lock
from unfool.core.parallel.executor import Executor
from unfool.core.parallel.job import OPTIMIZERS, ImageSet, Job
from unfool.core.parallel.local import LocalExecutor, workers_for
from unfool.data.as_table import TableLike, as_table
from unfool.data.folders import data_folder
from unfool.data.readers.by_path import image_sets
from unfool.data.table import Table
from unfool.training.config import RunConfig
from unfool.training.folder import check_free
from unfool.training.sweeping.halving import levels
from unfool.training.sweeping.job import RunProgress, train_job
from unfool.training.sweeping.measure import CLEAN, LOSS
from unfool.training.sweeping.plan import SweepPlan, folder_of, plan_sweep
from unfool.training.sweeping.result import FILE, SweepResult
from unfool.training.sweeping.runs import DIVERGED, FINISHED, STOPPED, SweepRun
from unfool.training.sweeping.variation import PlannedRun, Value

if TYPE_CHECKING:
    from rich.console import Console

_MOST_POINTS = 100
"""Points of a run's curve that are kept."""


def sweep(
    config: RunConfig,
    vary: Mapping[str, Iterable[object]],
    folder: str | Path,
    *,
    table: TableLike | None = None,
    metric: str | None = None,
    stop_early: int = 0,
    executor: Executor | None = None,
    data_dir: Path | None = None,
    console: Console | None = None,
) -> SweepResult:
    """Train a run for every combination of some values, and compare them on images that none of them learns from.

    Each is a run of its own below the folder, known by its configuration: a second call trains what the first one left
    unfinished, and with more values the new runs alone. Runs that differ in their seed are one setting and are judged
    together.

    With ``stop_early`` runs pause after growing shares of their steps (rungs), and of the settings on a rung the best
    one in so many goes on from its checkpoint, by the mean over all its seeds: no setting is dropped for one unlucky
    seed, and nothing is trained twice. This is successive halving; a setting goes on as soon as it is certain that it
    is among the best (see `training.sweeping.halving`), so the results depend on no order and no number of processes.

    Args:
        config: The run that is varied.
        vary: Values by field: a field's name, its full name such as ``stages.0.learning_rate``, or one with ``*`` for
            every stage or task, such as ``stages.*.learning_rate``.
        folder: The sweep's folder.
        table: The training images, as `train` takes them; the runs are then trained in this process, one after the
            other. Default: those that the configuration names, opened wherever a run is trained.
        metric: What runs are judged by: ``robust`` accuracy under the stage's ``stop_attack`` or ``clean`` accuracy, on
            the images that the run holds out, or the training ``loss``. Default: ``robust`` where a stage perturbs its
            views, else ``clean``.
        stop_early: One in so many settings goes on from each rung, such as 3; 0: all runs are finished.
        executor: What trains the runs; default: processes of this machine, one a core.
        data_dir: Where data sets lie as files.
        console: Where progress is shown; default: nowhere.

    Returns:
        The runs, also written as ``sweep.json`` into the folder.

    Raises:
        SpecError: A field that there is not or that several stages or tasks have, a value that a field does not take,
            an unknown metric, no held-out images to judge by, or runs that cannot be compared.
        DataError: Data that cannot be opened, or of which nothing is left to learn from.
        OutputError: The folder is in use, holds something else, or cannot be written.

    Example:
        >>> from unfool import sweep
        >>> stage = StageConfig(tasks={"labels": TaskConfig(task="labels")}, steps=2, batch_size=8, held_out=4)
        >>> config = RunConfig(data="noise", stages=(stage,), trunk="convnet:widths=4-8-8")
        >>> noise = as_table((torch.rand(16, 3, 16, 16), [0, 1] * 8), split="train", name="noise")
        >>> result = sweep(config, {"learning_rate": [0.01, 0.1], "seed": [0, 1]}, "noise-sweep", table=noise)
        >>> [len(setting.runs) for setting in result.settings]
        [2, 2]
    """
    if not isinstance(config, RunConfig):  # pyright: ignore[reportUnnecessaryIsInstance] - callers need not be typed
        raise SpecError(f"config is a {type(config).__name__}; give a RunConfig, such as read_config(FILE) gives")
    opened = None if table is None else as_table(table, split="train", name=config.data)
    if executor is None:
        executor = LocalExecutor(1 if opened is not None else workers_for("cpu"))
    if opened is not None and not (isinstance(executor, LocalExecutor) and executor.workers == 1):
        raise SpecError("a table stays in this process; leave executor out, or name a set of the catalog in the config")
    vary = {name: list(values) for name, values in vary.items()}
    plan = plan_sweep(config, vary, table=opened, data_dir=data_dir, metric=metric, stop_early=stop_early)
    folder = Path(folder)
    check_free(folder, "the sweep", own=FILE)
    with folder_lock(folder):
        _Training(plan, folder, opened).run(executor, data_dir, console)
        result = _result(plan, folder, config, vary)
        result.save(folder)
    return result


class _Training:
    """The training of a plan: which jobs come next, as the finished ones let it be known."""

    def __init__(self, plan: SweepPlan, folder: Path, table: Table | None):
        self.plan, self.folder, self.table = plan, folder, table
        self.settings = plan.settings
        self.names = {run.identity: folder_of(run, folder).name for run in plan.runs}
        self.progress = {run.identity: plan.progress(run, folder) for run in plan.runs}
        starts = {Path(run.config.start) for run in plan.runs if run.config.start is not None}
        self.starts = tuple(sorted(path for path in starts if is_file(path)))
        self.data: frozenset[ImageSet] = frozenset()
        self.jobs: dict[str, PlannedRun] = {}
        self.begun: set[tuple[str, int]] = set()

    def run(self, executor: Executor, data_dir: Path | None, console: Console | None) -> None:
        """Train until nothing is left to be trained."""
        from rich.console import Console

        if self.table is None:
            data_dir, names = data_folder(data_dir), {run.config.data for run in self.plan.runs}
            self.data = frozenset(each for name in names for each in image_sets(name, data_dir))
        jobs = self._next()
        if jobs:
            executor.run(jobs, self.folder, console or Console(quiet=True), data_dir=data_dir, more=self._after)

    def _after(self, name: str) -> list[Job]:
        """The jobs that follow from one that is done."""
        run = self.jobs[name]
        self.progress[run.identity] = self.plan.progress(run, self.folder)
        return self._next()

    def _next(self) -> list[Job]:
        """The jobs that may begin by what is known, and have not."""
        rungs = len(self.plan.rungs[self.plan.runs[0].identity])
        scores = {setting: self._scores(runs) for setting, runs in self.settings.items()}
        level = levels(scores, rungs, self.plan.stop_early) if rungs else dict.fromkeys(scores, 0)
        jobs: list[Job] = []
        for setting, runs in self.settings.items():
            for run in runs:
                steps = [*self.plan.rungs[run.identity], self.plan.length(run)][level[setting]]
                if not self._reached(run, steps) and (run.identity, steps) not in self.begun:
                    self.begun.add((run.identity, steps))
                    jobs.append(self._job(run, steps, level[setting]))
        return jobs

    def _job(self, run: PlannedRun, steps: int, level: int) -> Job:
        """The job that trains a run up to so many steps."""
        name = self.names[run.identity]
        title = name if steps == self.plan.length(run) else f"{name} to step {steps}"
        self.jobs[title] = run
        return Job(
            name=title,
            call=train_job(run.config, name, steps, self.table),
            # What goes on from a rung comes before what only begins.
            cost=self.plan.model_images(run) * (1 + level),
            reads=partial(tuple, [self.folder / name]),
            # Those of all runs, since what is sent to nodes is settled by the first jobs.
            files=self.starts,
            data=self.data,
            imports=OPTIMIZERS,
        )

    def _reached(self, run: PlannedRun, steps: int) -> bool:
        progress = self.progress[run.identity]
        return progress.finished or progress.diverged or (progress.steps >= steps and steps < self.plan.length(run))

    def _scores(self, runs: list[PlannedRun]) -> list[float]:
        """The scores of a setting, means over its seeds, on the rungs that all of them have reached."""
        scores: list[float] = []
        for rung in range(len(self.plan.rungs[runs[0].identity])):
            steps = [self.plan.rungs[run.identity][rung] for run in runs]
            if not all(self._reached(run, step) for run, step in zip(runs, steps, strict=True)):
                break
            scores.append(sum(self._score(run, step) for run, step in zip(runs, steps, strict=True)) / len(runs))
        return scores

    def _score(self, run: PlannedRun, steps: int) -> float:
        """What a run scores on a rung, higher the better; the least for one that diverged, at whatever step."""
        progress = self.progress[run.identity]
        if progress.diverged:
            return -math.inf
        value = figure_at(self.plan, run, progress, steps)
        return -math.inf if value is None else (value if self.plan.measure.higher else -value)


def figure_at(plan: SweepPlan, run: PlannedRun, progress: RunProgress, steps: int) -> float | None:
    """The figure that a run is judged by, as it last was at or before a step."""
    curve = plan.measure.curve(progress.lines, run.config, plan.images[run.identity])
    return next((value for step, value in reversed(curve) if step <= steps), None)


def _result(plan: SweepPlan, folder: Path, config: RunConfig, vary: Mapping[str, Iterable[object]]) -> SweepResult:
    """The results of all runs, as their folders hold them."""
    runs: list[SweepRun] = []
    for run in plan.runs:
        progress, where = plan.progress(run, folder), folder_of(run, folder)
        curve = plan.measure.curve(progress.lines, run.config, plan.images[run.identity])
        runs.append(
            SweepRun(
                values=run.values,
                seed=run.config.seed,
                folder=where.name,
                state=DIVERGED if progress.diverged else FINISHED if progress.finished else STOPPED,
                steps=progress.steps,
                length=plan.length(run),
                score=figure_at(plan, run, progress, plan.length(run)),
                curve=_thinned(curve),
                cpu_seconds=round(progress.cpu_seconds, 2),
                model_images=progress.model_images,
            )
        )
    return SweepResult(
        config=to_plain(config),
        vary={name: [_plain(value) for value in values] for name, values in vary.items()},
        metric=plan.measure.metric,
        measured_by=_measured_by(plan),
        stop_early=plan.stop_early,
        data=config.data,
        runs=runs,
        versions={name: version(name) for name in ("unfool", "torch")},
    )


def _measured_by(plan: SweepPlan) -> str:
    """How the runs are judged, in words."""
    stage = plan.runs[0].config.stages[plan.measure.stage]
    if plan.measure.metric == LOSS:
        return "training loss on the images that a run learns from, lower is better"
    where = f"{stage.held_out} images held out from the training set"
    if plan.measure.metric == CLEAN:
        return f"clean accuracy on {where}"
    return f"robust accuracy on {where}, under {stage.stop_attack} at {stage.threat}"


def _thinned(curve: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most so many points of a curve, the last one among them."""
    every = -(-len(curve) // _MOST_POINTS) or 1
    return curve[::-1][::every][::-1]


def _plain(value: object) -> Value:
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
