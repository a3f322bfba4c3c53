# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Rotation: by how many quarter turns was the image rotated? A pretext task with four classes.

Legend: B images, V views of each (N = V·B, view-major), C channels, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from unfool.core.batch import Batch, Views
from unfool.core.config import configured
from unfool.core.errors import ImagesError
from unfool.core.streams import Streams
from unfool.data.augment import augmented
from unfool.models.heads import HeadDescription
from unfool.tasks.base import TASKS, Task, at_least_fp32

TURNS = 4


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """Square images (B, C, S, S), each turned by its own number (B,) of quarters counter-clockwise, 0 to 3.

    Pixels are moved and never computed: the result is ``torch.rot90`` of each image, bit for bit.
    """
    turns = turns[:, None, None, None]
    # A quarter turn is a transposition and a flip; half a turn is both flips.
    images = torch.where(turns % 2 == 1, images.transpose(2, 3), images)
    images = torch.where((turns == 1) | (turns == 2), images.flip(2), images)
    return torch.where(turns >= 2, images.flip(3), images)


@TASKS.add("rotation")
class Rotation(Task):
    """Predict by how many quarter turns an image was rotated; the loss is the mean cross-entropy over its views.

    After Gidaris et al. ("Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018, equations 2
    and 3). The canonical views are all four turns of the image itself.

    Raises:
        ImagesError: from ``views``, for images that are not square.

    Example:
        >>> from unfool import make_task
        >>> make_task("rotation").settings.views, make_task("rotation", {"turns": "one"}).settings.views
        (4, 1)
    """

    @configured
    class Settings:
        """Settings of the task rotation."""

        turns: Literal["all", "one"] = Field(
            default="all", description="Turns of an image in a batch: all four, as in the paper, or a drawn one."
        )
        augmentation: str = Field(default="crop-flip", description="Augmentation before the turn, or none.")

        @property
        def views(self) -> int:
            """Views of an image when they are drawn."""
            return TURNS if self.turns == "all" else 1

    settings: Settings

    def head_for(self, channels: Mapping[str, int], classes: Mapping[str, int]) -> HeadDescription:
        return {"kind": "linear", "inputs": channels["last"], "outputs": TURNS}

    def views(self, batch: Batch, streams: Streams | None) -> Views:
        height, width = batch.images.shape[2:]
        if height != width:
            raise ImagesError(
                f"rotation got images of {height}×{width} pixels, and a quarter turn would change their shape; "
                "give square images"
            )
        images = augmented(batch, self.settings.augmentation, 1, streams)
        if streams is None or self.settings.turns == "all":
            every = torch.cat([images.rot90(turn, (2, 3)) for turn in range(TURNS)])
            targets = torch.arange(TURNS, device=images.device).repeat_interleave(len(images))
            return Views(images=every, count=TURNS, targets=targets)
        turns = streams.named("rotation").integers(batch.ids, TURNS)
        return Views(images=turned(images, turns), targets=turns)

    def losses(self, outputs: Tensor, views: Views) -> Tensor:
        logits = at_least_fp32(self.head(outputs))
        return F.cross_entropy(logits, views.targets, reduction="none").unflatten(0, (views.count, -1)).mean(0)

    def scores(self, outputs: Tensor, views: Views) -> dict[str, Tensor]:
        right = self.head(outputs).argmax(1) == views.targets
        return {"accuracy": right.float().unflatten(0, (views.count, -1)).mean(0)}
