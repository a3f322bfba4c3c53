# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
"""The results of a sweep: which of its settings is best and how sure that is, and the file that holds its runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

from unfool.core.borders.json_text import read_object
from unfool.core.borders.shapes import of_known_form
from unfool.core.errors import DataError, NonFiniteError, SpecError
from unfool.core.files import JsonObject, write_json
from unfool.training.sweeping.measure import LOSS, METRICS
from unfool.training.sweeping.runs import (
    DIVERGED,
    FINISHED,
    STATES,
    Lead,
    SweepRun,
    SweepSetting,
    setting_of,
    t_interval,
)
from unfool.training.sweeping.variation import SEED, Value

SCHEMA_VERSION = 1
FILE = "sweep.json"
_HOW = "give the sweep.json that unfool sweep wrote, or its folder"


@dataclass(frozen=True, kw_only=True, repr=False)
class SweepResult:
    """The results of a sweep.

    Args:
        config: The configuration that was varied, as its file holds it.
        vary: The values that were asked for, by field.
        metric: What runs are judged by: ``robust`` or ``clean`` accuracy on held-out images, or the training ``loss``.
        measured_by: In words, how the metric was measured.
        stop_early: One in so many settings went on from each rung; 0: none was stopped.
        data: The name of the training images.
        runs: All runs, in the order of their settings.
        command: The command that gave them.
        date: When, in UTC.
        versions: Versions of program and libraries.

    Example:
        >>> from unfool.training.sweeping.runs import SweepRun
        >>> def run(rate, score):
        ...     done = {"folder": "", "state": "finished", "steps": 9, "length": 9}
        ...     return SweepRun(values={"learning_rate": rate}, seed=0, score=score, **done)
        >>> runs = [run(0.1, 0.8), run(0.2, 0.7)]
        >>> SweepResult(config={}, vary={"learning_rate": [0.1, 0.2]}, metric="clean", runs=runs).best.words
        'learning_rate=0.1'
    """

    config: Mapping[str, Any]
    vary: Mapping[str, Sequence[Value]]
    metric: str
    runs: Sequence[SweepRun]
    measured_by: str = ""
    stop_early: int = 0
    data: str = ""
    command: str = ""
    date: str = ""
    versions: Mapping[str, str] = field(default_factory=dict[str, str])

    def __repr__(self) -> str:
        best = self.best
        said = f", best {best.words}: {self.metric} {best.mean:.4g}" if best and best.mean is not None else ""
        return f"SweepResult({len(self.settings)} settings, {len(self.runs)} runs{said})"

    @property
    def higher(self) -> bool:
        """Whether a higher figure is better."""
        return self.metric != LOSS

    @property
    def settings(self) -> list[SweepSetting]:
        """The settings, the best finished one first, then those stopped early, the longest trained first."""
        groups: dict[tuple[tuple[str, Value], ...], list[SweepRun]] = {}
        for run in self.runs:
            groups.setdefault(run.setting, []).append(run)
        settings = [setting_of(runs) for runs in groups.values()]
        sign = -1.0 if self.higher else 1.0

        def rank(setting: SweepSetting) -> tuple[int, float, float]:
            scores = [run.score for run in setting.runs if run.score is not None]
            score = sign * sum(scores) / len(scores) if scores else math.inf
            share = min(run.steps / run.length for run in setting.runs)
            return STATES.index(setting.state), 0.0 if setting.state == FINISHED else -share, score

        return sorted(settings, key=rank)

    @property
    def best(self) -> SweepSetting | None:
        """The finished setting of the best mean; None if none is finished."""
        first = next(iter(self.settings), None)
        return first if first is not None and first.mean is not None else None

    @property
    def lead(self) -> Lead | None:
        """How sure it is that the best setting is better than the second; None without two that are finished."""
        finished = [setting for setting in self.settings if setting.mean is not None]
        if len(finished) < 2:
            return None
        first, second = ({run.seed: run.score for run in setting.runs} for setting in finished[:2])
        sign = 1.0 if self.higher else -1.0
        pairs = [(first[seed], second[seed]) for seed in first if seed in second]
        differences = [sign * (ours - theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
        if not differences:
            return None
        mean, low, high = t_interval(differences)
        return Lead(second=finished[1], difference=mean, low=low, high=high, seeds=len(differences))

    @property
    def diverged(self) -> bool:
        """Whether every run did."""
        return all(run.state == DIVERGED for run in self.runs)

    def raise_if_diverged(self) -> None:
        """NonFiniteError if every run diverged: then the sweep says nothing of its settings."""
        if self.diverged:
            raise NonFiniteError(
                "every run of the sweep diverged: its loss was not finite; vary a lower learning rate, such as "
                "--vary learning_rate=0.001,0.01"
            )

    def to_frame(self) -> DataFrame:
        """The runs as a pandas table, one line each."""
        import pandas as pd  # takes long to import

        columns = ("state", "score", "steps", "length", "cpu_seconds", "model_images", "folder")
        rows = [{**run.values, SEED: run.seed, **{name: getattr(run, name) for name in columns}} for run in self.runs]
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        html: str = self.to_frame().to_html()
        return html

    def to_json(self) -> JsonObject:
        """The results as ``sweep.json`` holds them."""
        head = {name: getattr(self, name) for name in _TEXTS}
        runs = [
            {**vars(run), "values": dict(run.values), "curve": [list(point) for point in run.curve]}
            for run in self.runs
        ]
        return {
            "schema_version": SCHEMA_VERSION,
            **head,
            "stop_early": self.stop_early,
            "config": dict(self.config),
            "vary": {name: list(values) for name, values in self.vary.items()},
            "versions": dict(self.versions),
            "runs": runs,
        }

    @classmethod
    def from_json(cls, values: Any, where: str = "the results") -> SweepResult:
        """The results that `to_json` gave; DataError for what is none, SpecError for a newer layout."""
        if not isinstance(values, Mapping) or not isinstance(version := values.get("schema_version"), int):
            raise DataError(f"{where} holds no sweep; {_HOW}")
        if version > SCHEMA_VERSION:
            raise SpecError(
                f"{where} has schema_version {version}; this version reads up to {SCHEMA_VERSION}; upgrade unfool"
            )
        with of_known_form(where, _HOW):
            result = cls(
                **{name: str(values[name]) for name in _TEXTS},
                stop_early=int(values["stop_early"]),
                config=dict(values["config"]),
                vary={str(name): list(listed) for name, listed in values["vary"].items()},
                versions=dict(values["versions"]),
                runs=[_run(run) for run in values["runs"]],
            )
        unknown_states = {run.state for run in result.runs} - {*STATES}
        if result.metric not in METRICS or unknown_states or not result.runs:
            raise DataError(f"{where} holds no whole sweep; {_HOW}")
        return result

    def save(self, folder: str | Path) -> Path:
        """Write ``sweep.json`` into a folder, whole or not at all; raises OutputError."""
        path = Path(folder) / FILE
        write_json(path, self.to_json())
        return path

    @classmethod
    def load(cls, path: str | Path) -> SweepResult:
        """Read ``sweep.json``, or that of a folder; DataError if it is missing or malformed."""
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        return cls.from_json(read_object(path, _HOW), str(path))


_TEXTS = ("metric", "measured_by", "data", "command", "date")


def _run(values: Any) -> SweepRun:
    """A run as the file holds it."""
    score = values["score"]
    return SweepRun(
        values={str(name): value for name, value in values["values"].items()},
        seed=int(values["seed"]),
        folder=str(values["folder"]),
        state=str(values["state"]),
        steps=int(values["steps"]),
        length=max(1, int(values["length"])),
        score=None if score is None else float(score),
        curve=[(int(step), float(value)) for step, value in values["curve"]],
        cpu_seconds=float(values["cpu_seconds"]),
        model_images=int(values["model_images"]),
    )
