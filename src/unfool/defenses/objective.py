"""Objectives of defenses: a task's loss through its views, and a label loss that minds it.

Legend: B images of the original batch, n of them in play, V views of each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfool.attacks.objective import LabelLoss, ObjectiveValue
from unfool.core.batch import Batch
from unfool.core.streams import Streams
from unfool.tasks.base import Task


class Pretext(nn.Module):
    """A network and a task on it as one module, so that a copy of both keeps the head that they share.

    ``network`` gives ``features(images, stage)``.
    """

    network: Any
    task: Task

    def __init__(self, network: nn.Module, task: Task):
        super().__init__()
        self.network = network
        self.task = task

    def forward(self, images: Tensor, ids: Tensor, streams: Streams | None) -> tuple[Tensor, int]:
        """Losses (n,), differentiable in the images, and the number of views V; all views pass the trunk at once."""
        views = self.task.views(Batch(images=images, ids=ids), streams)
        # Channels-last images save a fifth of a network's time.
        shown = views.images.contiguous(memory_format=torch.channels_last)
        return self.task.losses(self.network.features(shown, views.stage), views), views.count


class TaskObjective:
    """A task's loss as an objective, on views that every call draws anew (``redraw``), or on those of the first.

    ``path`` are the losses of all calls so far, (n,) each; ``draws`` how many images one image costs, as the engines
    count them; ``ids`` (B,).
    """

    def __init__(self, pretext: Pretext, ids: Tensor, streams: Streams, *, redraw: bool = True):
        self.pretext = pretext
        self.ids = ids
        self.streams = streams
        self.redraw = redraw
        self.path: list[Tensor] = []
        self.draws = 1

    def losses(self, images: Tensor, rows: Tensor, call: int) -> Tensor:
        """The losses (n,) of the call of that number, from 0."""
        found, self.draws = self.pretext(images, self.ids[rows], self.streams.at(call if self.redraw else 0))
        return found

    def __call__(self, images: Tensor, rows: Tensor) -> ObjectiveValue:
        losses = self.losses(images, rows, len(self.path))
        self.path.append(losses.detach())
        return ObjectiveValue(losses=losses)


class DefenseAware(LabelLoss):
    """A label loss less ``weight`` times what a defense would notice: images that fool the static model unnoticed.

    With a task's loss as ``notice`` (images (n, C, H, W), rows (n,) → (n,)) this is the attack of Mao et al. (ICCV
    2021, section 4.4). With a ``threshold`` only what exceeds it counts: the hinge against a gate. ``fooled`` is the
    model's, not the defense's: judge the points by the defense.
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        labels: Tensor,
        notice: Callable[[Tensor, Tensor], Tensor],
        weight: float,
        loss: str = "ce",
        *,
        threshold: float | None = None,
        **settings: Any,
    ):
        super().__init__(model, labels, loss, **settings)
        self.notice = notice
        self.weight = weight
        self.threshold = threshold

    def __call__(self, images: Tensor, rows: Tensor) -> ObjectiveValue:
        value = super().__call__(images, rows)
        noticed = self.notice(images, rows if self.origin is None else self.origin[rows])
        if self.threshold is not None:
            noticed = F.relu(noticed - self.threshold)
        return ObjectiveValue(losses=value.losses - self.weight * noticed, fooled=value.fooled)
