# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false
"""Experiment trackers beside ``metrics.csv``, through accelerate: trackio, tensorboard, mlflow, wandb, or one's own.

Only the first process logs. A resumed run goes on in the tracker's run that it began: ``trackers.json`` in its folder
names that. What was logged after the last checkpoint is logged again at the same steps, with the same values.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TypeAlias, cast

from unfool.core.borders.json_text import read_object
from unfool.core.borders.reading import is_file
from unfool.core.config import to_plain
from unfool.core.errors import OutputError, UnfoolWarning
from unfool.core.files import write_json
from unfool.training.config import RunConfig
from unfool.training.trackers.tracker import RunTracker, Tracker, started

FILE = "trackers.json"
SCHEMA_VERSION = 1
Row: TypeAlias = "Mapping[str, float | int]"


class TrackedRun:
    """One training run in all its trackers; without any it does nothing.

    ``earlier`` are the lines of the log that a resumed run keeps: a tracker that is new to the run gets them first.
    Raises OutputError for a tracker that cannot begin.
    """

    def __init__(self, track: Sequence[Tracker | RunTracker], config: RunConfig, folder: Path, earlier: Sequence[Row]):
        self.trackers: list[RunTracker] = []
        self._stage, self._before, self._now = 0, (0, 0), (0, 0)
        self._model_images: int | None = None if earlier else 0
        steps = [self._step(row) for row in earlier]
        if not track:
            return
        runs = _read_runs(folder / FILE)
        begun = set(runs)
        for item in track:
            name = str(item.name)
            with _beginning(name, folder):
                tracker, runs[name] = started(item, folder, runs.get(name), self._now[0] + 1)
                # trackio keeps the configuration of the last time that a run began.
                if name not in begun or name == "trackio":
                    tracker.store_init_configuration(_flat(to_plain(config)))
            self.trackers.append(tracker)
        write_json(folder / FILE, {"schema_version": SCHEMA_VERSION, "runs": runs})
        for tracker in self.trackers[:]:
            if tracker.name not in begun:
                for step, row in zip(steps, earlier, strict=True):
                    self._log(tracker, row, step)

    def log(self, row: Row, model_images: int, cpu_seconds: float) -> None:
        """Log a line of ``metrics.csv`` and what training has cost so far, crafting included."""
        seen = self._now[1]
        step = self._step(row)
        cost: dict[str, float | int] = {"cost/model_images": model_images, "cost/cpu_seconds": cpu_seconds}
        if self._model_images is not None and self._now[1] > seen:
            cost["cost/model_images_per_image"] = (model_images - self._model_images) / (self._now[1] - seen)
        self._model_images = model_images
        for tracker in self.trackers[:]:
            self._log(tracker, {**row, **cost}, step)

    def finish(self) -> None:
        """Let the trackers write what they still hold."""
        for tracker in self.trackers[:]:
            with self._surviving(tracker):
                tracker.finish()
        self.trackers = []

    def _step(self, row: Row) -> int:
        """The step of a line counted over all stages; lines come in their order."""
        if int(row["stage"]) != self._stage:
            self._stage, self._before = int(row["stage"]), self._now
        self._now = self._before[0] + int(row["step"]), self._before[1] + int(row["images_seen"])
        return self._now[0]

    def _log(self, tracker: RunTracker, row: Row, step: int) -> None:
        values = {name: value for name, value in row.items() if name != "step"}
        with self._surviving(tracker):
            tracker.log(values, step=step)

    @contextmanager
    def _surviving(self, tracker: RunTracker) -> Generator[None]:
        """A tracker that fails is left out with a warning: the training is worth more, and its log is complete."""
        try:
            with redirect_stdout(sys.stderr):
                yield
        except Exception as error:
            self.trackers.remove(tracker)
            warnings.warn(
                f"tracker {tracker.name} failed and gets no more lines ({_reason(error)}); metrics.csv has them all",
                UnfoolWarning,
                stacklevel=2,
            )


def _read_runs(path: Path) -> dict[str, str]:
    """The run in each tracker that this training run has begun."""
    advice = "delete it to begin anew in the trackers"
    if not is_file(path):
        return {}
    stored = read_object(path, advice, error=OutputError)
    runs: object = stored.get("runs")
    if stored.get("schema_version") != SCHEMA_VERSION or not isinstance(runs, dict):
        raise OutputError(f"{path} is not what this unfool writes (schema version {SCHEMA_VERSION}); {advice}")
    return {str(name): str(token) for name, token in cast("dict[str, object]", runs).items()}


def _flat(values: object, name: str = "") -> dict[str, Any]:
    """Nested settings by their path, such as ``stages/0/epochs``; those that are None are left out."""
    items: Mapping[Any, Any] = {}
    if isinstance(values, Mapping):
        items = cast("Mapping[Any, Any]", values)
    elif isinstance(values, list):
        items = dict(enumerate(cast("list[Any]", values)))
    else:
        return {} if values is None else {name: values}
    return {
        path: value
        for key, nested in items.items()
        for path, value in _flat(nested, f"{name}/{key}" if name else str(key)).items()
    }


@contextmanager
def _beginning(name: str, folder: Path) -> Generator[None]:
    """Whatever a tracker raises as it begins is an OutputError, and what it prints goes to stderr."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except Exception as error:
        raise OutputError(
            f"tracker {name} cannot begin ({_reason(error)}); set it up, leave it out, or delete {folder / FILE} "
            "to begin anew in it"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
