# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""CSV files that name images: a column of paths, label columns, and perhaps a column ``split``.

Paths are relative to the folder of the CSV file. Without a ``split`` column a fixed stratified fifth is the test split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unfool.core.errors import DataError
from unfool.data import stratify
from unfool.data.readers.columns import IMAGE_NAMES, LABEL_NAMES, listed
from unfool.data.readers.folder import read_files
from unfool.data.readers.labels import MISSING, class_numbers
from unfool.data.sources import Columns, Rows, Source, fingerprint_files, split_of

if TYPE_CHECKING:
    import pandas as pd

_PATH_NAMES = ("path", "file", "filename", "file_name", "filepath", *IMAGE_NAMES)


def csv_splits(file: Path) -> Mapping[str, Source]:
    """The splits of a CSV file; DataError if it cannot be read or has no rows."""
    import pandas as pd  # here, because it takes long to import

    try:
        rows = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"cannot read {file} as CSV: {line}; give a file with a header, paths and labels") from error
    if rows.empty:
        raise DataError(f"{file} has no rows; give a header and a row for each image")
    return {split: _source(file, rows, chosen) for split, chosen in _rows_by_split(file, rows).items()}


def _rows_by_split(file: Path, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    if "split" not in rows:
        import pandas as pd

        labels = next((rows[name] for name in rows if str(name).lower() in LABEL_NAMES), None)
        numbers = np.zeros(len(rows), dtype=np.int64) if labels is None else pd.factorize(labels)[0]
        train, test = stratify.train_and_test(numbers)
        return {"train": train, "test": test}
    names = rows["split"].map(split_of)
    if names.isna().any():
        wrong = next(split for split, known in zip(rows["split"], names.notna(), strict=True) if not known)
        raise DataError(f"{file} has the split {wrong!r}; allowed: train, test, validation, unlabelled")
    return {str(split): np.flatnonzero(names == split) for split in names.unique()}


def _source(file: Path, rows: pd.DataFrame, chosen: np.ndarray) -> Source:
    def read(columns: Columns) -> Rows:
        path_column = _path_column(file, rows, columns)
        names = _label_names(file, rows, columns)
        labels: dict[str, np.ndarray] = {}
        classes: dict[str, list[str]] = {}
        for name in names:
            numbers, known = _labels(rows[name], name)
            if numbers[chosen].max(initial=MISSING) < 0:
                continue
            if numbers[chosen].min() < 0:
                raise DataError(f"column {name!r} of {file} labels only some rows; drop the others or name another")
            labels[name], classes[name] = numbers[chosen], known
        paths = [file.parent / path for path in rows[path_column].iloc[chosen]]
        _check_files(file, paths)
        return Rows(
            images=read_files(iter(paths)),
            count=len(paths),
            columns=labels,
            classes=classes,
            ids=chosen,
            names=[str(path) for path in rows[path_column].iloc[chosen]],
            others={str(name): "text" for name in rows if name not in (path_column, "split", *names)},
        )

    return Source(fingerprint=fingerprint_files(file.parent, [file]), read=lambda: read(Columns()), read_columns=read)


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


def _labels(values: pd.Series, name: str) -> tuple[np.ndarray, list[str]]:
    """Class numbers where all are whole numbers, else texts as classes; of all splits, so that they agree."""
    texts = values.tolist()
    present = [text for text in texts if text]
    if present and all(text.isdecimal() and len(text) <= 18 for text in present):
        return class_numbers([float(text) if text else np.nan for text in texts], name)
    return class_numbers([text or None for text in texts], name)


def _check_files(file: Path, paths: Sequence[Path]) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} files that {file} names do not exist, first {missing[0]}; paths are "
            "relative to the folder of the CSV file"
        )
