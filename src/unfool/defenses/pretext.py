"""Pretext losses of defenses: a task's loss through its views, as a module and as an objective of the engines.

Legend: B images of the original batch, n of them in play, V views of each.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unfool.attacks.objective import ObjectiveValue
from unfool.core.batch import Batch
from unfool.core.streams import Streams
from unfool.models.network import memory_format_of
from unfool.tasks.base import Task


class PretextLoss(Protocol):
    """A self-supervised loss of images, which needs no labels; lower is more natural.

    Any object with these two members is one; `Defense.pretext` declares it.

    Example:
        >>> class Roughness:
        ...     images_per_loss = 0  # it sends no image through a network
        ...     def __call__(self, images, ids, streams):
        ...         return images.diff(dim=3).abs().flatten(1).mean(1)
        >>> Roughness()(torch.full((2, 3, 8, 8), 0.5), None, None).tolist()
        [0.0, 0.0]
    """

    @property
    def images_per_loss(self) -> int:
        """How many images go through the network for one image's loss."""
        ...

    def __call__(self, images: Tensor, ids: Tensor, streams: Streams) -> Tensor:
        """Losses (n,) of images (n, C, H, W), differentiable in them; ``ids`` (n,) and ``streams`` choose the draws."""
        ...


class TaskLoss(nn.Module):
    """A task's loss on a network: both as one module, so that a copy of it keeps the head that they share.

    ``network`` gives ``features(images, stage)``. Of a task that looks at batch-mates a single image gets one mate: the
    same picture of uniform noise every time. The last image that an attack is left with has this mate, and so has an
    image that is classified by itself.
    """

    network: Any
    task: Task

    def __init__(self, network: nn.Module, task: Task):
        super().__init__()
        self.network = network
        self.task = task

    @property
    def images_per_loss(self) -> int:
        """The views of an image."""
        return getattr(self.task.settings, "views", 1)

    def forward(self, images: Tensor, ids: Tensor, streams: Streams) -> Tensor:
        """Losses (n,), differentiable in the images; all views pass the trunk at once."""
        if len(images) == 1 and self.task.coupled:
            mate = Streams(0).named("mate").uniform(ids.new_zeros(1), tuple(images.shape[1:])).to(images)
            return self(torch.cat([images, mate]), ids.repeat(2), streams)[:1]
        views = self.task.views(Batch(images=images, ids=ids), streams)
        shown = views.images.to(memory_format=memory_format_of(self.network))
        return self.task.losses(self.network.features(shown, views.stage), views)


class PretextObjective:
    """A pretext loss as an objective, on views that every call draws anew (``redraw``), or on those of the first.

    ``path`` holds the losses of all calls so far, (n,) each; ``draws`` is how many images one image costs, as the
    engines count them; ``ids`` (B,).
    """

    def __init__(self, pretext: PretextLoss, ids: Tensor, streams: Streams, *, redraw: bool = True):
        self.pretext = pretext
        self.ids = ids
        self.streams = streams
        self.redraw = redraw
        self.path: list[Tensor] = []
        self.draws = pretext.images_per_loss

    def losses(self, images: Tensor, rows: Tensor, call: int) -> Tensor:
        """The losses (n,) of the call of that number, from 0."""
        return self.pretext(images, self.ids[rows], self.streams.at(call if self.redraw else 0))

    def __call__(self, images: Tensor, rows: Tensor) -> ObjectiveValue:
        losses = self.losses(images, rows, len(self.path))
        self.path.append(losses.detach())
        return ObjectiveValue(losses=losses)
