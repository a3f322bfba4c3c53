"""Contrast: the views of an image attract each other and repel those of other images.

The losses stand in ``contrast_losses``; this is the task around them, with its negatives: the batch-mates, or a fixed
bank of projections of other images, of which every image draws some rows of its own. With the bank an image's loss
depends on its own views and rows alone.

Legend: B images, V views of each (N = V·B, view-major), D dimensions of the projection, M rows of the bank, K drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from unfool.core.batch import Batch, Views
from unfool.core.config import configured
from unfool.core.errors import DataError, SpecError
from unfool.core.streams import Streams
from unfool.data.augment import augmented
from unfool.data.table import ImageTable
from unfool.models.modes import untouched
from unfool.models.network import Network
from unfool.tasks.base import TASKS, Task, at_least_fp32
from unfool.tasks.contrast_losses import CONTRAST_LOSSES

_CHUNK = 256
"""Images a pass while the bank is filled."""


@TASKS.add("contrast")
class Contrast(Task):
    """SimCLR's contrastive task: a two-layer projection head, and a loss over views and negatives.

    The canonical views are those of a fixed seed: contrast needs two different views of an image.
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
            "augmentation": "mao2021",
        }
    }
    bank: Tensor

    @configured
    class Settings:
        """Temperature, projection size, hidden width (0: that of the features), augmentation and number of views.

        ``head_norm="batch"`` puts a batch norm into the head, as Mao et al. (ICCV 2021) have it.

        ``loss`` is one of `CONTRAST_LOSSES`. ``negatives`` are the batch-mates' views, or ``drawn`` rows for each image
        out of a ``bank`` of so many rows, which `calibrate` fills.
        """

        temperature: float = Field(default=0.07, gt=0, allow_inf_nan=False)
        size: int = Field(default=128, ge=1)
        hidden: int = Field(default=0, ge=0)
        head_norm: Literal["none", "batch"] = "none"
        augmentation: str = "simclr"
        views: int = Field(default=2, ge=2)
        loss: Literal["nt-xent", "first-positive", "multi-positive", "margin", "cosine"] = "nt-xent"
        negatives: Literal["batch", "bank"] = "batch"
        bank: int = Field(default=512, ge=1)
        drawn: int = Field(default=256, ge=1)

    settings: Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        if settings.drawn > settings.bank:
            raise SpecError(f"drawn={settings.drawn} is more than the bank={settings.bank} has; give at most that")
        rows = settings.bank if self._banked else 0
        self.register_buffer("bank", torch.zeros(rows, settings.size))

    @property
    def coupled(self) -> bool:
        """Only in-batch negatives look at batch-mates."""
        return self.settings.loss != "cosine" and self.settings.negatives == "batch"

    @property
    def _banked(self) -> bool:
        return self.settings.loss != "cosine" and self.settings.negatives == "bank"

    @classmethod
    def settings_of(cls, head: Mapping[str, Any]) -> dict[str, Any]:
        """A projection head tells its size, its hidden width and its norm."""
        return {"size": head["outputs"], "hidden": head["hidden"], "head_norm": head.get("norm", "none")}

    def head_for(self, channels: Mapping[str, int], classes: Mapping[str, int]) -> dict[str, Any]:
        inputs, settings = channels["last"], self.settings
        head = {"kind": "mlp", "inputs": inputs, "hidden": settings.hidden or inputs, "outputs": settings.size}
        return head if settings.head_norm == "none" else {**head, "norm": settings.head_norm}

    def calibrate(self, network: Network, table: ImageTable, streams: Streams) -> None:
        """Fill the bank with normalised projections of one view each of images drawn from a table; labels play no part.

        Does nothing without a bank. Raises DataError if the table has fewer images than the bank rows.
        """
        if not self._banked:
            return
        rows = self.settings.bank
        if len(table) < rows:
            raise DataError(
                f"a bank of {rows} negatives was asked of {table!r}; give more images, or bank={len(table)} or fewer"
            )
        draws, chosen = streams.named("bank"), table.sample(rows, streams.named("bank"))
        device = next(network.parameters()).device
        found = []
        with torch.no_grad(), untouched(network), untouched(self):
            for start in range(0, rows, _CHUNK):
                batch = chosen.batch(torch.arange(start, min(start + _CHUNK, rows)), device)
                views = augmented(batch, self.settings.augmentation, 1, draws)
                features = network.features(views.to(next(network.parameters()).dtype))
                found.append(F.normalize(at_least_fp32(self.head(features)), dim=1))
        self.bank = torch.cat(found)

    def views(self, batch: Batch, streams: Streams | None) -> Views:
        streams = Streams(0).named("canonical") if streams is None else streams
        images = augmented(batch, self.settings.augmentation, self.settings.views, streams)
        rows = None
        if self._banked:
            if not self.bank[0].any():
                raise SpecError("contrast's bank of negatives is empty; call calibrate first, or set negatives=batch")
            rows = streams.named("negatives").permutation(batch.ids, len(self.bank))[:, : self.settings.drawn]
        return Views(images=images, count=self.settings.views, targets=rows)

    def losses(self, outputs: Tensor, views: Views) -> Tensor:
        z_ND = at_least_fp32(self.head(outputs))
        negatives = None if views.targets is None else self.bank[views.targets].to(z_ND)
        return CONTRAST_LOSSES[self.settings.loss](z_ND, views.count, self.settings.temperature, negatives)
