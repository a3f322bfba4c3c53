"""The time of a hardening as a whole, and what of it is left for training."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from unfool.core.borders.reading import is_file
from unfool.core.errors import SpecError
from unfool.core.processes import rank_and_world_size
from unfool.core.progress import Progress, renamed
from unfool.data.table import Table
from unfool.evaluation.evaluation import Evaluation
from unfool.evaluation.hardening.costs import Costs, measure
from unfool.evaluation.hardening.plan import BEFORE, Plan, read_plan, remove_plan
from unfool.evaluation.hardening.settings import HardenSettings
from unfool.evaluation.hardening.subject import Subject
from unfool.training import StageConfig
from unfool.training.config import read_config
from unfool.training.folder import CONFIG
from unfool.training.schedule import first_of

FEWEST_STEPS, MOST_EPOCHS = 20, 60
"""Training of fewer steps is refused; a small set is not learnt from more often."""
FEWEST_IMAGES, MOST_IMAGES = 50, 500
"""Images of the evaluations, where their number is left to the time."""

_EVALUATION_SHARE, _RELIABILITY_SHARE = 0.15, 0.05
"""Shares of the time that the evaluation after training and its reliability report may at most take."""
_RELIABILITY_PASSES = 25_000
"""Images that a reliability report sends through a robust network, about."""
_BOTH, _USED = 1.3, 0.97
"""Both evaluations over the one after training, and the share of the time that is planned for."""
_STANDING, _SLOWER = 0.75, 1.3
"""Share of the correct images that is taken to stand the attack after training, and how much slower than timed an image
may be."""


class Budget:
    """The time of one hardening: what is done in it, and how much of it training gets.

    ``passes`` is how often the attack sends an image through the network, forward and back. Of several processes the
    first one's clock decides. With ``settings.steps`` there is no limit, and the parts are only timed.
    """

    def __init__(
        self,
        settings: HardenSettings,
        passes: float,
        folder: Path,
        progress: Progress,
        device: str,
        started: float | None = None,
    ):
        self.began = time.monotonic() if started is None else started
        self.settings = settings
        self.total = 60 * settings.minutes
        self.passes = passes
        self.folder = folder
        self.progress = progress
        self.device = device
        self.costs: Costs | None = None
        self.seconds: dict[str, float] = {}

    @property
    def left(self) -> float:
        """Seconds that are left of those that are planned for."""
        return first_of(self.began + _USED * self.total - time.monotonic(), self.device)

    @contextmanager
    def timed(self, part: str) -> Generator[Progress, None, None]:
        """Time a part of the whole, whose progress is that of the whole where the time is limited."""
        began = time.monotonic()
        yield renamed(self.progress, part) if self.settings.steps else self._of_the_whole(part)
        self.seconds[part] = round(time.monotonic() - began, 2)

    def _of_the_whole(self, part: str) -> Progress:
        whole = round(self.total)

        def advance(what: str, done: int, total: int, note: str = "") -> None:
            words = ", ".join(filter(None, (part, f"{what} {done}/{total}" if total else what, note)))
            self.progress("seconds", min(round(time.monotonic() - self.began), max(0, whole - 1)), whole, words)

        return advance

    def plan(self, stage: StageConfig, table: Table, subject: Subject, available: int) -> Plan:
        """How many of the ``available`` images are evaluated, and whether there is time for a reliability report.

        Raises SpecError if the time is too short for anything, with the least that is not.
        """
        settings = self.settings
        if settings.steps:
            return Plan(minutes=0.0, images=settings.images or MOST_IMAGES, reliability=True)
        begun = read_plan(self.folder, settings.minutes)
        if begun is not None and is_file(self.folder / CONFIG):
            return begun
        costs = measure(stage, table, subject, self.total, self.device)
        self.costs = Costs(step=first_of(costs.step, self.device), image=first_of(costs.image, self.device))
        if begun is not None:
            return begun
        each, training, left = self.passes * self.costs.image, FEWEST_STEPS * self.costs.step, self.left
        fitting = min(_EVALUATION_SHARE * self.total, (left - training) / _BOTH) / each
        images = min(settings.images or int(max(FEWEST_IMAGES, min(MOST_IMAGES, fitting))), available)
        if left < training + _BOTH * images * each:
            raise self._too_short(training, _BOTH * images * each, left)
        reliability = _RELIABILITY_PASSES * self.costs.image < _RELIABILITY_SHARE * self.total
        plan = Plan(minutes=settings.minutes, images=images, reliability=reliability)
        if rank_and_world_size()[0] == 0:
            plan.save(self.folder)
        return plan

    def limited(self, stage: StageConfig, plan: Plan, before: Evaluation) -> StageConfig:
        """The stage with the minutes that are left for it.

        Afterwards most images that are classified correctly may stand all passes of the attack. Raises SpecError if
        that leaves too little for training.
        """
        if self.settings.steps or self.costs is None:
            return stage
        clean, attacked = before.records[0], before.records[-1]
        standing = max(_STANDING * clean.accuracy, attacked.accuracy)
        passes = clean.count * (1 + self.passes * standing) + _RELIABILITY_PASSES * plan.reliability
        after, least, left = passes * self._pace(before), FEWEST_STEPS * self.costs.step, self.left
        if left < after + least:
            remove_plan(self.folder)
            raise self._too_short(least, after, left)
        return _lasting(stage, (left - after) / 60)

    def begun(self, stage: StageConfig) -> StageConfig | None:
        """The stage of a run that has begun in the folder, with the minutes that it had; None if none has."""
        config = self.folder / CONFIG
        if not is_file(config):
            return None
        return stage if self.settings.steps else _lasting(stage, read_config(config).stages[0].minutes)

    def _pace(self, before: Evaluation) -> float:
        """Seconds of an image: those of the timing, or of the evaluation before if that was slower, within a factor."""
        timed = self.costs.image if self.costs is not None else 0.0
        sent = sum(records.model_images for records in before.records)
        return min(_SLOWER * timed, max(timed, first_of(self.seconds[BEFORE], self.device) / max(1, sent)))

    def _too_short(self, training: float, evaluations: float, left: float) -> SpecError:
        used = _USED * self.total - left
        least = math.ceil((used + training + evaluations) / _USED / 6) / 10
        return SpecError(
            f"{self.settings.minutes:.3g} minutes are too few here, where {FEWEST_STEPS} training steps take "
            f"{_words(training)} and the evaluations up to {_words(evaluations)}; give at least {least:.1f} minutes, "
            "a smaller batch, or a cheaper attack on fewer images"
        )


def _lasting(stage: StageConfig, minutes: float) -> StageConfig:
    return replace(stage, steps=0, epochs=MOST_EPOCHS, minutes=round(minutes, 4))


def _words(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} min"
