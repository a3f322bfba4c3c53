"""The fields of a run's configuration by their full names, such as ``stages.0.tasks.labels.weight``.

A short name leaves out what comes before, and steps between: ``weight``, ``labels.weight``. ``*`` stands for any stage
or task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unfool.core.config import to_plain
from unfool.core.errors import SpecError
from unfool.core.spec import unknown
from unfool.tasks import make_task
from unfool.training.config import RunConfig

FIXED = ("schema_version", "start_identity", "data", "model", "stages", "tasks", "settings")
"""What no sweep varies: other data cannot be compared, and the rest is made of fields or is no setting."""

EVERY, VARIABLE = "*", ("stages", "tasks")
"""What stands for any stage or task, and what comes before the number or name of one."""


def fields_of(config: RunConfig) -> dict[str, object]:
    """The value of every field that can be varied, by its full name; settings of tasks and trunk included."""
    fields: dict[str, object] = {}

    def add(prefix: str, values: Mapping[str, Any]) -> None:
        fields.update({prefix + key: value for key, value in values.items() if key not in FIXED})

    plain: dict[str, Any] = to_plain(config)
    add("", plain)
    add("trunk.", plain["trunk"] or {})
    for number, stage in enumerate(config.stages):
        where = f"stages.{number}."
        add(where, plain["stages"][number])
        for head, task in stage.tasks.items():
            add(f"{where}tasks.{head}.", plain["stages"][number]["tasks"][head])
            settings: dict[str, Any] = to_plain(make_task(task.task, task.settings).settings)
            fields.update({f"{where}tasks.{head}.settings.{key}": value for key, value in settings.items()})
    return fields


def named_fields(name: str, config: RunConfig) -> tuple[str, ...]:
    """The full names of the fields that ``name`` stands for: one, or with a ``*`` all that fit.

    Raises SpecError for a name of nothing, with the nearest known one, for one of several fields, and for one that no
    sweep varies.
    """
    words = name.strip().replace("-", "_").split(".")
    if words[-1] in FIXED:
        raise SpecError(f"{name} cannot be varied: the runs could not be compared; vary another field")
    fields = fields_of(config)
    if ".".join(words) in fields:
        return (".".join(words),)
    fitting = [field for field in fields if _fits(words, field.split("."))]
    if not fitting:
        stages = len(config.stages)
        if words[0] == "stages" and len(words) > 1 and words[1].isdecimal() and int(words[1]) >= stages:
            raise SpecError(f"unknown field of the run {name!r}: its stages are numbered from 0 to {stages - 1}")
        raise unknown("field of the run", name, {field.rpartition(".")[2] for field in fields})
    if len(fitting) > 1 and EVERY not in words:
        together = {_starred(field) for field in fitting}
        every = f", or {together.pop()} for all of them" if len(together) == 1 else ""
        raise SpecError(f"{name} is a field of {' and of '.join(fitting)}; write one of these{every}")
    return tuple(fitting)


def _fits(words: Sequence[str], field: Sequence[str]) -> bool:
    """Whether words come in a field's name in this order, the last one at its end, a ``*`` for a stage or a task."""
    if words[-1] != field[-1]:
        return False
    steps = [(part, n > 0 and field[n - 1] in VARIABLE) for n, part in enumerate(field[:-1])]
    above = iter(reversed(steps))
    return all(
        any(word in (part.replace("-", "_"), EVERY if variable else None) for part, variable in above)
        for word in reversed(words[:-1])
    )


def _starred(field: str) -> str:
    words = field.split(".")
    return ".".join(EVERY if n and words[n - 1] in VARIABLE else word for n, word in enumerate(words))
