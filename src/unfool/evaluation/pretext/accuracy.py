"""Loss and accuracy of a pretext task on held-out images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.core.errors import DataError
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.evaluation.crafting.batches import BATCH_SIZE, device_of
from unfool.evaluation.intervals import wilson
from unfool.models.modes import frozen_eval
from unfool.models.network import Network
from unfool.tasks import Task


@dataclass(frozen=True, kw_only=True)
class PretextQuality:
    """Mean ``loss`` of the task over ``count`` images; ``accuracy`` with its 95 % interval where the task has one."""

    loss: float
    count: int
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """The figures as JSON takes them."""
        return dict(vars(self))


def pretext_quality(
    network: Network,
    task: Task,
    table: Table,
    *,
    seed: int = 0,
    change: Callable[[Tensor], Tensor] | None = None,
) -> PretextQuality:
    """Evaluate a task that is bound to the network on one random set of views of each image of a table, in eval mode.

    The accuracy is the task's score of that name, one answer an image. ``change`` transforms the images (B, C, H, W)
    first, to see whether the task is still solved. Raises DataError for a table without images.
    """
    if not len(table):
        raise DataError(f"{table.name} has no images to evaluate a task on; give a larger set")
    device, streams = device_of(network), Streams(seed).named("pretext")
    losses, right = [], []
    with frozen_eval(network), frozen_eval(task), torch.no_grad():
        for rows in torch.arange(len(table)).split(BATCH_SIZE):
            batch = table.batch(rows, device)
            views = task.views(batch if change is None else batch.with_images(change(batch.images)), streams)
            outputs = network.features(views.images, views.stage)
            losses.append(task.losses(outputs, views).double())
            if (score := task.scores(outputs, views).get("accuracy")) is not None:
                right.append(score)
    loss, count = float(torch.cat(losses).mean()), len(table)
    if not right:
        return PretextQuality(loss=loss, count=count)
    hits = round(float(torch.cat(right).double().sum()))
    low, high = wilson(hits, count)
    return PretextQuality(loss=loss, count=count, accuracy=hits / count, low=low, high=high)
