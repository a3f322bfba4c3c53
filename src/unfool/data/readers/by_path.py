"""Image sets that a user names by a path, ``folder:PATH`` or a CSV file; and which files of any set other machines are
sent."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from unfool.core.borders.reading import is_folder
from unfool.core.errors import DataError
from unfool.core.parallel.job import ImageSet
from unfool.data.folders import data_folder
from unfool.data.readers.csv_file import csv_splits, images_of_csv
from unfool.data.readers.folder import folder_splits
from unfool.data.sources import Source

_FOLDER = "folder:"


def is_path(name: str) -> bool:
    """Whether a set is named by its path."""
    return name.startswith(_FOLDER) or _is_csv(name)


def splits_by_path(name: str, data_dir: Path | None) -> Mapping[str, Source]:
    """The splits of such a set, of which the data directory may hold a copy that was sent; DataError as its reader."""
    sent = data_dir / _place(name) if data_dir is not None else None
    if _is_csv(name):
        file = _path(name, "a file PATH.csv")
        return csv_splits(sent / file.name if sent is not None and is_folder(sent) else file)
    folder = _path(name.removeprefix(_FOLDER), "folder:PATH")
    return folder_splits(sent if sent is not None and is_folder(sent) else folder)


def image_sets(name: str, data_dir: str | Path | None = None) -> frozenset[ImageSet]:
    """The set of that name as jobs are told of it; empty for one that every machine has, or fetches by itself.

    Args:
        name: As `open_table` takes it.
        data_dir: Where data sets lie as files. Default: UNFOOL_DATA_DIR.
    """
    if _is_csv(name):
        file = _path(name, "a file PATH.csv")
        return frozenset({ImageSet(folder=file.parent, place=_place(name), files=lambda: [file, *images_of_csv(file)])})
    if is_path(name):
        return frozenset({ImageSet(folder=_path(name.removeprefix(_FOLDER), name), place=_place(name))})
    directory, place = data_folder(data_dir), name.removeprefix("hub:")
    if directory is None or not is_folder(directory / place):
        return frozenset()
    return frozenset({ImageSet(folder=directory / place, place=place)})


def _is_csv(name: str) -> bool:
    return not name.startswith(_FOLDER) and name.lower().endswith((".csv", ".tsv"))


def _place(name: str) -> str:
    """Where a data directory has a set that was sent to it, whatever its path is called there."""
    return f".sent/{hashlib.blake2b(name.encode(errors='surrogateescape'), digest_size=8).hexdigest()}"


def _path(text: str, form: str) -> Path:
    """A path that a user wrote; DataError for none, and for the home of an unknown user."""
    if not text.strip():
        raise DataError(f"no path was given; give {form}, such as folder:pets")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise DataError(f"the home folder of {text.split('/')[0]} is unknown; write out the path of {form}") from error
