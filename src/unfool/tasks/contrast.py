# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
"""Contrast: the views of an image attract each other and repel those of other images.

The losses stand in ``contrast_losses``; this is the task around them, with its negatives: the batch-mates, these and a
queue of projections of earlier batches, or a fixed bank of projections of other images, of which every image draws some
rows of its own. With the bank an image's loss depends on its own views and rows alone.

The queue is the cross-batch memory of Wang et al. ("Cross-Batch Memory for Embedding Learning", CVPR 2020, algorithm
1), whose projections come from the same network a few steps ago: there is no momentum encoder as in MoCo. It departs
from the paper in that a batch joins the queue after its own step, since in-batch negatives are there beside it, and in
that it is used from the first step on.

Legend: B images, V views of each (N = V·B, view-major), D dimensions of the projection, M rows of the bank, K drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from unfool.core.batch import Batch, Views
from unfool.core.config import configured
from unfool.core.errors import DataError, SpecError
from unfool.core.streams import Streams
from unfool.data.augment import augmented
from unfool.data.table import Table
from unfool.models.heads import HeadDescription, HeadSetting
from unfool.models.modes import frozen_eval
from unfool.models.network import Network
from unfool.tasks.base import TASKS, Task, at_least_fp32
from unfool.tasks.contrast_losses import CONTRAST_LOSSES
from unfool.tasks.gather import gathered, own_rows

_CHUNK = 256
"""Images a pass while the bank is filled."""

_ROUNDING = 1e-9
"""0.29 · 100 is 28.999999999999996, and a step of the decay would come late."""


TASKS.alias("simclr", "contrast")


@TASKS.add("contrast")
class Contrast(Task):
    """Tell the views of an image from those of others: a projection head, and a loss over views and negatives.

    After SimCLR (Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020). The
    canonical views are those of a fixed seed: contrast needs two different views of an image.

    Raises:
        SpecError: for more ``drawn`` negatives than the bank has rows.
        DataError: from ``calibrate``, for a table with fewer images than the bank has rows.

    Example:
        >>> from unfool import make_task
        >>> make_task("contrast").coupled  # negatives are the batch-mates
        True
        >>> make_task("contrast", {"negatives": "bank"}).coupled
        False
    """

    reversal: ClassVar[Mapping[str, Any]] = {"negatives": "bank"}
    # The code of Mao et al. (ICCV 2021), which has batches of 512.
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mao2021": {
            "norm": "linf",
            "eps": "16/255",
            "steps": 40,
            "step_size": "2/255",
            "start": "random",
            "keep": "last",
            "redraw": True,
            "views": 4,
            "temperature": 0.2,
            "loss": "first-positive",
            "negatives": "batch",
            "batch_size": 512,
            "augmentation": "mao2021",
        }
    }
    bank: Tensor

    @configured
    class Settings:
        """Settings of the task contrast."""

        temperature: float = Field(
            default=0.07, gt=0, allow_inf_nan=False, description="What cosines are divided by; of margin, its width."
        )
        size: int = Field(default=128, ge=1, description="Dimensions of the projection.")
        hidden: int = Field(
            default=0, ge=0, description="Units of the head's hidden layer; 0: as many as the trunk has features."
        )
        head_norm: Literal["none", "batch"] = Field(
            default="none", description="Norm in the head; batch as in Mao et al. (ICCV 2021)."
        )
        augmentation: str = Field(default="simclr", description="Augmentation of the views.")
        views: int = Field(default=2, ge=2, description="Views of an image.")
        loss: str = Field(
            default="nt-xent",
            description="Loss: nt-xent, first-positive, multi-positive, margin, cosine, or another that is registered.",
        )
        negatives: Literal["batch", "queue", "bank"] = Field(
            default="batch",
            description="Negatives: batch (the batch-mates' views), queue (these, and projections of earlier training "
            "steps) or bank (projections of other images, of which each image draws some).",
        )
        bank: int = Field(default=512, ge=1, description="Rows of the bank or the queue.")
        drawn: int = Field(default=256, ge=1, description="Negatives that each image draws from the bank.")
        decay: int = Field(
            default=0,
            ge=0,
            description="Equal steps in which the augmentation weakens over a stage, down to 1/decay of its strength "
            "(DynACL, Luo et al., ICLR 2023: 20); 0: it stays.",
        )

        @field_validator("loss")
        @classmethod
        def _known(cls, loss: str) -> str:
            return CONTRAST_LOSSES.canonical(loss)

    settings: Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        if settings.negatives == "bank" and settings.drawn > settings.bank:
            raise SpecError(f"drawn={settings.drawn} is more than the bank={settings.bank} has; give at most that")
        rows = settings.bank if self._uses("bank") or self._uses("queue") else 0
        # Of a queue: the newest first, and zeros where nothing has been pushed yet.
        self.register_buffer("bank", torch.zeros(rows, settings.size))
        self._latest: Tensor | None = None

    @property
    def coupled(self) -> bool:
        """Only in-batch negatives, with a queue or without, look at batch-mates."""
        return self._uses("batch") or self._uses("queue")

    def _uses(self, negatives: str) -> bool:
        """Whether the loss takes negatives of this kind."""
        return CONTRAST_LOSSES[self.settings.loss].uses_negatives and self.settings.negatives == negatives

    @classmethod
    def settings_of(cls, head: Mapping[str, HeadSetting]) -> dict[str, HeadSetting | bool]:
        """The size, hidden width and norm of a projection head."""
        return {"size": head["outputs"], "hidden": head["hidden"], "head_norm": head.get("norm", "none")}

    def head_for(self, channels: Mapping[str, int], classes: Mapping[str, int]) -> HeadDescription:
        inputs, settings = channels["last"], self.settings
        head: HeadDescription = {
            "kind": "mlp",
            "inputs": inputs,
            "hidden": settings.hidden or inputs,
            "outputs": settings.size,
        }
        return head if settings.head_norm == "none" else {**head, "norm": settings.head_norm}

    def calibrate(self, network: Network, table: Table, streams: Streams) -> None:
        """Fill the bank with normalised projections of one view each of images drawn from a table; labels play no part.

        Does nothing without a bank. Raises DataError if the table has fewer images than the bank rows.
        """
        if not self._uses("bank"):
            return
        rows = self.settings.bank
        if len(table) < rows:
            raise DataError(
                f"a bank of {rows} negatives cannot be drawn from {table!r}; give more images, or bank={len(table)} or "
                "fewer"
            )
        draws, chosen = streams.named("bank"), table.sample(rows, streams.named("bank"))
        device = next(network.parameters()).device
        projections = []
        with torch.no_grad(), frozen_eval(network), frozen_eval(self):
            for start in range(0, rows, _CHUNK):
                batch = chosen.batch(torch.arange(start, min(start + _CHUNK, rows)), device)
                views = augmented(batch, self.settings.augmentation, 1, draws)
                features = network.features(views.to(next(network.parameters()).dtype))
                projections.append(F.normalize(at_least_fp32(self.head(features)), dim=1))
        self.bank = torch.cat(projections)

    def at(self, done: float) -> None:
        steps = self.settings.decay
        if steps:
            self.strength = 1.0 - math.floor(done * steps + _ROUNDING) / steps

    def after_step(self) -> None:
        """Push the projections of the step's losses into the queue, detached."""
        if self._latest is not None:
            fresh = F.normalize(self._latest, dim=1)[: len(self.bank)].to(self.bank)
            self.bank = torch.cat([fresh, self.bank[: len(self.bank) - len(fresh)]])
            self._latest = None

    def views(self, batch: Batch, streams: Streams | None) -> Views:
        streams = Streams(0).named("canonical") if streams is None else streams
        images = augmented(batch, self.settings.augmentation, self.settings.views, streams, self.strength)
        rows = None
        if self._uses("bank"):
            if not self.bank[0].any():
                raise SpecError("contrast's bank of negatives is empty; call calibrate first, or set negatives=batch")
            rows = streams.named("negatives").permutation(batch.ids, len(self.bank))[:, : self.settings.drawn]
        return Views(images=images, count=self.settings.views, targets=rows)

    def losses(self, outputs: Tensor, views: Views) -> Tensor:
        z_ND = at_least_fp32(self.head(outputs))
        loss, count, temperature = CONTRAST_LOSSES[self.settings.loss], views.count, self.settings.temperature
        if not self.coupled:
            negatives = None if views.targets is None else self.bank[views.targets].to(z_ND)
            return loss(z_ND, count, temperature, negatives)
        z_ND, queue = gathered(z_ND, count), None
        if self._uses("queue"):
            if self.learning:
                self._latest = z_ND.detach()
            queue = self.bank[self.bank.any(1)].to(z_ND)
        return own_rows(loss(z_ND, count, temperature, queue=queue))
