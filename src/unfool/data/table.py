# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
"""A table of images and labels that is read by row numbers, without a loop over images.

Legend: N images of C channels and H×W pixels, B of them in a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from unfool.core.batch import Batch
from unfool.core.errors import DataError
from unfool.core.spec import unknown
from unfool.core.streams import Streams
from unfool.data import stratify
from unfool.data.conversion import Contents, contents_of_dataset, contents_of_tensors
from unfool.data.pixels import DecodedPixels, Pixels
from unfool.data.sources import Columns, ReadReport, primary_column


class Table:
    """Images with ids and label columns, read by row numbers: what the library trains on and evaluates.

    Make one with `Table.from_tensors`, `Table.from_dataset` or `open_table`; the constructor takes parts that are
    already checked. A table never changes; `subset`, `cut`, `fraction` and `sample` return new ones that share its
    pixels.

    Args:
        pixels: Where the images lie: uint8, or float32 in [0,1]; shape (N, C, H, W).
        ids: (N,) int64 row numbers of the full split (corrupt rows left out, numbers kept). Subsets keep them.
        columns: Label columns by name, each (N,) int64 class numbers from 0.
        classes: Class names by label column.
        label_column: The column that classification uses; None for images without labels.
        name: Name of the data set, as records and file names show it.
        split: The split that was really opened: "validation" for a set without a test split.
        report: Counts of corrupt and of converted images; None for tables from memory.
        rows: The rows of ``pixels`` that this table holds; None for all.
        others: Types of the data set's columns that are neither images nor labels, by name, for messages.

    Example:
        >>> import torch
        >>> from unfool import Table
        >>> table = Table.from_tensors(torch.zeros(6, 3, 8, 8), [0, 1, 2, 0, 1, 2])
        >>> table
        Table('tensors', 'test', 6 images of 3×8×8, labels: label)
        >>> batch = table.batch(torch.tensor([4, 0]))
        >>> batch.images.shape, batch.labels("label").tolist()
        (torch.Size([2, 3, 8, 8]), [1, 0])
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
        report: ReadReport | None = None,
        rows: Tensor | None = None,
        others: Mapping[str, str] | None = None,
    ):
        self._pixels = pixels
        self._rows = rows
        self._chosen: Tensor | None = None
        self._digest: str | None = None
        self.ids = ids
        self.columns = columns
        self.classes = classes
        self.label_column = label_column
        self.name = name
        self.split = split
        self.report = report
        self.others = dict(others or {})

    @classmethod
    def from_tensors(
        cls,
        images: Tensor | np.ndarray,
        labels: Tensor | np.ndarray | Sequence[int] | Mapping[str, Tensor | np.ndarray | Sequence[int]] | None = None,
        *,
        ids: Tensor | None = None,
        classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        name: str = "tensors",
        split: str = "test",
    ) -> Table:
        """Make a table of images and labels in memory.

        Args:
            images: (N, C, H, W), uint8 or float in [0,1]; a tensor or a NumPy array. Floats keep their values.
            labels: (N,) class numbers from 0 (integers, whole floats or booleans) or texts, or a mapping of column
                names to such labels; None for images without labels.
            ids: (N,) whole numbers that name the images: an image's random draws depend on its id. Default: 0 to N-1.
            classes: Class names, or a mapping of column names to them. Default: the class numbers as text, and the
                distinct texts in alphabetical order.
            name: Name of the data set in records and tables.
            split: Name of the split in records and tables.

        Returns:
            The table. It shares memory with uint8 images on the CPU; do not write into them afterwards.

        Raises:
            ImagesError: Images of another layout, type or range, with what to do about it.
            DataError: Labels, ids or class names that do not fit the images.

        Example:
            >>> import torch
            >>> from unfool import Table
            >>> images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
            >>> Table.from_tensors(images, torch.tensor([0, 1, 0, 1]), classes=["cat", "dog"]).classes
            {'label': ['cat', 'dog']}
        """
        contents = contents_of_tensors(images, labels, classes)
        return cls._of(contents, name, split, ids)

    @classmethod
    def from_dataset(
        cls,
        dataset: object,
        *,
        name: str | None = None,
        split: str = "test",
        image: str | None = None,
        labels: str | Sequence[str] = (),
    ) -> Table:
        """Read a data set into memory, its images in order.

        Args:
            dataset: A torch data set of ``(image, label)`` items, where an image is a (C, H, W) tensor, uint8 or float
                in [0,1], or a PIL image; a ``datasets.Dataset`` with an image column; or a DataLoader that does not
                shuffle. Transforms must give every image one size, and must not normalise.
            name: Name of the data set in records and tables. Default: the data set's class name in lower case.
            split: Name of the split in records and tables.
            image: Column of the images, of a ``datasets.Dataset``. Default: the one that is declared so.
            labels: Label columns to read beside those with usual names; the first one is then the primary one.

        Returns:
            The table; ids are positions in the data set, class names those of ``dataset.classes`` where it has them.

        Raises:
            ImagesError: Images of another layout, type or range.
            DataError: Items that are no (image, label), images of several sizes, a loader that shuffles.

        Example:
            >>> import torch
            >>> from torch.utils.data import TensorDataset
            >>> from unfool import Table
            >>> Table.from_dataset(TensorDataset(torch.zeros(2, 1, 8, 8), torch.tensor([1, 0])), name="blank")
            Table('blank', 'test', 2 images of 1×8×8, labels: label)
        """
        chosen = Columns(image=image, labels=(labels,) if isinstance(labels, str) else tuple(labels))
        contents = contents_of_dataset(dataset, chosen)
        return cls._of(contents, name or type(dataset).__name__.lower(), split, None, chosen.labels)

    @classmethod
    def _of(cls, contents: Contents, name: str, split: str, ids: Tensor | None, named: Sequence[str] = ()) -> Table:
        """The table of images and labels whose form is checked; DataError for ids that do not name each image."""
        count = len(contents.images)
        ids = torch.arange(count) if ids is None else torch.as_tensor(ids).detach().to("cpu", torch.int64)
        if ids.shape != (count,) or len(ids.unique()) < count:
            raise DataError(
                f"ids have shape {tuple(ids.shape)} for {count} images; give each image a number of its own"
            )
        return cls(
            DecodedPixels(contents.images),
            ids,
            contents.columns,
            contents.classes,
            label_column=primary_column(contents.columns, named),
            name=name,
            split=split,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self._pixels.shape[1:]
        return channels, height, width

    @property
    def images(self) -> Tensor:
        """All images (N, C, H, W) on the CPU, uint8 or float32; a subset copies its rows on the first look."""
        if self._rows is None and isinstance(self._pixels, DecodedPixels):
            return self._pixels.images
        if self._chosen is None:
            self._chosen = self._pixels.take(self._all_rows())
        return self._chosen

    @property
    def pixel_digest(self) -> str:
        """32 hex digits that tell tables with other pixels apart; they are computed once."""
        if self._digest is None:
            self._digest = self._pixels.digest(self._all_rows())
        return self._digest

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        size = "×".join(map(str, self.shape))
        labels = f"labels: {', '.join(sorted(self.columns))}" if self.columns else "no labels"
        return f"Table({self.name!r}, {self.split!r}, {len(self)} images of {size}, {labels})"

    def _all_rows(self) -> Tensor:
        return torch.arange(len(self)) if self._rows is None else self._rows

    def _checked(self, rows: Tensor) -> Tensor:
        """Row numbers (B,) on the CPU, of numbers or a mask; DataError for others."""
        rows = torch.as_tensor(rows)
        if rows.dtype == torch.bool and rows.shape == self.ids.shape:
            rows = rows.nonzero().flatten()
        if rows.ndim != 1 or rows.is_floating_point() or rows.dtype == torch.bool:
            raise DataError(
                f"rows are {rows.dtype} of shape {tuple(rows.shape)}; give (B,) row numbers or an (N,) mask"
            )
        rows = rows.to("cpu", torch.int64)
        if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < len(self)):
            raise DataError(
                f"rows {int(rows.min())} to {int(rows.max())} do not lie in {self!r}; count from 0 to {len(self) - 1}"
            )
        return rows

    def batch(self, rows: Tensor | None = None, device: torch.device | str = "cpu") -> Batch:
        """Read rows as a batch.

        Args:
            rows: (B,) row numbers, in the order of the batch, or an (N,) mask; None for all rows.
            device: Where the batch lies. Bytes travel there as they are and become floats there.

        Returns:
            The batch: images (B, C, H, W) float32 in [0,1], ids and label columns (B,). It shares no memory with the
            table.

        Raises:
            DataError: Rows outside the table.
        """
        if rows is None:
            rows = torch.arange(len(self))
        else:
            rows = self._checked(rows)
        images = self._pixels.take(rows if self._rows is None else self._rows.index_select(0, rows))
        images = images.to(device)
        return Batch(
            images=images.to(torch.float32).div_(255.0) if images.dtype == torch.uint8 else images,
            ids=self.ids.index_select(0, rows).to(device),
            columns={name: values.index_select(0, rows).to(device) for name, values in self.columns.items()},
        )

    def subset(self, rows: Tensor) -> Table:
        """Select rows as a table, which keeps their ids and copies no image.

        Args:
            rows: (M,) row numbers, or an (N,) mask.

        Returns:
            The table of these rows.

        Raises:
            DataError: Rows outside the table.
        """
        rows = self._checked(rows)
        return Table(
            self._pixels,
            self.ids[rows],
            {name: values[rows] for name, values in self.columns.items()},
            self.classes,
            label_column=self.label_column,
            name=self.name,
            split=self.split,
            report=self.report,
            rows=rows if self._rows is None else self._rows[rows],
            others=self.others,
        )

    def relabelled(self, column: str, labels: Tensor, classes: Sequence[str]) -> Table:
        """The same images with other labels (N,) and class names in one column."""
        table = self.subset(torch.arange(len(self)))
        table.columns = {**self.columns, column: labels.to(torch.int64)}
        table.classes = {**self.classes, column: list(classes)}
        return table

    def labels(self, column: str | None = None) -> Tensor:
        """Give one label column.

        Args:
            column: Its name; None for the primary one.

        Returns:
            (N,) int64 class numbers.

        Raises:
            DataError: A table without labels.
            SpecError: An unknown column.
        """
        column = column or self.label_column
        if column is None:
            raise DataError(
                f"{self.name} {self.split} has no labels; choose a task without labels or another split"
                + self._other_columns()
            )
        if column not in self.columns:
            if not self.columns:
                raise DataError(f"{self.name} {self.split} has no label column {column!r}" + self._other_columns())
            raise unknown("label column", column, self.columns)
        return self.columns[column]

    def _other_columns(self) -> str:
        """What a message adds about columns that may hold labels under another name."""
        if not self.others:
            return ""
        shown = ", ".join(f"{name} ({kind})" for name, kind in list(self.others.items())[:12])
        return f"; its other columns are {shown}: name one with --label NAME, or labels=(NAME,) in Python"

    def _strata(self, column: str | None) -> Tensor:
        if column is None and self.label_column is None:
            return torch.zeros_like(self.ids)
        return self.labels(column)

    def cut(self, count: int, streams: Streams, column: str | None = None) -> tuple[Table, Table]:
        """Hold out images, of every class in proportion.

        Args:
            count: How many are held out.
            streams: Where the choice is drawn from; it depends on seed and ids alone.
            column: The label column whose classes keep their shares; None for the primary one.

        Returns:
            The rest, and the images held out.

        Raises:
            DataError: Fewer than ``count`` images.

        Example:
            >>> train, held_out = open_table("digits", "train").cut(200, Streams(0))
            >>> len(train), len(held_out)
            (1200, 200)
        """
        held_out = stratify.exactly(self._strata(column), self.ids, count, streams, "cut")
        return self.subset(~held_out), self.subset(held_out)

    def fraction(self, share: float, streams: Streams, column: str | None = None) -> Table:
        """Draw a share of every class, at least one image of each.

        Args:
            share: Above 0, up to 1. A smaller share from the same streams lies inside a larger one.
            streams: Where the choice is drawn from.
            column: The label column; None for the primary one.

        Returns:
            The table of the images drawn.

        Raises:
            DataError: A share that is not above 0 and up to 1.
        """
        return self.subset(stratify.share_of_each(self._strata(column), self.ids, share, streams, "fraction"))

    def sample(self, count: int, streams: Streams) -> Table:
        """Draw images without replacement, and keep them in the table's order.

        Args:
            count: How many. A smaller draw from the same streams lies inside a larger one.
            streams: Where the choice is drawn from.

        Returns:
            The table of the images drawn.

        Raises:
            DataError: Fewer than ``count`` images.
        """
        if not 0 <= count <= len(self):
            raise DataError(f"{count} images cannot be drawn from {self!r}; give 0 to {len(self)}")
        order = torch.argsort(stratify.scores(self.ids, streams, "sample"), stable=True)[:count]
        return self.subset(order.sort().values)
