"""``--task name:key=value,..`` as the tasks of a stage."""

from __future__ import annotations

from collections.abc import Iterable

from unfool.core.config import build, parse_settings, to_plain
from unfool.core.errors import SpecError
from unfool.tasks import TASKS, make_task
from unfool.training import TaskConfig


def read_tasks(texts: Iterable[str], label_column: str | None) -> dict[str, TaskConfig]:
    """Tasks by head name; ``weight``, ``perturbed`` and ``as`` are the stage's own keys, others the task's settings.

    A labels task without a column takes the set's primary one. Raises SpecError with the nearest name for an unknown
    task or key, and for two tasks on one head.
    """
    tasks: dict[str, TaskConfig] = {}
    for text in texts:
        written, values = parse_settings(text)
        name = TASKS.canonical(written)
        own = {key: values.pop(key) for key in ("weight", "perturbed") if key in values}
        head = values.pop("as", name)
        if name == "labels" and label_column is not None:
            values.setdefault("column", label_column)
        # Settings are kept as numbers and not as text, so that the same run is the same whoever wrote it down.
        plain = to_plain(make_task(name, values).settings)
        if head in tasks:
            raise SpecError(f"two tasks share the head {head!r}; name one of them with as=NAME")
        settings = {key: plain[key] for key in values}
        tasks[head] = build(TaskConfig, {"task": name, "settings": settings, **own}, f"task {text!r}")
    return tasks
