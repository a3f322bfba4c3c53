"""The two ways to learn a classifier and auxiliary tasks: at once, or one after the other on a frozen trunk."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from unfool.core.config import build
from unfool.core.errors import SpecError
from unfool.core.spec import unknown
from unfool.tasks import make_task
from unfool.training.stage_config import StageConfig

JOINT, CLASSIFIER_FIRST = "joint", "classifier-first"
REGIMES = (JOINT, CLASSIFIER_FIRST)

_OF_THE_CLASSIFIER = ("trainable", "perturb", "adversarial", "statistics", "awp", "held_out")
"""What a stage says of how its classifier learns; the others' heads learn from clean views, to the last epoch."""


def in_regime(regime: str, stage: StageConfig, then: Mapping[str, Any] | None = None) -> tuple[StageConfig, ...]:
    """The stages that one description of tasks with and without labels becomes in a regime of `REGIMES`.

    ``joint`` is that stage. ``classifier-first`` trains its tasks with labels as the stage says, then the heads of the
    others on the frozen trunk, on clean views and otherwise alike but for the settings ``then``. Raises SpecError for
    another regime, for a stage without one of the two kinds of tasks, or for settings that no stage has or that the
    regime decides: which tasks, what moves, and how a classifier learns.
    """
    if regime not in REGIMES:
        raise unknown("regime", regime, REGIMES)
    if regime == JOINT:
        return (stage,)
    labelled = {name: task for name, task in stage.tasks.items() if make_task(task.task, task.settings).needs}
    others = {name: task for name, task in stage.tasks.items() if name not in labelled}
    if not labelled or not others:
        lacking = "with labels" if not labelled else "without labels"
        raise SpecError(
            f"regime {CLASSIFIER_FIRST} was asked for tasks {', '.join(stage.tasks)}, none of them {lacking}; "
            f"give both kinds, or regime {JOINT}"
        )
    decided = ("tasks", *_OF_THE_CLASSIFIER)
    given = [name for name in decided if name in (then or {})]
    if given:
        raise SpecError(
            f"the stage of the heads was given {', '.join(given)}, and regime {CLASSIFIER_FIRST} itself decides "
            f"{', '.join(decided)}: heads learn from clean views on a frozen trunk; leave them out"
        )
    names = {field.name for field in dataclasses.fields(stage)} - {*_OF_THE_CLASSIFIER}  # type: ignore[arg-type]
    kept = {name: getattr(stage, name) for name in names}
    heads = {**kept, **(then or {}), "tasks": others, "trainable": "heads"}
    return dataclasses.replace(stage, tasks=labelled), build(StageConfig, heads, "the stage of the heads")
