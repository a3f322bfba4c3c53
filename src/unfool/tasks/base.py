"""What a task is, and the table of all tasks.

Legend: B images, V views of each (N = V·B, view-major), D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unfool.core.batch import Batch, Views
from unfool.core.config import NoSettings, build
from unfool.core.errors import SpecError
from unfool.core.registry import Registry
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.models.heads import build_head
from unfool.models.network import Network

TASKS: Registry[type[Task]] = Registry("task", "unfool.tasks")


@dataclass(frozen=True, kw_only=True, eq=False)
class ParameterGroup:
    """Parameters with an optimizer of their own, at ``rate`` times the stage's learning rate."""

    parameters: tuple[nn.Parameter, ...]
    rate: float = 1.0


class Task(nn.Module):
    """One loss per image on a shared network: views that make every random choice, losses that make none.

    A subclass declares ``head_for`` and the two halves, and ``Settings`` (a ``configured`` dataclass) if it has any.
    ``settings`` then holds them, and ``head`` its head, which lives in the network under the task's name.
    """

    Settings: ClassVar[type] = NoSettings
    reversal: ClassVar[Mapping[str, Any]] = {}
    """Settings that a reversal takes unless it is told others."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Settings of published reversals by name, the task's own and the reversal's together."""

    def __init__(self, settings: Any):
        super().__init__()
        self.settings = settings
        self.head: nn.Module = nn.Identity()
        self.strength = 1.0
        """Share of its full strength that the augmentation has at present, 0 to 1; `at` may change it."""
        self.learning = False
        """Whether the losses that are asked for are learnt from. A stage says so in its learning passes; False while
        examples are crafted, and everywhere outside training. What a task remembers of a step, it remembers then."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Label columns the task reads; empty for a pretext task, and only such a task can be reversed."""
        return ()

    @property
    def coupled(self) -> bool:
        """True if an image's loss depends on its batch-mates; then no active set is possible."""
        return False

    @property
    def optimizers(self) -> Mapping[str, ParameterGroup]:
        """Named groups of parameters that are stepped in turn after all others, on losses of their own; none here.

        The losses that the others learn from must leave them alone, and `turn_losses` must move nothing else.
        """
        return {}

    @classmethod
    def settings_of(cls, head: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that a head's description tells, so that a defense need not be told them again; none here."""
        return {}

    def head_for(self, channels: Mapping[str, int], classes: Mapping[str, int]) -> dict[str, Any]:
        """Describe the head (see models.heads) for a trunk's channels per stage and the classes per label column."""
        raise SpecError(f"task {type(self).__name__} describes no head; define head_for")

    def bind(self, network: Network, name: str, classes: Mapping[str, int], streams: Streams) -> None:
        """Take the head called ``name`` of a network, adding it with weights from ``streams`` if there is none."""
        if name not in network.heads:
            network.heads[name] = build_head(self.head_for(network.trunk.channels, classes), streams.named(name))
        self.head = network.heads[name]

    def calibrate(self, network: Network, table: Table, streams: Streams) -> None:
        """Learn what the losses need beside the weights, a bank of negatives say, from images; by default nothing.

        No label is read, and nothing of the network changes. What is learnt is a buffer of the task.
        """

    def at(self, done: float) -> None:
        """Called before each training step with the share of the stage that is done, 0 ≤ done < 1; a task whose
        difficulty follows a schedule sets it here, from this share alone."""

    def after_step(self) -> None:
        """Called once in each training step, after the losses that are learnt from; never while examples are crafted.

        What a task keeps of a step, a queue of negatives say, is a buffer of it, and is replaced, never written into.
        """

    def views(self, batch: Batch, streams: Streams | None) -> Views:
        """What the network is shown; ``streams`` None asks for the canonical, deterministic views."""
        raise SpecError(f"task {type(self).__name__} makes no views; define views")

    def losses(self, outputs: Tensor, views: Views) -> Tensor:
        """Losses (B,) from the trunk's features (V·B, ...) at ``views.stage``; higher is worse."""
        raise SpecError(f"task {type(self).__name__} has no losses; define losses")

    def turn_losses(self, group: str) -> Tensor:
        """Losses (B,) for a group of ``optimizers``, on what the last ``losses`` were computed from; called once
        in each training step, after the others have moved. It makes no pass through the trunk."""
        raise SpecError(f"task {type(self).__name__} has no losses for its {group}; define turn_losses")

    def scores(self, outputs: Tensor, views: Views) -> dict[str, Tensor]:
        """Figures worth a training curve beside the loss, each (B,); none by default."""
        return {}


def at_least_fp32(outputs: Tensor) -> Tensor:
    """Half-precision outputs as fp32, others as they are: a loss computed in bf16 would lose tenths of a nat."""
    return outputs if outputs.dtype.itemsize >= torch.float32.itemsize else outputs.float()


def make_task(name: str, settings: Mapping[str, Any] | None = None) -> Task:
    """Make a registered task; SpecError with the nearest name for an unknown task or key."""
    cls = TASKS[name]
    return cls(build(cls.Settings, dict(settings or {}), f"task {name!r}"))
