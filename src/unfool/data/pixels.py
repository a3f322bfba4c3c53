# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Where the pixels of a table lie, and which image tensors a user may give.

Legend: N images of C channels and H×W pixels, B of them in a batch.
"""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from unfool.core.batch import as_images, check_layout, tensor_of_array
from unfool.core.borders.checksum import checksum
from unfool.core.borders.mapped import MappedPages

_AT_ONCE = 64
"""Images that a digest reads at once."""


class Pixels(Protocol):
    """Pixels read by row numbers: ``shape`` is (N, C, H, W); ``take`` returns (B, C, H, W) for (B,) row numbers.

    ``take`` returns uint8, or float32 in [0,1]. ``digest`` tells rows with other pixels apart, in 32 hex digits.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def take(self, rows: Tensor) -> Tensor: ...

    def digest(self, rows: Tensor) -> str: ...


class DecodedPixels:
    """Pixels as one tensor (N, C, H, W), uint8 or float32 in [0,1]; one that is mapped from a file with its ``pages``
    and a checksum of its ``content``."""

    def __init__(self, images: Tensor, pages: MappedPages | None = None, content: str | None = None):
        self.images = images
        self._pages = pages
        self._content = content

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape)

    def take(self, rows: Tensor) -> Tensor:
        taken = self.images.index_select(0, rows)
        if self._pages is not None:
            self._pages.read(taken.nbytes)
        return taken

    def digest(self, rows: Tensor) -> str:
        """32 hex digits over the rows' pixels; of a file, which may be larger than memory, over its content and the
        rows."""
        if self._content is not None:
            return checksum({"file": self._content}, {"rows": rows})
        digest = hashlib.blake2b(f"{self.images.dtype} {self.shape[1:]}".encode(), digest_size=16)
        for part in rows.split(_AT_ONCE):
            digest.update(self.take(part).contiguous().numpy().data)
        return digest.hexdigest()


def image_tensor(images: Any) -> Tensor:
    """Images that a user gave, as a uint8 or float32 tensor (N, C, H, W) on the CPU.

    uint8 images stay as they are. Floats in [0,1] that are whole 255ths become uint8, which loses nothing; other
    floats stay float32. Raises ImagesError for anything else, saying how to convert it, and DataError for an array of
    no numbers.
    """
    if isinstance(images, np.ndarray):
        images = tensor_of_array(images, "images are")
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
