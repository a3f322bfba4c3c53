"""What a sweep will train: its runs, how they are judged, where they pause, and about what that costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unfool.core.errors import DataError, SpecError
from unfool.data.table import Table
from unfool.training.config import RunConfig, label_columns, training_table
from unfool.training.run import check_run
from unfool.training.schedule import stage_length
from unfool.training.selection.held_out import cut_held_out
from unfool.training.sweeping.halving import places_on
from unfool.training.sweeping.job import RunProgress, read_progress
from unfool.training.sweeping.measure import Measure, measure_of, rungs_of
from unfool.training.sweeping.variation import PlannedRun, plan_runs


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """The runs of a sweep, with the number of ``images`` that each learns from and the steps at which it pauses.

    ``combinations`` counts those of the values, equal ones too. Of ``stop_early`` settings one goes on from each rung;
    0: all go on.
    """

    runs: Sequence[PlannedRun]
    combinations: int
    measure: Measure
    stop_early: int
    images: Mapping[str, int]
    rungs: Mapping[str, Sequence[int]]

    @property
    def settings(self) -> dict[tuple[object, ...], list[PlannedRun]]:
        """The runs by what they have in common but the seed, in their order."""
        settings: dict[tuple[object, ...], list[PlannedRun]] = {}
        for run in self.runs:
            settings.setdefault(run.setting, []).append(run)
        return settings

    def length(self, run: PlannedRun) -> int:
        """The steps of a whole run."""
        return sum(stage_length(stage, self.images[run.identity])[0] for stage in run.config.stages)

    def model_images(self, run: PlannedRun) -> float:
        """About how many images a whole run sends through its network."""
        return run.config.model_images(round(self.images[run.identity] / run.config.fraction))

    @property
    def total_images(self) -> float:
        """About how many images all runs send through their networks, as far as none stops where another may."""
        whole = [self.model_images(run) for run in self.runs]
        if not self.stop_early:
            return sum(whole)
        rungs = [*self.rungs[self.runs[0].identity], self.length(self.runs[0])]
        places, before, share = places_on(len(rungs) - 1, len(self.settings), self.stop_early), 0, 0.0
        for place, rung in zip(places, rungs, strict=True):
            share += place / places[0] * (rung - before) / rungs[-1]
            before = rung
        return sum(whole) * share

    def progress(self, run: PlannedRun, folder: Path) -> RunProgress:
        """How far a run is in the sweep's folder."""
        return read_progress(folder_of(run, folder), run.config, self.images[run.identity])


def folder_of(run: PlannedRun, folder: Path) -> Path:
    """The run's folder in that of the sweep: one of its identity that is there, whatever it is called."""
    existing = sorted(path for path in folder.glob(f"*-{run.identity}") if path.is_dir())
    return existing[0] if existing else folder / run.folder


def plan_sweep(
    config: RunConfig,
    vary: Mapping[str, Iterable[object]],
    *,
    table: Table | None = None,
    data_dir: Path | None = None,
    metric: str | None = None,
    stop_early: int = 0,
) -> SweepPlan:
    """Check all that a sweep would train, before anything is trained; raises as `sweep` does."""
    vary = {name: list(values) for name, values in vary.items()}
    runs = plan_runs(config, vary)
    configs = [run.config for run in runs]
    measure = measure_of(metric, configs)
    if stop_early and stop_early < 2:
        raise SpecError(
            f"stop_early={stop_early} is not allowed; give 2 or more: one in so many settings goes on; or 0: all do"
        )
    open_once = _once(lambda chosen: table if table is not None else training_table(chosen, data_dir))
    if table is not None and table.name != config.data:
        raise DataError(f"the configuration names the data {config.data!r}, the table is {table.name!r}; give one set")
    checked: dict[object, PlannedRun] = {run.setting: run for run in reversed(runs)}
    for run in checked.values():
        check_run(run.config, open_once(run.config))
    images = {run.identity: _learnt(run.config, open_once(run.config)) for run in runs}
    count = len({run.setting for run in runs})
    rungs: dict[str, Sequence[int]] = {run.identity: () for run in runs}
    if stop_early:
        if count < 2:
            raise SpecError("the runs differ in their seed alone, so that none can be stopped early; leave it out")
        pauses = rungs_of(measure, [(run.config, images[run.identity]) for run in runs], count, stop_early)
        rungs = {run.identity: steps for run, steps in zip(runs, pauses, strict=True)}
    combinations = 1
    for values in vary.values():
        combinations *= len(values)
    return SweepPlan(
        runs=runs, combinations=combinations, measure=measure, stop_early=stop_early, images=images, rungs=rungs
    )


def _learnt(config: RunConfig, table: Table) -> int:
    """How many images a run learns from."""
    return len(cut_held_out(config, table)[0])


def _once(open_table: Callable[[RunConfig], Table]) -> Callable[[RunConfig], Table]:
    """The tables of configurations, each opened once."""
    opened: dict[tuple[object, ...], Table] = {}

    def table_of(config: RunConfig) -> Table:
        key = (config.data, config.size, config.crop, config.image, *label_columns(config))
        if key not in opened:
            opened[key] = open_table(config)
        return opened[key]

    return table_of
