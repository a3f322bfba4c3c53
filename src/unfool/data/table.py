"""A table of images and labels that is read by row numbers, without a loop over images.

Legend: N images of C channels and H×W pixels, B of them in a batch.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from unfool.core.batch import Batch
from unfool.core.errors import DataError
from unfool.core.spec import unknown
from unfool.core.streams import Streams
from unfool.data import stratify


class Pixels(Protocol):
    """Where a table's pixels lie: ``shape`` is (N, C, H, W); ``take`` gives uint8 (B, C, H, W) for (B,) row numbers."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def take(self, rows: Tensor) -> Tensor: ...


class DecodedPixels:
    """Pixels as one uint8 tensor (N, C, H, W), usually memory-mapped."""

    def __init__(self, images: Tensor):
        self.images = images

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape)

    def take(self, rows: Tensor) -> Tensor:
        return self.images.index_select(0, rows)


class ImageTable:
    """Images, ids and label columns of one split.

    ``ids`` (N,) int64 are row numbers of the full split (corrupt rows left out, numbers kept); subsets keep them.
    ``columns`` maps names to (N,) int64 labels, ``classes`` the same names to class names; ``label_column`` is the
    primary one, None for a set without labels. ``split`` is what was really opened: "validation" for a set without a
    test split. ``report`` says what the reader met: counts of corrupt and of converted images.
    """

    def __init__(
        self,
        pixels: Pixels,
        ids: Tensor,
        columns: dict[str, Tensor],
        classes: dict[str, list[str]],
        *,
        label_column: str | None,
        name: str,
        split: str,
        report: dict[str, Any] | None = None,
        rows: Tensor | None = None,
    ):
        self._pixels = pixels
        self._rows = rows
        self._chosen: Tensor | None = None
        self.ids = ids
        self.columns = columns
        self.classes = classes
        self.label_column = label_column
        self.name = name
        self.split = split
        self.report = report or {}

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self._pixels.shape[1:]
        return channels, height, width

    @property
    def images(self) -> Tensor:
        """All images, uint8 (N, C, H, W) on the CPU; a subset copies its rows on the first look."""
        if self._rows is None and isinstance(self._pixels, DecodedPixels):
            return self._pixels.images
        if self._chosen is None:
            self._chosen = self._pixels.take(torch.arange(len(self)) if self._rows is None else self._rows)
        return self._chosen

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"ImageTable({self.name!r}, {self.split!r}, {len(self)} images of {self.shape}, {sorted(self.columns)})"

    def _checked(self, rows: Tensor) -> Tensor:
        rows = torch.as_tensor(rows)
        if rows.dtype == torch.bool and rows.shape == self.ids.shape:
            rows = rows.nonzero().flatten()
        if rows.ndim != 1 or rows.is_floating_point() or rows.dtype == torch.bool:
            raise DataError(
                f"rows are {rows.dtype} of shape {tuple(rows.shape)}; give (B,) row numbers or an (N,) mask"
            )
        rows = rows.to("cpu", torch.int64)
        if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < len(self)):
            raise DataError(f"rows {int(rows.min())} to {int(rows.max())} were asked of {self!r}; count from 0")
        return rows

    def batch(self, rows: Tensor | None = None, device: torch.device | str = "cpu") -> Batch:
        """The given rows (all if None) as a Batch of float32 images in [0,1] on ``device``, in the order given.

        Bytes travel to the device as they are and become floats there. DataError for rows outside the table.
        """
        if rows is None:
            rows = torch.arange(len(self))
        else:
            rows = self._checked(rows)
        images = self._pixels.take(rows if self._rows is None else self._rows.index_select(0, rows))
        return Batch(
            images=images.to(device).to(torch.float32).div_(255.0),
            ids=self.ids.index_select(0, rows).to(device),
            columns={name: values.index_select(0, rows).to(device) for name, values in self.columns.items()},
        )

    def subset(self, rows: Tensor) -> ImageTable:
        """The given rows, or the rows of a mask, as a table of their own that keeps its ids and copies no image."""
        rows = self._checked(rows)
        return ImageTable(
            self._pixels,
            self.ids[rows],
            {name: values[rows] for name, values in self.columns.items()},
            self.classes,
            label_column=self.label_column,
            name=self.name,
            split=self.split,
            report=self.report,
            rows=rows if self._rows is None else self._rows[rows],
        )

    def labels(self, column: str | None = None) -> Tensor:
        """One label column (N,), the primary one if None; DataError or SpecError if there is none such."""
        column = column or self.label_column
        if column is None:
            raise DataError(f"{self.name} {self.split} has no labels; choose a task without labels or another split")
        if column not in self.columns:
            raise unknown("label column", column, self.columns)
        return self.columns[column]

    def _strata(self, column: str | None) -> Tensor:
        if column is None and self.label_column is None:
            return torch.zeros_like(self.ids)
        return self.labels(column)

    def cut(self, count: int, streams: Streams, column: str | None = None) -> tuple[ImageTable, ImageTable]:
        """Split into (rest, held_out), ``count`` images held out, every class in proportion; DataError if too few."""
        held_out = stratify.exactly(self._strata(column), self.ids, count, streams, "cut")
        return self.subset(~held_out), self.subset(held_out)

    def fraction(self, share: float, streams: Streams, column: str | None = None) -> ImageTable:
        """``share`` of every class, at least one image each; for equal streams, 1 % lies inside 10 %."""
        return self.subset(stratify.share_of_each(self._strata(column), self.ids, share, streams, "fraction"))

    def sample(self, count: int, streams: Streams) -> ImageTable:
        """``count`` images drawn without replacement, in table order; smaller draws lie inside larger ones.

        DataError if the table has fewer than ``count``.
        """
        if not 0 <= count <= len(self):
            raise DataError(f"{count} images were asked of {self!r}; allowed: 0 to {len(self)}")
        order = torch.argsort(stratify.scores(self.ids, streams, "sample"), stable=True)[:count]
        return self.subset(order.sort().values)
