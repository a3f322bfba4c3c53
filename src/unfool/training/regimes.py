"""The two ways to learn a classifier and auxiliary tasks: at once, or one after the other on a frozen trunk."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from unfool.core.config import build
from unfool.core.errors import SpecError
from unfool.core.spec import unknown
from unfool.tasks import make_task
from unfool.training.stage_config import StageConfig

JOINT, CLASSIFIER_FIRST = "joint", "classifier-first"
REGIMES = (JOINT, CLASSIFIER_FIRST)

_CLASSIFIER_SETTINGS = ("trainable", "perturb", "adversarial", "statistics", "awp", "held_out")
"""Settings of the classifier's stage that the stage of the heads does not take over."""


def in_regime(regime: str, stage: StageConfig, then: Mapping[str, object] | None = None) -> tuple[StageConfig, ...]:
    """Turn one stage, with tasks that read labels and others, into the stages of a regime.

    Args:
        regime: "joint" keeps the stage as it is. "classifier-first" trains the tasks with labels as the stage says,
            then the heads of the others on the frozen trunk, on clean views and with the same settings otherwise.
        stage: The stage of all tasks.
        then: Settings of the stage of the heads that differ.

    Returns:
        The stages, in the order in which they are trained.

    Raises:
        SpecError: Another regime; a stage without one of the two kinds of tasks; settings that no stage has, or that
            the regime decides: tasks, what is trainable, and how a classifier learns.

    Example:
        >>> from unfool.training import in_regime
        >>> tasks = {"labels": TaskConfig(task="labels"), "rotation": TaskConfig(task="rotation")}
        >>> classifier, heads = in_regime("classifier-first", StageConfig(tasks=tasks))
        >>> list(classifier.tasks), list(heads.tasks), heads.trainable
        (['labels'], ['rotation'], 'heads')
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
            f"regime {CLASSIFIER_FIRST} got tasks {', '.join(stage.tasks)}, none of them {lacking}; "
            f"give both kinds, or regime {JOINT}"
        )
    decided = ("tasks", *_CLASSIFIER_SETTINGS)
    contradicting = [name for name in decided if name in (then or {})]
    if contradicting:
        raise SpecError(
            f"the stage of the heads was given {', '.join(contradicting)}, and regime {CLASSIFIER_FIRST} decides "
            f"{', '.join(decided)}: heads learn from clean views on a frozen trunk; leave them out"
        )
    names = {field.name for field in dataclasses.fields(stage)} - {*_CLASSIFIER_SETTINGS}  # type: ignore[arg-type]
    same = {name: getattr(stage, name) for name in names}
    heads = {**same, **(then or {}), "tasks": others, "trainable": "heads"}
    return dataclasses.replace(stage, tasks=labelled), build(StageConfig, heads, "the stage of the heads")
