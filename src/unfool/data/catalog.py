"""Names of image sets to tables: the data directory is searched first, then the set's own source."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unfool.core.borders.reading import is_folder
from unfool.core.errors import DataError, SpecError
from unfool.core.spec import unknown
from unfool.data.decode import Framing
from unfool.data.folders import cache_folder, data_folder
from unfool.data.readers.by_path import is_path, splits_by_path
from unfool.data.readers.hub import hub_reachable, hub_splits
from unfool.data.readers.parquet import hub_folders, parquet_splits
from unfool.data.sources import SETS, Columns, Source
from unfool.data.store.opening import LIMIT_BYTES, resident_table, stored_table
from unfool.data.table import Table

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
SPLITS = ("train", "test", "unlabelled")


def open_table(
    name: str,
    split: str,
    *,
    data_dir: str | Path | None = None,
    size: int | None = None,
    crop: float = 1.0,
    image: str | None = None,
    labels: str | Sequence[str] = (),
    limit: int = LIMIT_BYTES,
) -> Table:
    """Open a split of a data set as a table of uint8 RGB images.

    The images are decoded once, into a memory-mapped store in the cache folder (UNFOOL_CACHE_DIR).

    Args:
        name: A name of the catalog (``unfool doctor`` lists it), a folder of the data directory, ``folder:PATH`` with
            one directory per class, a CSV file of paths and labels (PATH.csv, PATH.tsv), or ``hub:OWNER/NAME`` on the
            Hugging Face hub.
        split: "train", "test" or "unlabelled". For a set without a test split, "test" opens its validation split, and
            the table's ``split`` says so.
        data_dir: Where data sets lie as files. Default: UNFOOL_DATA_DIR.
        size: Side in pixels to which images are brought: the shorter side is scaled, the centre cut out. None keeps
            images as they are, and needs them to be of one size.
        crop: Share of the shorter side that the cut keeps: 0.875 scales it to ``size / 0.875`` first. 0 cuts nothing
            and squeezes the image to a square.
        image: Column of the images. Default: the one that is declared so or has a usual name, such as image.
        labels: Label columns to read beside those with usual names; the first one is then the primary one.
        limit: Bytes above which decoded images are not stored; they are then decoded on access.

    Returns:
        The table, with images of shape (3, H, W).

    Raises:
        SpecError: An unknown name or split.
        DataError: A set that is missing, unreadable or has images of several sizes.

    Example:
        >>> open_table("digits", "train")
        Table('digits', 'train', 1400 images of 3×32×32, labels: label, parity)
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if size is not None and not 2 <= size <= 4096:
        raise DataError(f"size {size} is not allowed; give 2 to 4096 pixels")
    if not (crop == 0 or 0.1 <= crop <= 1):
        raise DataError(f"crop {crop:g} is not allowed; give a share from 0.1 to 1, or 0 to cut nothing")
    framing = Framing(size, float(crop))
    columns = Columns(image=image or None, labels=(labels,) if isinstance(labels, str) else tuple(labels))
    sources = split_sources(name, data_folder(data_dir))
    actual = _actual(name, split, sources)
    source = sources[actual]
    if source.resident:
        return resident_table(name, actual, source, framing=framing, columns=columns)
    return stored_table(name, actual, source, framing=framing, columns=columns, cache=cache_folder(), limit=limit)


def open_described(
    name: str,
    split: str,
    *,
    data_dir: Path | None,
    size: int | None,
    crop: float,
    image: str | None,
    columns: Sequence[str | None] = (),
) -> Table:
    """A split whose label ``columns`` need no usual names; the first one that is no usual one is then primary."""

    def opened(labels: Sequence[str] = ()) -> Table:
        return open_table(name, split, data_dir=data_dir, size=size, crop=crop, image=image, labels=labels)

    table = opened()
    missing = [column for column in dict.fromkeys(columns) if column is not None and column in table.others]
    return opened(missing) if missing else table


def split_sources(name: str, data_dir: Path | None) -> Mapping[str, Source]:
    """The splits of a set as its reader gives them; SpecError for an unknown name, DataError for a missing set."""
    if is_path(name):
        return splits_by_path(name, data_dir)
    folders = hub_folders(data_dir)
    if name.startswith("hub:"):
        repository = name.removeprefix("hub:")
        if not _REPOSITORY.fullmatch(repository):
            raise unknown("data set", name, ("hub:OWNER/NAME",))
        local = data_dir / repository if data_dir else None
        return parquet_splits(local) if local and is_folder(local) else hub_splits(repository)
    if name in folders:
        return parquet_splits(folders[name])
    if name not in SETS:
        if is_folder(name):
            raise SpecError(f"unknown data set {name!r}, which is a folder here; give folder:{name} to read its images")
        raise unknown("data set", name, [*SETS, *folders, "folder:PATH", "FILE.csv", "hub:OWNER/NAME"])
    return SETS[name].splits(data_dir)


def _actual(name: str, split: str, sources: Mapping[str, Source]) -> str:
    """The split to open for ``split``: the validation split stands in for a missing test split."""
    wanted = ("test", "validation") if split == "test" else (split,)
    actual = next((candidate for candidate in wanted if candidate in sources), None)
    if actual is None:
        raise DataError(
            f"{name} has no {' or '.join(wanted)} split; it has {', '.join(sorted(sources)) or 'none at all'}"
        )
    return actual


@dataclass(frozen=True, kw_only=True)
class CatalogEntry:
    """One set as ``unfool doctor`` shows it; ``reachable`` is False with ``where`` saying why."""

    name: str
    source: str
    size: int | None
    label_columns: tuple[str, ...]
    reachable: bool
    where: str


def catalog(data_dir: str | Path | None = None) -> list[CatalogEntry]:
    """Every set that can be named without a path, and whether it can be had now; asks the hub at most once."""
    folder = data_folder(data_dir)
    folders = hub_folders(folder)
    names = [*SETS, *(name for name in folders if name not in SETS)]
    on_hub = [name for name in SETS if name not in folders and SETS[name].source.startswith("hub:")]
    reason = hub_reachable(SETS[on_hub[0]].source.removeprefix("hub:")) if on_hub else None
    entries_known = {name: SETS[name] for name in SETS}
    entries: list[CatalogEntry] = []
    for name in names:
        known = entries_known.get(name)
        if name in folders:
            reachable, where = True, str(folders[name])
        elif known is not None and known.source.startswith("hub:"):
            reachable, where = reason is None, reason or "Hugging Face hub"
        else:
            reachable, where = known.available(folder) if known is not None else (True, "")
        entries.append(
            CatalogEntry(
                name=name,
                source=known.source if known else "data directory",
                size=known.size if known else None,
                label_columns=known.label_columns if known else (),
                reachable=reachable,
                where=where,
            )
        )
    return entries
