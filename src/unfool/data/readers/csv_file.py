# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""CSV files that name images: a column of paths, label columns, and perhaps a column ``split``.

Commas stand between the columns, or tabs or semicolons in a first line without commas. Without a header the column
that names images is called ``path``, the other one, if there is only one, ``label``. Paths are relative to the folder
of the CSV file. Without a ``split`` column a fixed fifth is the test split, as a warning says: the same share of every
class where the file itself shows which column holds the classes.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unfool.core.borders.reading import is_file, read_bytes
from unfool.core.errors import DataError, UnfoolWarning
from unfool.data import stratify
from unfool.data.readers.columns import listed
from unfool.data.readers.folder import SUFFIXES, read_files
from unfool.data.readers.labels import MISSING, class_numbers
from unfool.data.readers.shared_files import warn_of_shared_files
from unfool.data.sources import IMAGE_NAMES, LABEL_NAMES, Columns, Rows, Source, fingerprint_files, split_of

if TYPE_CHECKING:
    import pandas as pd

_MOST_BYTES, _MOST_COLUMNS, _MOST_CELLS = 1 << 27, 1000, 6_000_000
"""Bounds of a CSV file: 128 MiB, columns, and rows times columns."""
_PATH_NAMES = ("path", "file", "filename", "file_name", "filepath", *IMAGE_NAMES)


def csv_splits(file: Path) -> Mapping[str, Source]:
    """The splits of a CSV file; DataError if it cannot be read or has no rows."""
    rows = _rows_of(file)
    by_split = _rows_by_split(file, rows)
    named = [name for name in rows if str(name).lower() in _PATH_NAMES]
    if len(named) == 1:
        paths = _paths(file, rows[named[0]])
        warn_of_shared_files(file, {split: [paths[row] for row in chosen] for split, chosen in by_split.items()})
    return {split: _source(file, rows, chosen) for split, chosen in by_split.items()}


def _rows_of(file: Path) -> pd.DataFrame:
    """The rows of a CSV file; DataError if it cannot be read or has none."""
    if not os.path.exists(file):
        raise DataError(f"there is no file {file}; give a CSV file of paths and labels")
    content = _bounded_content(file)
    try:
        rows = _read(content)
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from error
    except ValueError as error:  # pandas' own errors are ValueErrors
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"cannot read {file} as CSV: {line}; give a file with a header, paths and labels") from error
    if rows.empty:
        raise DataError(f"{file} has no rows; give a header and a row for each image")
    return rows


def _bounded_content(file: Path) -> bytes:
    """The content of a file; DataError for a table of more cells than a set of images can have."""
    content = read_bytes(file, "give a CSV file with a header, paths and labels", most=_MOST_BYTES)
    first = content.partition(b"\n")[0]
    width = max(map(first.count, (b",", b"\t", b";"))) + 1
    if width > _MOST_COLUMNS:
        raise DataError(f"{file} has {width:,} columns, more than the {_MOST_COLUMNS:,} allowed; keep paths and labels")
    cells = max(content.count(b"\n"), content.count(b"\r")) * width
    if cells > _MOST_CELLS:
        raise DataError(f"{file} has {cells:,} cells, more than the {_MOST_CELLS:,} allowed; keep paths and labels")
    return content


def _read(content: bytes) -> pd.DataFrame:
    """The rows as text, without spaces around it."""
    import pandas as pd  # here, because it takes long to import

    first = content.partition(b"\n")[0].decode("utf-8-sig")
    separator = next((sign for sign in ",\t;" if sign in first), ",")
    read = {"dtype": str, "keep_default_na": False, "sep": separator, "encoding": "utf-8-sig"}
    header = None if _names_an_image(first, separator) else 0
    rows = pd.read_csv(io.BytesIO(content), header=header, **read).fillna("")
    if not isinstance(rows.columns[0], str):
        paths = [number for number in rows if _ends_like_an_image(rows[number].iloc[0])]
        names = {number: f"column {number + 1}" for number in rows} | {paths[0]: "path"}
        if len(names) == 2:
            names |= {number: "label" for number in rows if number != paths[0]}
        rows = rows.rename(columns=names)
    rows = rows.rename(columns=lambda name: str(name).strip())
    if rows.columns.has_duplicates:
        raise ValueError(f"two columns are called {rows.columns[rows.columns.duplicated()][0]!r}")
    return rows.apply(lambda column: column.str.strip())


def _names_an_image(line: str, separator: str) -> bool:
    return any(_ends_like_an_image(cell) for cell in line.split(separator))


def _ends_like_an_image(cell: str) -> bool:
    return Path(cell.strip().strip('"')).suffix.lower() in SUFFIXES


def _split_column(rows: pd.DataFrame) -> str | None:
    return next((str(name) for name in rows if str(name).lower() == "split"), None)


def _rows_by_split(file: Path, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    column = _split_column(rows)
    if column is None:
        import pandas as pd

        classes = _class_column(rows)
        numbers = np.zeros(len(rows), dtype=np.int64) if classes is None else pd.factorize(rows[classes])[0]
        parts = stratify.train_and_test(numbers)
        words = f"{file} has no column split: {stratify.in_words(parts)}"
        if classes is None:
            words += ", whatever their classes, as no column is called label"
        warnings.warn(f"{words}; add the column, with train or test, to choose", UnfoolWarning, stacklevel=2)
        return parts
    written = _column(rows, column)
    names = [split_of(text) for text in written]
    if None in names:
        wrong = written[names.index(None)]
        raise DataError(f"{file} has the split {wrong!r}; allowed: train, test, validation, unlabelled")
    return {str(split): np.flatnonzero(np.array(names) == split) for split in dict.fromkeys(names)}


def _class_column(rows: pd.DataFrame) -> str | None:
    """The column whose classes the cut keeps in proportion: with a usual name, else the only one beside the paths, if
    its values repeat as classes do.

    It follows from the file alone. A cut by the column that a call names would be another one for each name, so that
    test images of one call would be training images of another.
    """
    names = [str(name) for name in rows if str(name) != _split_column(rows)]
    for usual in (lambda name: name in LABEL_NAMES, lambda name: name.endswith("_label")):
        if named := [name for name in names if usual(name.lower())]:
            return named[0]
    paths = [name for name in names if name.lower() in _PATH_NAMES] or [
        name for name in names if _ends_like_an_image(rows[name].iloc[0])
    ]
    others = [name for name in names if name not in paths]
    # A fifth of a class needs five rows.
    repeats = len(others) == 1 and len(set(rows[others[0]])) <= stratify.TEST_SHARE * len(rows)
    return others[0] if len(paths) == 1 and repeats else None


def _column(rows: pd.DataFrame, name: str) -> list[str]:
    """The texts of a column, the first of that name."""
    return rows.iloc[:, list(rows).index(name)].tolist()


def _source(file: Path, rows: pd.DataFrame, chosen: np.ndarray) -> Source:
    def read(columns: Columns) -> Rows:
        path_column = _path_column(file, rows, columns)
        names = _label_names(file, rows, columns)
        labels: dict[str, np.ndarray] = {}
        classes: dict[str, list[str]] = {}
        for name in names:
            numbers, known = _labels(_column(rows, name), name)
            if numbers[chosen].max(initial=MISSING) < 0:
                continue
            if numbers[chosen].min() < 0:
                first = str(rows[name].iloc[chosen[int(numbers[chosen].argmin())]])
                if first.startswith("-"):
                    raise DataError(f"column {name!r} of {file} has label {first}; number the classes from 0")
                raise DataError(f"column {name!r} of {file} labels only some rows; drop the others or name another")
            labels[name], classes[name] = numbers[chosen], known
        paths = _paths(file, rows[path_column].iloc[chosen])
        _check_files(file, paths)
        return Rows(
            images=read_files(iter(paths)),
            count=len(paths),
            columns=labels,
            classes=classes,
            ids=chosen,
            names=[str(path) for path in rows[path_column].iloc[chosen]],
            others={str(name): "text" for name in rows if name not in (path_column, _split_column(rows), *names)},
        )

    return Source(fingerprint=_fingerprint(file, rows, chosen), read=lambda: read(Columns()), read_columns=read)


def images_of_csv(file: Path) -> list[Path]:
    """The images that a CSV file names, in any of its columns; DataError as `csv_splits`."""
    return list(_named_files(file, _rows_of(file)))


def _named_files(file: Path, rows: pd.DataFrame) -> Iterator[Path]:
    """The files of every column whose first cell names one, or ends as images do: the one that is read is among them,
    whatever its files are called."""
    for name in rows if len(rows) else ():
        first = rows[name].iloc[0]
        if _ends_like_an_image(first) or is_file(_paths(file, [first])[0]):
            yield from filter(is_file, _paths(file, rows[name]))


def _paths(file: Path, cells: Iterable[str]) -> list[Path]:
    """Where the images lie; a path with backslashes that is none here is one of Windows."""
    paths = [file.parent / cell for cell in cells]
    return [
        path if "\\" not in path.name or os.path.exists(path) else path.parent / path.name.replace("\\", "/")
        for path in paths
    ]


def _fingerprint(file: Path, rows: pd.DataFrame, chosen: np.ndarray) -> str:
    """Of the CSV file, and of every image that it names in a split."""
    digest = hashlib.blake2b(digest_size=8)
    for path in _named_files(file, rows.iloc[chosen]):
        status = path.stat()
        digest.update(f"{path}\x1f{status.st_size}\x1f{status.st_mtime_ns}\x1e".encode(errors="surrogateescape"))
    return f"{fingerprint_files(file.parent, [file])}-{digest.hexdigest()}"


def _path_column(file: Path, rows: pd.DataFrame, columns: Columns) -> str:
    known = {str(name): "text" for name in rows}
    if columns.image is not None:
        if columns.image not in known:
            raise DataError(f"{file} has no column {columns.image!r}; its columns are {listed(known)}")
        return columns.image
    usual = [name for name in known if name.lower() in _PATH_NAMES]
    if len(usual) != 1:
        what = f"several columns that may be paths, {', '.join(usual)}" if usual else "no column of paths"
        raise DataError(f"{file} has {what}; its columns are {listed(known)}: name one with --image NAME")
    return usual[0]


def _label_names(file: Path, rows: pd.DataFrame, columns: Columns) -> list[str]:
    known = {str(name): "text" for name in rows}
    if strange := [name for name in columns.labels if name not in known]:
        raise DataError(f"{file} has no column {strange[0]!r}; its columns are {listed(known)}")
    usual = [name for name in known if name.lower() in LABEL_NAMES or name.lower().endswith("_label")]
    return [*columns.labels, *(name for name in usual if name not in columns.labels)]


def _labels(values: Sequence[str], name: str) -> tuple[np.ndarray, list[str]]:
    """Class numbers where all are whole numbers, else texts as classes; of all splits, so that they agree."""
    return class_numbers([text or None for text in values], name)


def _check_files(file: Path, paths: Sequence[Path]) -> None:
    missing = [path for path in paths if not is_file(path)]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} files that {file} names do not exist, first {missing[0]}; paths are "
            "relative to the folder of the CSV file"
        )
