"""What a task is, and the registry of all tasks.

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
from unfool.core.spec import unknown
from unfool.core.streams import Streams
from unfool.data.augment import AUGMENTATIONS
from unfool.data.table import Table
from unfool.models.heads import HeadDescription, HeadSetting, build_head
from unfool.models.network import Network


@dataclass(frozen=True, kw_only=True, eq=False)
class ParameterGroup:
    """Parameters with an optimizer of their own, at ``rate`` times the stage's learning rate."""

    parameters: tuple[nn.Parameter, ...]
    rate: float = 1.0


class Task(nn.Module):
    """One loss per image on a shared network: views that make every random choice, losses that make none.

    A subclass is registered with ``@TASKS.add("name")``. It defines `head_for`, `views` and `losses`, and ``Settings``
    (a ``configured`` dataclass) if it has any. Then it can be trained, attacked and, if it reads no labels, reversed.

    Args:
        settings: The task's ``Settings``, filled and checked; `make_task` does that.

    Example:
        >>> import torch
        >>> from unfool import Network, Table, TrunkSpec, make_task
        >>> from unfool.core.streams import Streams
        >>> network = Network.build(TrunkSpec(name="convnet"), {})
        >>> task = make_task("rotation")
        >>> task.bind(network, "rotation", {}, Streams(0))  # adds a head with fresh weights
        >>> batch = Table.from_tensors(torch.rand(5, 3, 16, 16)).batch(torch.arange(5))
        >>> views = task.views(batch, Streams(1))
        >>> views.images.shape
        torch.Size([20, 3, 16, 16])
        >>> task.losses(network.features(views.images, views.stage), views).shape
        torch.Size([5])
    """

    Settings: ClassVar[type] = NoSettings
    reversal: ClassVar[Mapping[str, Any]] = {}
    """The task's settings where it is reversed, unless others are given."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Settings of published reversals by name, the task's own and the reversal's together."""
    score_names: ClassVar[tuple[str, ...]] = ("accuracy",)
    """What `scores` may give: each has a column of ``metrics.csv``, which stays empty for a task without scores."""

    def __init__(self, settings: Any):
        super().__init__()
        self.settings = settings
        self.head: nn.Module = nn.Identity()
        """The task's head, which lives in the network under the task's name."""
        self.strength = 1.0
        """Share of its full strength that the augmentation has at present, 0 to 1; `at` may change it."""
        self.learning = False
        """Whether the next losses are learnt from: True in a stage's learning passes; False while examples are crafted,
        and everywhere outside training. What a task remembers of a step, it remembers where this is True."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Label columns the task reads; empty for a pretext task, and only such a task can be reversed."""
        return ()

    @property
    def coupled(self) -> bool:
        """Whether an image's loss depends on its batch-mates; then no active set is possible."""
        return False

    @property
    def optimizers(self) -> Mapping[str, ParameterGroup]:
        """Groups of parameters that are stepped in turn after all others, on losses of their own, by name.

        The losses that the others learn from must leave them alone, and `turn_losses` must move nothing else.
        """
        return {}

    @classmethod
    def settings_of(cls, head: Mapping[str, HeadSetting]) -> dict[str, HeadSetting | bool]:
        """The settings that a head's description determines, so that a defense need not be given them again."""
        return {}

    def head_for(self, channels: Mapping[str, int], classes: Mapping[str, int]) -> HeadDescription:
        """Describe the task's head, as `build_head` takes it.

        Args:
            channels: The trunk's channels after each stage.
            classes: Number of classes of each label column.
        """
        raise SpecError(f"task {type(self).__name__} describes no head; define head_for")

    def bind(self, network: Network, name: str, classes: Mapping[str, int], streams: Streams) -> None:
        """Take the head called ``name`` of a network, adding it with weights from ``streams`` if there is none."""
        if name not in network.heads:
            network.heads[name] = build_head(self.head_for(network.trunk.channels, classes), streams.named(name))
        self.head = network.heads[name]

    def calibrate(self, network: Network, table: Table, streams: Streams) -> None:
        """Compute what the losses need beside the weights, such as a bank of negatives, from images; nothing here.

        It reads no label and changes nothing of the network. The result is a buffer of the task.
        """

    def at(self, done: float) -> None:
        """Set what follows a schedule from the share of the stage that is done, 0 ≤ done < 1, and from it alone.

        Called before each training step.
        """

    def after_step(self) -> None:
        """Store what is remembered of a step, such as a queue of negatives.

        Called once in each training step, after the losses that are learnt from; never while examples are crafted. What
        is stored is a buffer of the task, which is replaced, never written into.
        """

    def views(self, batch: Batch, streams: Streams | None) -> Views:
        """What the network is shown of a batch, differentiable in its images.

        Args:
            batch: The images, their ids and labels.
            streams: Where every random choice is drawn from; None: the canonical views, which are deterministic.
        """
        raise SpecError(f"task {type(self).__name__} makes no views; define views")

    def losses(self, outputs: Tensor, views: Views) -> Tensor:
        """Losses (B,) from the trunk's features (V·B, ...) at ``views.stage``; higher is worse."""
        raise SpecError(f"task {type(self).__name__} has no losses; define losses")

    def turn_losses(self, group: str) -> Tensor:
        """Losses (B,) that a group of ``optimizers`` learns from, on what the last ``losses`` were computed from.

        Called once in each training step, after the others have moved. It makes no pass through the trunk.
        """
        raise SpecError(f"task {type(self).__name__} has no losses for its {group}; define turn_losses")

    def scores(self, outputs: Tensor, views: Views) -> dict[str, Tensor]:
        """Figures worth a training curve beside the loss, each (B,), by names of ``score_names``; none by default."""
        return {}


TASKS: Registry[type[Task]] = Registry("task", "unfool.tasks", subclass_of=Task)
"""Task classes by name. ``@TASKS.add("mine")`` over a class adds a task."""


def at_least_fp32(outputs: Tensor) -> Tensor:
    """Half-precision outputs as fp32, others as they are: a loss computed in bf16 would lose tenths of a nat."""
    return outputs if outputs.dtype.itemsize >= torch.float32.itemsize else outputs.float()


def make_task(name: str, settings: Mapping[str, object] | None = None) -> Task:
    """Make a registered task.

    Args:
        name: One of `TASKS`, such as "labels", "rotation", "jigsaw", "contrast" or "inpainting".
        settings: Fields of the task's ``Settings``; those left out take their defaults.

    Returns:
        The task, without a head until it is bound to a network.

    Raises:
        SpecError: for an unknown task or setting, with the nearest name, and for a value that is not allowed.

    Example:
        >>> make_task("contrast", {"temperature": 0.2}).settings.temperature
        0.2
    """
    cls = TASKS[name]
    task = cls(build(cls.Settings, dict(settings or {}), f"task {name!r}"))
    augmentation = getattr(task.settings, "augmentation", None)
    if augmentation is not None and augmentation not in AUGMENTATIONS:
        raise unknown("augmentation", str(augmentation), AUGMENTATIONS)
    return task
