# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Where the pixels of a table lie, and which image tensors a user may give.

Legend: N images of C channels and H×W pixels, B of them in a batch.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from unfool.core.batch import as_images, check_layout
from unfool.core.borders.mapped import MappedPages


class Pixels(Protocol):
    """Pixels read by row numbers: ``shape`` is (N, C, H, W); ``take`` returns (B, C, H, W) for (B,) row numbers.

    ``take`` returns uint8, or float32 in [0,1].
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def take(self, rows: Tensor) -> Tensor: ...


class DecodedPixels:
    """Pixels as one tensor (N, C, H, W), uint8 (usually memory-mapped, with ``pages``) or float32 in [0,1]."""

    def __init__(self, images: Tensor, pages: MappedPages | None = None):
        self.images = images
        self._pages = pages

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape)

    def take(self, rows: Tensor) -> Tensor:
        taken = self.images.index_select(0, rows)
        if self._pages is not None:
            self._pages.read(taken.nbytes)
        return taken


def image_tensor(images: Any) -> Tensor:
    """Images that a user gave, as a uint8 or float32 tensor (N, C, H, W) on the CPU.

    uint8 images stay as they are. Floats in [0,1] that are whole 255ths become uint8, which loses nothing; other
    floats stay float32. Raises ImagesError for anything else, saying how to convert it.
    """
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.ascontiguousarray(images))
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        images = as_images(images)
        return _without_loss(images.detach().to("cpu", torch.float32))
    check_layout(images, "unfool takes NCHW images, uint8 or float in [0,1]")
    return images.detach().cpu()


def _without_loss(images: Tensor) -> Tensor:
    """uint8 images where they give back the same floats, else the floats themselves."""
    scaled = (images * 255.0).round_().to(torch.uint8)
    same = torch.equal(scaled.to(torch.float32).div_(255.0), images)
    return scaled if same else images.contiguous()
