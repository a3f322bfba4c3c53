"""Sets in the layout of the Hugging Face hub that lie in a folder: parquet shards with feature metadata.

``NAME/train-00000-of-00002.parquet`` and so on; the shards may also lie in one sub-folder, as in a clone from the hub.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unfool.core.errors import DataError
from unfool.data.sources import Encoded, Rows, Source, fingerprint_files, split_of

_SHARD = re.compile(r"([A-Za-z_]+)(?:-(\d+)-of-(\d+))?(?:-[0-9a-f]+)?\.parquet")
_ROWS_AT_ONCE = 512


def _shards(folder: Path) -> dict[str, list[Path]]:
    """Shards by our split names; DataError if a numbered shard is missing."""
    by_split: dict[str, dict[int, Path]] = {}
    totals: dict[str, int] = {}
    for path in sorted(folder.glob("*.parquet")):
        match = _SHARD.fullmatch(path.name)
        split = split_of(match[1]) if match else None
        if match is None or split is None:
            continue
        by_split.setdefault(split, {})[int(match[2] or 0)] = path
        totals[split] = int(match[3] or 1)
    for split, shards in by_split.items():
        missing = sorted(set(range(totals[split])) - set(shards))
        if missing:
            raise DataError(
                f"{folder} lacks shard {missing[0]:05d} of {totals[split]:05d} of its split {split!r}; "
                "copy the missing parquet file there (a part of a split is never read as the whole)"
            )
    return {split: [shards[index] for index in sorted(shards)] for split, shards in by_split.items()}


def hub_folders(data_dir: Path | None) -> dict[str, Path]:
    """Every folder of the data directory that is in hub layout, by its name."""
    if data_dir is None:
        return {}
    folders = sorted(path for path in data_dir.iterdir() if path.is_dir())
    return {path.name: path for path in folders if any(path.glob("*.parquet")) or any(path.glob("*/*.parquet"))}


def parquet_splits(folder: Path) -> Mapping[str, Source]:
    """The splits of a folder in hub layout; DataError for missing shards or an ambiguous layout."""
    if not any(folder.glob("*.parquet")):
        inner = sorted({path.parent for path in folder.glob("*/*.parquet")})
        if len(inner) != 1:
            names = ", ".join(path.name for path in inner) or "none"
            raise DataError(f"{folder} holds parquet files in several sub-folders ({names}); keep those of one set")
        folder = inner[0]
    return {
        split: Source(fingerprint=fingerprint_files(folder, paths), read=lambda paths=paths: _read(paths))
        for split, paths in _shards(folder).items()
    }


def _read(paths: Sequence[Path]) -> Rows:
    from datasets import Features  # here, because importing it takes longer than opening a finished store

    try:
        files = [pq.ParquetFile(path) for path in paths]
        schema = files[0].schema_arrow
        if any(set(file.schema_arrow.names) != set(schema.names) for file in files):
            raise DataError(f"the shards beside {paths[0]} have different columns; fetch the set again")
        features = Features.from_arrow_schema(schema)
        image = image_column(features, schema, str(paths[0]))
        names = [name for name in schema.names if is_label(features[name], name)]
        tables = [file.read(columns=names) for file in files]
        labels = {name: [table.column(name) for table in tables] for name in names}
        count = sum(file.metadata.num_rows for file in files)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"cannot read {paths[0].parent}: {_line(error)}; fetch the set again") from error
    columns, classes = label_columns(
        {name: pa.chunked_array([chunk for part in parts for chunk in part.chunks]) for name, parts in labels.items()},
        features,
    )
    return Rows(images=_encoded(paths, image), count=count, columns=columns, classes=classes)


def _encoded(paths: Sequence[Path], column: str) -> Iterator[Encoded]:
    for path in paths:
        try:
            for batch in pq.ParquetFile(path).iter_batches(batch_size=_ROWS_AT_ONCE, columns=[column]):
                # a path inside a parquet file is never followed: it could point anywhere
                yield from (value["bytes"] if isinstance(value, dict) else value for value in batch[0].to_pylist())
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"cannot read {path}: {_line(error)}; fetch the set again") from error


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def image_column(features: Mapping[str, Any], schema: pa.Schema, where: str) -> str:
    """The one column of images: declared as such, else a struct with bytes, else bytes; DataError if there is none."""
    declared = [name for name in features if type(features[name]).__name__ == "Image"]
    structs = [
        f.name
        for f in schema
        if pa.types.is_struct(f.type) and "bytes" in {f.type.field(i).name for i in range(f.type.num_fields)}
    ]
    plain = [f.name for f in schema if pa.types.is_binary(f.type) or pa.types.is_large_binary(f.type)]
    names = declared or structs or plain
    if not names:
        raise DataError(f"{where} has no image column; its columns are {', '.join(schema.names)}")
    return names[0]


def is_label(feature: Any, name: str) -> bool:
    """Whether a column holds class labels: declared as such, or integers under a name that says so."""
    if type(feature).__name__ == "ClassLabel":
        return True
    integers = str(getattr(feature, "dtype", "")).startswith(("int", "uint"))
    return integers and (name in ("label", "labels", "target") or name.endswith("_label"))


def label_columns(
    values: Mapping[str, pa.ChunkedArray], features: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Labels (N,) int64 and class names by column; a column without any label (all -1 or null) is left out.

    DataError for a column that labels only some rows, or has labels without a class.
    """
    columns: dict[str, np.ndarray] = {}
    classes: dict[str, list[str]] = {}
    for name, array in values.items():
        labels = array.fill_null(-1).to_numpy().astype(np.int64)
        if len(labels) == 0 or labels.max() < 0:
            continue
        names = list(getattr(features[name], "names", None) or map(str, range(int(labels.max()) + 1)))
        wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
        if len(wrong):
            raise DataError(
                f"column {name!r} has {len(wrong)} labels outside its {len(names)} classes, first in row {wrong[0]}; "
                "repair those rows or drop the column"
            )
        columns[name], classes[name] = labels, names
    return columns, classes
