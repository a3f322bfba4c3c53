# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The border of the library for images and labels: whatever a caller has becomes a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unfool.core.errors import DataError, ImagesError
from unfool.data.catalog import open_table
from unfool.data.conversion import FORMS
from unfool.data.table import Table

TableLike: TypeAlias = "Table | str | tuple[Any, Any] | Dataset[Any] | DataLoader[Any] | Any"
"""What `as_table` takes: a Table, the name of a data set, (images, labels), a data set or a DataLoader."""


def as_table(data: TableLike, *, split: str = "test", name: str | None = None) -> Table:
    """Make a table of whatever a caller has; functions of the library call this on their data.

    Args:
        data: A `Table`, which is returned as it is; the name of a data set, as `open_table` takes it; a pair
            ``(images, labels)`` of tensors or arrays; a torch data set of ``(image, label)`` items; a
            ``datasets.Dataset``; or a DataLoader that does not shuffle.
        split: The split that is opened for a name, and the name of the split otherwise.
        name: Name of the data set in records; default "tensors", or the data set's class name.

    Returns:
        The table, with images of shape (C, H, W) that are uint8, or float32 in [0,1].

    Raises:
        ImagesError: Images without labels, or of another layout, type or range.
        DataError: Labels that do not fit, or something that is no set of images.
        SpecError: An unknown name of a data set.

    Example:
        >>> import torch
        >>> from unfool import as_table
        >>> as_table((torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 2])))
        Table('tensors', 'test', 3 images of 3×8×8, labels: label)
        >>> as_table("digits")
        Table('digits', 'test', 397 images of 3×32×32, labels: label, parity)
    """
    if isinstance(data, Table):
        return data
    if isinstance(data, str):
        return open_table(data, split)
    if isinstance(data, (Tensor, np.ndarray)):
        raise ImagesError(f"images of shape {tuple(data.shape)} came without labels; give (images, labels)")
    if isinstance(data, (tuple, list)):
        if isinstance(data, list) and data and all(isinstance(item, tuple) for item in data):
            return Table.from_dataset(data, name=name, split=split)
        if len(data) != 2:
            raise DataError(f"{len(data)} values are no pair of images and labels; give {FORMS}")
        images, labels = data
        return Table.from_tensors(images, labels, name=name or "tensors", split=split)
    if isinstance(data, Path):
        raise DataError(f"a path is given as text; write {f'folder:{data}' if data.is_dir() else str(data)!r}")
    if data is None or type(data) in (int, float, dict):
        raise DataError(f"a {type(data).__name__} is no set of images; give {FORMS}")
    return Table.from_dataset(data, name=name, split=split)
