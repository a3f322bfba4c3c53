"""Sets in the layout of the Hugging Face hub that lie in a folder: parquet shards with feature metadata.

``NAME/train-00000-of-00002.parquet`` and so on; the shards may also lie in one sub-folder, as in a clone from the hub.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from unfool.core.borders.reading import is_file
from unfool.core.errors import DataError
from unfool.data.readers.columns import choose_columns, encoded_value, label_columns
from unfool.data.sources import Columns, Encoded, Rows, Source, fingerprint_files, same_split, split_of

_SHARD = re.compile(r"([A-Za-z_]+)(?:-(\d+)-of-(\d+))?(?:-[0-9a-f]+)?\.parquet")
_SHARD_DIGITS = 6
_ROWS_AT_ONCE = 512
_MOST_ROWS = 20_000_000
"""Rows of one split; labels of more are not read."""


def _shards(folder: Path) -> dict[str, list[Path]]:
    """Shards by our split names; DataError if a numbered shard is missing, or there twice."""
    by_split: dict[str, dict[int, Path]] = {}
    totals: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.glob("*.parquet")):
        match = _SHARD.fullmatch(path.name)
        split = split_of(match[1]) if match else None
        if match is None or split is None:
            continue
        if len(match[2] or "") > _SHARD_DIGITS or len(match[3] or "") > _SHARD_DIGITS:
            raise DataError(f"{path} has a shard number of more than the {_SHARD_DIGITS} digits allowed; rename it")
        same = by_split.setdefault(split, {}).setdefault(int(match[2] or 0), path)
        if same != path:
            raise same_split(str(folder), split, same.name, path.name)
        totals.setdefault(split, {}).setdefault(int(match[3] or 1), path)
    for split, shards in by_split.items():
        total, *others = sorted(totals[split])
        if others:
            raise same_split(str(folder), split, *(totals[split][number].name for number in (total, others[0])))
        missing = sorted(set(range(total)) - set(shards))
        if missing:
            raise DataError(
                f"{folder} lacks shard {missing[0]:05d} of {total:05d} of its split {split!r}; "
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
    shards = _shards(folder)
    every = [path for paths in shards.values() for path in paths]

    def source(paths: Sequence[Path]) -> Source:
        read = lambda columns: _read(paths, every, columns)  # noqa: E731
        fingerprint = fingerprint_files(folder, every)  # whose texts number the classes of each split
        return Source(fingerprint=fingerprint, read=lambda: read(Columns()), read_columns=read)

    return {split: source(paths) for split, paths in shards.items()}


def _read(paths: Sequence[Path], every: Sequence[Path], columns: Columns) -> Rows:
    """The rows of one split; ``every`` shard of the set is looked at for the classes of text labels."""
    from datasets import Features  # here, because importing it takes longer than opening a finished store

    try:
        files = [_opened(path) for path in paths]
        schema = files[0].schema_arrow
        if any(set(file.schema_arrow.names) != set(schema.names) for file in files):
            raise DataError(f"the shards beside {paths[0]} have different columns; fetch the set again")
        try:
            features = Features.from_arrow_schema(schema)
        except Exception as error:  # whatever malformed metadata make of `datasets`
            raise DataError(
                f"{paths[0]} has huggingface metadata that describe no columns ({_line(error)[:200]}); fetch it again, "
                "or write it without them"
            ) from error
        chosen = choose_columns(features, schema, str(paths[0]), columns)
        count = sum(file.metadata.num_rows for file in files)
        if not 0 <= count <= _MOST_ROWS:
            raise DataError(
                f"{paths[0].parent} declares {count:,} rows, more than the {_MOST_ROWS:,} allowed; split it"
            )
        tables = [file.read(columns=list(chosen.labels)) for file in files]
        labels, classes = label_columns(
            {name: _joined(tables, name) for name in chosen.labels},
            features,
            lambda name: (_opened(path).read(columns=[name]).column(name) for path in every),
        )
    except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError) as error:
        raise DataError(f"cannot read {paths[0].parent}: {_line(error)}; fetch the set again") from error
    images = _encoded(paths, chosen.image)
    return Rows(images=images, count=count, columns=labels, classes=classes, others=chosen.others)


def _opened(path: Path) -> pq.ParquetFile:
    """A regular file; its name need not be text, which Arrow wants."""
    if not is_file(path):
        raise DataError(f"{path} is no regular file; give a parquet file")
    return pq.ParquetFile(pa.PythonFile(open(path, "rb")))


def _joined(tables: Sequence[pa.Table], name: str) -> pa.ChunkedArray:
    return pa.chunked_array([chunk for table in tables for chunk in table.column(name).chunks])


def _encoded(paths: Sequence[Path], column: str) -> Iterator[Encoded]:
    for path in paths:
        try:
            for batch in _opened(path).iter_batches(batch_size=_ROWS_AT_ONCE, columns=[column]):
                # a path inside a parquet file is never followed: it could point anywhere
                yield from map(encoded_value, batch[0].to_pylist())
        except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
            raise DataError(f"cannot read {path}: {_line(error)}; fetch the set again") from error


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
