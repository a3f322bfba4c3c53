"""What travels together: images, their ids and their label columns; and what a task makes of them.

Legend: B images, V views of each, C channels, H×W pixels; N = V·B.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unfool.core.errors import DataError, ImagesError, UnfoolError
from unfool.core.spec import unknown

ROUNDING = 1e-6
"""How far beyond [0,1] an image may lie by rounding, as after resizing or a change of colour space."""

RULE = "unfool takes float NCHW images in [0,1]"


def spans_of_mates(count: int, size: int) -> list[slice]:
    """Batches of ``count`` images for what looks at batch-mates, ``size`` in each; the rest is the last one, and where
    that would be a single image, it joins the batch before it."""
    ends = [*range(size, count - 1, size), count]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def tensor_of_array(
    array: NDArray[Any],
    what: str,
    error: type[UnfoolError] = DataError,
    remedy: str = "give one array of uint8 or float32, all rows of one shape",
) -> Tensor:
    """An array as a tensor of its shape, in this machine's byte order; an ``error`` that begins with ``what`` and ends
    with the ``remedy`` for one that torch has no type for."""
    array = np.asarray(array, order="C")
    try:
        return torch.as_tensor(array.astype(array.dtype.newbyteorder("="), copy=False))
    except TypeError as fault:
        raise error(f"{what} an array of {array.dtype}, which is no number that torch has; {remedy}") from fault


def check_layout(images: object, rule: str = RULE) -> None:
    """Refuse what is no tensor (B, C, H, W) with at least one image; the error ends with the ``rule`` and a remedy."""
    if not isinstance(images, Tensor):
        raise ImagesError(f"images are a {type(images).__name__}; {rule}; convert them with torch.as_tensor")
    if images.ndim != 4:
        raise ImagesError(f"images have shape {tuple(images.shape)}; {rule}; add or drop a dimension")
    if images.numel() == 0:
        raise ImagesError(f"images have shape {tuple(images.shape)}, an empty batch; {rule}; give at least one image")
    if images.shape[1] > 4 and images.shape[3] in (1, 3, 4):
        raise ImagesError(
            f"images have shape {tuple(images.shape)}, which looks like NHWC; {rule}; use permute(0, 3, 1, 2)"
        )


def check_images(images: Tensor) -> None:
    """Refuse anything but finite floating NCHW images in [0,1] up to `ROUNDING`; raises ImagesError."""
    rule = RULE
    check_layout(images, rule)
    if not images.is_floating_point():
        # Whole numbers up to 255 are often kept in wider types; uint16 is that of 16 bits.
        most = 65535 if images.dtype == torch.uint16 else 255
        divided = f"divide by {most} with images.float() / {most}"
        raise ImagesError(
            f"images are {images.dtype}; {rule}; {'give images.float()' if images.dtype == torch.bool else divided}"
        )
    low, high = (float(value) for value in torch.aminmax(images.detach()))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImagesError(f"images hold NaN or infinite values; {rule}; drop or repair those images")
    if low < -ROUNDING or high > 1.0 + ROUNDING:
        bytes_like, close = low >= 0.0 and high > 2.0, low >= -0.05 and high <= 1.05
        hint = "divide by 255" if bytes_like else "undo the normalisation (it belongs inside the network)"
        hint = "limit them with clamp(0, 1), as after bicubic resizing" if close else hint
        raise ImagesError(f"images lie in [{low:.7g}, {high:.7g}]; {rule}; {hint}")


def as_images(images: Tensor) -> Tensor:
    """Images that `check_images` lets pass, without what rounding left beyond [0,1]."""
    check_images(images)
    low, high = torch.aminmax(images.detach())
    return images.clamp(0.0, 1.0) if float(low) < 0.0 or float(high) > 1.0 else images


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Images with their ids and label columns.

    Args:
        images: (B, C, H, W), float32 in [0,1].
        ids: (B,), int64: the images' random draws depend on them.
        columns: Label columns by name, (B,) int64 each.

    Example:
        >>> table = Table.from_tensors(torch.zeros(5, 3, 8, 8), {"label": [0, 1, 2, 0, 1]})
        >>> batch = table.batch(torch.tensor([3, 4]))
        >>> batch
        Batch(2 images of 3×8×8, labels: label)
        >>> batch.ids.tolist(), batch.labels("label").tolist()
        ([3, 4], [0, 1])
    """

    images: Tensor
    ids: Tensor
    columns: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    _shared: dict[Hashable, Tensor] = field(
        default_factory=dict[Hashable, Tensor], init=False, repr=False, compare=False
    )

    def __repr__(self) -> str:
        size = "×".join(map(str, self.images.shape[1:]))
        labels = f"labels: {', '.join(sorted(self.columns))}" if self.columns else "no labels"
        return f"Batch({len(self)} images of {size}, {labels})"

    def labels(self, column: str) -> Tensor:
        """One label column; SpecError with the nearest name for an unknown one, DataError for no labels at all."""
        if column not in self.columns:
            if not self.columns:
                raise DataError(f"a batch without labels has no column {column!r}; choose a task without labels")
            raise unknown("label column", column, self.columns)
        return self.columns[column]

    def once(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The tensor that ``make`` returns, made once per ``key``.

        Tasks that want equal views so get the same object, and share a pass through the trunk.
        """
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def with_images(self, images: Tensor) -> Batch:
        """The same ids and labels with other images."""
        return Batch(images=images, ids=self.ids, columns=self.columns)

    def rows(self, index: Tensor) -> Batch:
        """The chosen rows as a batch of their own."""
        return Batch(
            images=self.images[index], ids=self.ids[index], columns={k: v[index] for k, v in self.columns.items()}
        )

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device."""
        return Batch(
            images=self.images.to(device),
            ids=self.ids.to(device),
            columns={k: v.to(device) for k, v in self.columns.items()},
        )

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, kw_only=True, eq=False)
class Views:
    """What a task shows the network: V views of each image of a batch.

    Args:
        images: (V·B, C, H, W), view-major, differentiable in the batch's images.
        count: V, the number of views of an image.
        targets: Whatever the task's loss needs, fixed before the network runs.
        stage: The trunk stage whose features the task reads.
        tiles: Whether each view is a tile of an image, and no whole one.
    """

    images: Tensor
    count: int = 1
    targets: Any = None
    stage: str = "last"
    tiles: bool = False

    def with_images(self, images: Tensor) -> Views:
        """The same views with other pixels."""
        return replace(self, images=images)
