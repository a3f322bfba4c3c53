"""What a reader hands to the store: where rows come from, before anything is decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np

from unfool.core.errors import DataError
from unfool.core.registry import Registry
from unfool.core.spec import unknown

Encoded = bytes | np.ndarray | None
"""One image as a reader gives it: an encoded file's bytes, uint8 pixels (H, W, 3), or None where it is missing."""


IMAGE_NAMES = ("image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "webp")
LABEL_NAMES = ("label", "labels", "target", "targets", "class")
"""What columns of images and of labels are usually called, in lower case."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of one split: ``count`` images in order, their labels (count,) int64 and their class names.

    ``ids`` are row numbers in the whole set where the split is a part of it; ``names`` say where each image lies;
    ``others`` are columns that are not read, with their types.
    """

    images: Iterable[Encoded]
    count: int
    columns: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    classes: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    ids: np.ndarray | None = None
    names: Sequence[str] | None = None
    others: dict[str, str] = field(default_factory=dict[str, str])


class ReadReport(TypedDict):
    """What the reader of a data set saw: ``rows`` in all, ``corrupt`` ones left out, ``converted`` images by mode.

    ``corrupt_images`` says of the first hundred where each lies and what is wrong with it.
    """

    rows: int
    corrupt: int
    corrupt_images: dict[str, str]
    converted: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns that a user names: that of the images, and label columns beside those with usual names."""

    image: str | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """One split before it is read: ``read`` is called only when no store with this ``fingerprint`` exists.

    ``resident`` rows are small and live in memory; they get no store. ``read_columns`` reads the columns that a user
    names; None for a set whose columns are fixed.
    """

    fingerprint: str
    read: Callable[[], Rows]
    resident: bool = False
    read_columns: Callable[[Columns], Rows] | None = None

    def rows(self, columns: Columns) -> Rows:
        """The rows, with the columns that a user names; DataError for an image column where there is no choice."""
        if self.read_columns is not None:
            return self.read_columns(columns)
        if columns.image is not None:
            raise DataError(f"this set has one column of images, so {columns.image!r} cannot be chosen; drop --image")
        rows = self.read()
        if strange := [name for name in columns.labels if name not in rows.columns]:
            raise unknown("label column", strange[0], rows.columns or ["none: this set has no labels"])
        return rows


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """An entry of the catalog; ``splits(data_dir)`` gives what can be opened, by our names of splits.

    ``available(data_dir)`` says, without fetching anything, whether it can be had and where (or why not).
    """

    name: str
    source: str
    size: int | None
    label_columns: tuple[str, ...]
    splits: Callable[[Path | None], Mapping[str, Source]]
    available: Callable[[Path | None], tuple[bool, str]] = lambda data_dir: (True, "embedded")


SETS: Registry[DataSet] = Registry("data set", "unfool.data.sets", "unfool.data", instance_of=DataSet)
"""The catalog: one file in ``unfool.data.sets`` files each entry here."""

SPLIT_NAMES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("validation", "valid", "val", "dev"),
    "unlabelled": ("unlabelled", "unlabeled", "unsupervised"),
}
"""Our names of splits, and what others call them, in the order in which they are looked for."""


def split_of(name: str) -> str | None:
    """Our name for a split that someone else named; None if it is none of the four."""
    return next((ours for ours, theirs in SPLIT_NAMES.items() if name.lower() in theirs), None)


def names_by_split(where: str, names: Iterable[str]) -> dict[str, str]:
    """What someone else named, by our names of splits; DataError for two names of one split."""
    by_split: dict[str, str] = {}
    for name in names:
        if (split := split_of(name)) is None:
            continue
        if split in by_split:
            raise same_split(where, split, by_split[split], name)
        by_split[split] = name
    return by_split


def same_split(where: str, split: str, first: str, second: str) -> DataError:
    """The error of a set with two folders, files or names that stand for the same images of a split."""
    return DataError(
        f"{where} has {first} and {second}, which are both its split {split!r}; a split is read from one of them: "
        "join them, or rename or remove the other"
    )


def primary_column(columns: Iterable[str], named: Sequence[str] = ()) -> str | None:
    """The column that classification uses: the first that a user ``named``, else ``label``, else ``fine_label``, else
    the first; None without columns."""
    names = list(columns)
    usual = (*named, "label", "fine_label", "labels")
    return next((name for name in usual if name in names), names[0] if names else None)


def fingerprint_files(root: Path, files: Iterable[Path]) -> str:
    """A hash of the files' names, sizes and modification times: cheap, and different when a file is replaced."""
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        status = path.stat()
        digest.update(
            f"{path.relative_to(root)}\x1f{status.st_size}\x1f{status.st_mtime_ns}\x1e".encode(errors="surrogateescape")
        )
    return digest.hexdigest()
