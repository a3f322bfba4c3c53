"""The pretext task of a defense: found on the network, with the settings that its head was trained with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.tasks.base import TASKS, Task, make_task


def only_task(network: nn.Module) -> str:
    """The one task without labels that the network has a head for; SpecError for none or several."""
    heads = list(getattr(network, "heads", {}))
    names = [name for name in heads if name in TASKS and not make_task(name).needs]
    if len(names) != 1:
        raise SpecError(
            f"the network has heads for {len(names)} tasks without labels ({', '.join(names) or 'none'}), and no task "
            "was named; say which to reverse with task=NAME, or train a head for one in a stage that trains the heads"
        )
    return names[0]


def bound_task(
    network: nn.Module,
    task: Task | str | None = None,
    head: str | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    classes: Mapping[str, int] | None = None,
    streams: Streams | None = None,
) -> Task:
    """A task on the head that the network has for it, in eval mode.

    Args:
        network: The network with the head.
        task: A name of `TASKS`, default the only one that the network has a head for; or a task. One that is bound to
            a head comes back as it is, of any other the settings that the head determines are taken from the head.
        head: The head's name; default that of the task.
        settings: Settings of the named task. By default they are those of its reversal, and of the head.
        classes: The number of classes of each label column.
        streams: The seed of what the task draws when it is bound.

    Raises:
        SpecError: For a head that the network lacks, for one of another task, and for one that was trained with other
            settings.
    """
    if isinstance(task, Task):
        if task.needs or not isinstance(task.head, nn.Identity) or type(task).head_for is Task.head_for:
            return task
        kind, name = type(task), _registered_name(type(task), network) or head or ""
    else:
        name = only_task(network) if task is None else task
        kind = TASKS[name]
    head = head or name
    described = _described(network, kind, name, head)
    determined = _determined(kind, name, head, described)
    if isinstance(task, Task):
        fields = task.settings.__pydantic_fields__
        values = {key: value for key, value in determined.items() if getattr(task.settings, key) == fields[key].default}
        bound = kind(dataclasses.replace(task.settings, **values))
    else:
        bound = make_task(name, {**kind.reversal, **determined, **(settings or {})})
    if bound.needs:
        return bound
    bound.bind(network, head, classes or {}, streams or Streams(0))  # type: ignore[arg-type]
    if described is not None:
        wanted = bound.head_for(network.trunk.channels, classes or {})  # type: ignore[union-attr]
        if described != wanted:
            raise SpecError(
                f"head {head!r} is {dict(described)}, and the settings describe {wanted}; "
                "leave its sizes out, or give head=NAME of a head that was trained with them"
            )
    return bound.eval()


def _registered_name(kind: type[Task], network: nn.Module) -> str | None:
    """The name that a task is registered by, one that the network has a head for if there are several."""
    names = [name for name in TASKS if TASKS[name] is kind]
    heads = getattr(network, "heads", {})
    return next((name for name in names if name in heads), names[0] if names else None)


def _described(network: nn.Module, kind: type[Task], name: str, head: str) -> Mapping[str, Any] | None:
    """The description of a head; None for a foreign one. SpecError for a head that the network lacks."""
    heads = getattr(network, "heads", {})
    if head not in heads:
        raise SpecError(
            f"the network has no head {head!r} for task {name or kind.__name__!r}, only {', '.join(heads) or 'none'}; "
            "train one in a stage that trains the heads"
        )
    return getattr(heads[head], "description", None)


def _determined(kind: type[Task], name: str, head: str, described: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The task's settings that a head determines; SpecError for the head of another task."""
    try:
        return kind.settings_of(described) if described is not None else {}
    except KeyError as error:
        # A task looks for what every head of its own describes.
        raise SpecError(
            f"head {head!r} is {described}, which is no head of task {name or kind.__name__!r}; "
            "give head=NAME of a head that was trained on that task"
        ) from error
