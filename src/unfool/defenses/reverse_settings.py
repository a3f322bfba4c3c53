"""A reverse attack as a user writes it: settings of the task stand among those of the reversal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from torch import nn

from unfool.core.config import build, configured
from unfool.core.errors import SpecError
from unfool.core.spec import parse_number, unknown
from unfool.core.threat import ThreatModel
from unfool.defenses.bound_task import only_task
from unfool.tasks.base import TASKS

Start = Literal["random", "image"]
Keep = Literal["last", "best"]
Precision = Literal["fp32", "bf16"]


def _number(value: Any) -> Any:
    return parse_number(value, "number") if isinstance(value, str) else value


StepSize = Annotated[float, BeforeValidator(_number), Field(ge=0, allow_inf_nan=False)]
"""The length of a step, as a number or as text such as 2/255."""


@configured
class ReverseSettings:
    """What `Reverse` takes, as text can say it.

    ``task`` is by default the only one that the network has a head for, ``head`` the one named like the task; ``eps``
    belongs to ``norm``. ``preset`` is one of those that the tasks declare, and fills in what is not written.
    """

    task: str
    head: str | None = None
    norm: str = "linf"
    eps: str | float | None = None
    steps: int = Field(default=40, ge=0)
    step_size: StepSize | None = None
    start: Start = "random"
    keep: Keep = "last"
    draws: int = Field(default=1, ge=1)
    redraw: bool = True
    precision: Precision = "fp32"
    batch_size: int = Field(default=512, ge=2)
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


def read_reverse_settings(
    what: str, values: Mapping[str, Any], network: nn.Module
) -> tuple[ReverseSettings, Mapping[str, Any]]:
    """The reversal's settings and its task's, from what was written for both; SpecError for what is neither's."""
    values = _with_preset(values, network)
    own = {field.name for field in dataclasses.fields(ReverseSettings)}  # type: ignore[arg-type]
    known = own | {field.name for field in dataclasses.fields(TASKS[values["task"]].Settings)}
    for key in values:
        if key not in known:
            raise unknown(f"key of {what}", str(key), known)
    settings = build(ReverseSettings, {key: value for key, value in values.items() if key in own}, what)
    return settings, {key: value for key, value in values.items() if key not in own}


def _with_preset(values: Mapping[str, Any], network: nn.Module) -> Mapping[str, Any]:
    """The values, filled up by their preset; a task is among them. SpecError if no preset or task can be meant."""
    filled = dict(values)
    if "preset" in values:
        presets = {name: {"task": task, **preset} for task in TASKS for name, preset in TASKS[task].presets.items()}
        if values["preset"] not in presets:
            raise unknown("preset", str(values["preset"]), presets)
        filled = presets[values["preset"]] | filled
    return filled if "task" in filled else {"task": only_task(network), **filled}
