"""The settings of a reverse attack as a user writes them, and the task that they ask for.

Settings of the task stand among those of the reversal; what the reversal does not know goes to the task.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from torch import nn

from unfool.core.config import build, configured
from unfool.core.errors import SpecError
from unfool.core.spec import parse_number, unknown
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.tasks.base import TASKS, Task, make_task

Start = Literal["random", "image"]
Keep = Literal["last", "best"]


def _number(value: Any) -> Any:
    return parse_number(value, "number") if isinstance(value, str) else value


@configured
class ReverseSettings:
    """Task (default: the only one that the network has a head for) and head (default: the one named like the task),
    and what `Reverse` takes.

    ``eps`` belongs to ``norm``; ``step_size`` is an eighth of it by default. ``preset`` is one of those that the tasks
    declare, and fills in what is not given.
    """

    task: str
    head: str | None = None
    norm: str = "linf"
    eps: str | float | None = None
    steps: int = Field(default=40, ge=0)
    step_size: Annotated[float, BeforeValidator(_number), Field(ge=0, allow_inf_nan=False)] | None = None
    start: Start = "random"
    keep: Keep = "last"
    draws: int = Field(default=1, ge=1)
    redraw: bool = True
    precision: Literal["fp32", "bf16"] = "fp32"
    preset: str | None = None

    @property
    def threat(self) -> ThreatModel:
        """The ball; SpecError for a norm without an eps."""
        eps = self.eps
        if eps is None:
            if self.norm != "linf":
                raise SpecError(f"norm={self.norm} was given without eps; give eps beside it, such as eps=1.0")
            eps = "16/255"
        return ThreatModel.parse(f"{self.norm}:{eps}")


def with_preset(values: Mapping[str, Any], network: nn.Module) -> dict[str, Any]:
    """The values, filled up by their preset; a task is among them. SpecError if no preset or task can be meant."""
    filled = dict(values)
    if "preset" in values:
        presets = {name: {"task": task, **found} for task in TASKS for name, found in TASKS[task].presets.items()}
        if values["preset"] not in presets:
            raise unknown("preset", str(values["preset"]), presets)
        filled = presets[values["preset"]] | filled
    return filled if "task" in filled else {"task": _only_task(network), **filled}


def _only_task(network: nn.Module) -> str:
    heads = list(getattr(network, "heads", {}))
    found = [name for name in heads if name in TASKS and not make_task(name).needs]
    if len(found) != 1:
        raise SpecError(
            f"the network has heads for {len(found)} tasks without labels ({', '.join(found) or 'none'}), and no task "
            "was named; say which to reverse with task=NAME, or train a head for one in a stage that moves the heads"
        )
    return found[0]


def split_settings(what: str, values: Mapping[str, Any]) -> tuple[ReverseSettings, dict[str, Any]]:
    """What is the reversal's and what its task's; SpecError for what is neither's."""
    own = {field.name for field in dataclasses.fields(ReverseSettings)}  # type: ignore[arg-type]
    known = own | {field.name for field in dataclasses.fields(TASKS[values["task"]].Settings)}
    for key in values:
        if key not in known:
            raise unknown(f"key of {what}", str(key), known)
    settings = build(ReverseSettings, {key: value for key, value in values.items() if key in own}, what)
    return settings, {key: value for key, value in values.items() if key not in own}


def bound_task(
    own: ReverseSettings, others: Mapping[str, Any], network: nn.Module, classes: Mapping[str, int], streams: Streams
) -> Task:
    """The task on the head that the network has for it, as the head tells it; SpecError if there is none, if it is
    another task's, or if the settings say otherwise than it was trained with."""
    kind, name = TASKS[own.task], own.head or own.task
    heads = getattr(network, "heads", {})
    if name not in heads:
        raise SpecError(
            f"the network has no head {name!r} for task {own.task!r}, only {', '.join(heads) or 'none'}; "
            "train one in a stage that moves the heads"
        )
    told = getattr(heads[name], "description", None)
    try:
        found = kind.settings_of(told) if told is not None else {}
    except KeyError as error:
        # A task looks for what every head of its own tells.
        raise SpecError(
            f"head {name!r} is {told}, which is no head of task {own.task!r}; "
            "give head=NAME of a head that was trained on that task"
        ) from error
    task = make_task(own.task, {**kind.reversal, **found, **others})
    task.bind(network, name, classes, streams)  # type: ignore[arg-type]
    if told is not None and told != (wanted := task.head_for(network.trunk.channels, classes)):  # type: ignore[union-attr]
        raise SpecError(
            f"head {name!r} is {dict(told)}, and the settings describe {wanted}; "
            "leave its sizes out, or give head=NAME of a head that was trained with them"
        )
    return task.eval()
