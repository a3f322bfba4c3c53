# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
"""The runs of a sweep, and its settings: the runs that differ in their seed alone, with their mean and its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unfool.training.sweeping.variation import SEED, Value, value_text

FINISHED, STOPPED, DIVERGED = "finished", "stopped early", "diverged"
STATES = (FINISHED, STOPPED, DIVERGED)


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """One run of a sweep.

    Args:
        values: The values of what was varied, by its name.
        seed: The run's seed.
        folder: Its folder, in that of the sweep.
        state: ``finished``, ``stopped early`` or ``diverged`` (its loss was not finite).
        steps: Steps that were trained.
        length: Steps of the whole run.
        score: The figure that it is judged by, as far as it was trained; None where it was never measured.
        curve: That figure by step.
        cpu_seconds: CPU time of training.
        model_images: Images that went through the network.
    """

    values: Mapping[str, Value]
    seed: int
    folder: str
    state: str
    steps: int
    length: int
    score: float | None
    curve: Sequence[tuple[int, float]] = ()
    cpu_seconds: float = 0.0
    model_images: int = 0

    @property
    def setting(self) -> tuple[tuple[str, Value], ...]:
        """What the run has in common with its like of other seeds."""
        return tuple((name, value) for name, value in self.values.items() if name != SEED)


@dataclass(frozen=True, kw_only=True)
class SweepSetting:
    """The runs of one setting, which differ in their seed alone.

    ``mean`` is that of the scores of finished runs, ``low`` and ``high`` its 95 % interval by Student's t over the
    seeds (None for one seed); all None where not every run is finished.
    """

    values: Mapping[str, Value]
    runs: Sequence[SweepRun]
    state: str
    mean: float | None
    low: float | None
    high: float | None

    @property
    def words(self) -> str:
        """The values in words."""
        return ", ".join(f"{name}={value_text(value)}" for name, value in self.values.items()) or "as configured"


@dataclass(frozen=True, kw_only=True)
class Lead:
    """By how much the best setting is better than the second, over the seeds that both have; better is positive.

    The interval is Student's, of 95 %; None for one seed.
    """

    second: SweepSetting
    difference: float
    low: float | None
    high: float | None
    seeds: int


def setting_of(runs: Sequence[SweepRun]) -> SweepSetting:
    """The setting of runs that differ in their seed alone; its state is the worst of theirs."""
    states = {run.state for run in runs}
    state = next(state for state in reversed(STATES) if state in states)
    scores = [run.score for run in runs if run.score is not None]
    whole = state == FINISHED and len(scores) == len(runs)
    mean, low, high = t_interval(scores) if whole else (None, None, None)
    return SweepSetting(values=dict(runs[0].setting), runs=tuple(runs), state=state, mean=mean, low=low, high=high)


def t_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """The mean of values with its 95 % interval by Student's t; none for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None, None
    from scipy.special import stdtrit  # here, because it takes long to import

    half = float(stdtrit(len(values) - 1, 0.975)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half
