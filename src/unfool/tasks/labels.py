# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Classification: cross-entropy on one label column."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from unfool.core.batch import Batch, Views
from unfool.core.config import configured
from unfool.core.spec import unknown
from unfool.core.streams import Streams
from unfool.data.augment import augmented
from unfool.models.heads import HeadDescription
from unfool.tasks.base import TASKS, Task, at_least_fp32
from unfool.tasks.paired_losses import PairedLoss


@TASKS.add("labels")
class Labels(Task):
    """Classify every view of an image; the loss is the mean cross-entropy over its views.

    The canonical view is the image itself.

    Example:
        >>> from unfool import make_task
        >>> task = make_task("labels", {"column": "coarse_label", "hidden": 64})
        >>> task.needs
        ('coarse_label',)
    """

    @configured
    class Settings:
        """Settings of the task labels."""

        column: str = Field(default="label", description="Column that holds the labels.")
        augmentation: str = Field(default="crop-flip", description="Augmentation of the views, or none.")
        views: int = Field(default=1, ge=1, description="Views of an image.")
        hidden: int = Field(default=0, ge=0, description="Units of the head's hidden layer; 0: a linear head.")

    settings: Settings

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.settings.column,)

    def head_for(self, channels: Mapping[str, int], classes: Mapping[str, int]) -> HeadDescription:
        if self.settings.column not in classes:
            raise unknown("label column", self.settings.column, classes)
        inputs, outputs, hidden = channels["last"], classes[self.settings.column], self.settings.hidden
        if hidden:
            return {"kind": "mlp", "inputs": inputs, "hidden": hidden, "outputs": outputs}
        return {"kind": "linear", "inputs": inputs, "outputs": outputs}

    def views(self, batch: Batch, streams: Streams | None) -> Views:
        count = self.settings.views if streams is not None else 1
        images = augmented(batch, self.settings.augmentation, count, streams)
        # A classifier of another library has outputs of its own, which no head of ours computes.
        stage = getattr(self.head, "stage", "last")
        return Views(images=images, count=count, targets=batch.labels(self.settings.column), stage=stage)

    def losses(self, outputs: Tensor, views: Views) -> Tensor:
        logits = at_least_fp32(self.head(outputs))
        targets = views.targets.repeat(views.count)
        return F.cross_entropy(logits, targets, reduction="none").unflatten(0, (views.count, -1)).mean(0)

    def paired_losses(self, loss: PairedLoss, clean: Tensor, perturbed: Tensor, views: Views) -> Tensor:
        """Losses (B,) from the features (V·B, ...) of the views as they were and perturbed."""
        clean_logits, perturbed_logits = (at_least_fp32(self.head(outputs)) for outputs in (clean, perturbed))
        return (
            loss(clean_logits, perturbed_logits, views.targets.repeat(views.count))
            .unflatten(0, (views.count, -1))
            .mean(0)
        )

    def scores(self, outputs: Tensor, views: Views) -> dict[str, Tensor]:
        right = self.head(outputs).argmax(1) == views.targets.repeat(views.count)
        return {"accuracy": right.float().unflatten(0, (views.count, -1)).mean(0)}
