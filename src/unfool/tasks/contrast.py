"""Contrast: the views of an image attract each other and repel those of its batch-mates.

NT-Xent (Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, equation 1).
For more than two views every other view of the image is a positive in a term of its own, and the further positives
stay out of that term's denominator; for two views this is the paper's loss exactly.

Legend: B images, V views of each (N = V·B, view-major), D dimensions of the projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from unfool.core.batch import Batch, Views
from unfool.core.config import configured
from unfool.core.errors import ImagesError
from unfool.core.streams import Streams
from unfool.data.augment import augmented
from unfool.tasks.base import TASKS, Task, at_least_fp32


def nt_xent(z_ND: Tensor, count: int, temperature: float) -> Tensor:
    """NT-Xent losses (B,), each the mean over an image's V anchors and V-1 positives.

    ``z_ND`` is (V·B, D), view-major and not yet normalised; ``count`` is V ≥ 2; B ≥ 2, or ImagesError: an image needs
    a batch-mate to be told apart from.
    """
    images = len(z_ND) // count
    if images < 2:
        raise ImagesError(
            f"contrast got a batch of {images} image; its negatives are batch-mates: give at least 2 images"
        )
    z_ND = F.normalize(z_ND, dim=1)
    similarity_NN = z_ND @ z_ND.T / temperature
    similarity_VBVB = similarity_NN.unflatten(1, (count, images)).unflatten(0, (count, images))
    same_BVV = similarity_VBVB.diagonal(dim1=1, dim2=3).permute(2, 0, 1)
    # One masked fill leaves only other images in the denominators; gathering by booleans costs about three times that.
    mates_BB = torch.eye(images, dtype=torch.bool, device=z_ND.device)
    negatives_BV = (
        similarity_VBVB.masked_fill(mates_BB[None, :, None, :], float("-inf")).flatten(2).logsumexp(2).permute(1, 0)
    )
    terms_BVV = F.softplus(negatives_BV[:, :, None] - same_BVV)
    self_VV = torch.eye(count, dtype=torch.bool, device=z_ND.device)
    return terms_BVV.masked_fill(self_VV, 0.0).sum((1, 2)) / (count * (count - 1))


@TASKS.add("contrast")
class Contrast(Task):
    """SimCLR's contrastive task: a two-layer projection head and NT-Xent over the batch.

    The canonical views are those of a fixed seed: contrast needs two different views of an image.
    """

    coupled = True

    @configured
    class Settings:
        """Temperature, projection size, hidden width (0: that of the features), augmentation and number of views."""

        temperature: float = Field(default=0.07, gt=0, allow_inf_nan=False)
        size: int = Field(default=128, ge=1)
        hidden: int = Field(default=0, ge=0)
        augmentation: str = "simclr"
        views: int = Field(default=2, ge=2)

    settings: Settings

    def head_for(self, channels: Mapping[str, int], classes: Mapping[str, int]) -> dict[str, Any]:
        inputs = channels["last"]
        return {
            "kind": "mlp",
            "inputs": inputs,
            "hidden": self.settings.hidden or inputs,
            "outputs": self.settings.size,
        }

    def views(self, batch: Batch, streams: Streams | None) -> Views:
        streams = Streams(0).named("canonical") if streams is None else streams
        images = augmented(batch, self.settings.augmentation, self.settings.views, streams)
        return Views(images=images, count=self.settings.views)

    def losses(self, outputs: Tensor, views: Views) -> Tensor:
        return nt_xent(at_least_fp32(self.head(outputs)), views.count, self.settings.temperature)
