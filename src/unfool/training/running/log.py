"""What a run writes down while it trains: lines of ``metrics.csv``, the same in its trackers, and the time it takes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from unfool.training.folder import METRICS
from unfool.training.metrics import Metrics
from unfool.training.running.checkpoint import RunState
from unfool.training.running.prepared import PreparedRun
from unfool.training.trackers.tracked_run import TrackedRun
from unfool.training.trackers.tracker import RunTracker, Tracker

LOG_EVERY = 10
"""Steps between two lines of metrics.csv."""


def is_logged(step: int, steps: int) -> bool:
    """Whether a line of metrics.csv follows this step of a stage of so many, counted from 1: the first, every LOG_EVERY
    steps after it, and the last. Where held-out images were evaluated there is a line besides."""
    return (step - 1) % LOG_EVERY == 0 or step == steps


class RunLog:
    """The log of a run, which the first process writes and the others do without; all count their CPU time.

    ``state`` says what of the log and of the time was there before.
    """

    def __init__(self, run: PreparedRun, folder: Path, state: RunState, track: Sequence[Tracker | RunTracker]):
        self._began = time.process_time() - state.cpu_seconds / run.processes
        self.metrics: Metrics | None = None
        self._trackers: TrackedRun | None = None
        if run.first:
            self.metrics = Metrics(folder / METRICS, run.columns(), state.lines)
            self._trackers = TrackedRun(track, run.config, folder, self.metrics.rows() if track else [])

    @property
    def cpu_seconds(self) -> float:
        """CPU time of this process since the run began, as far as it is known."""
        return time.process_time() - self._began

    def add(self, row: Mapping[str, float | int], model_images: int) -> None:
        """Write a line; ``model_images`` went through the network so far."""
        if self.metrics is not None and self._trackers is not None:
            self.metrics.add(row)
            self._trackers.log(row, model_images, self.cpu_seconds)

    def finish(self) -> None:
        """Let the trackers write what they still hold."""
        if self._trackers is not None:
            self._trackers.finish()
