"""Sets from the Hugging Face hub, through ``datasets``; without a network they fail at once, saying what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from unfool.core.borders.json_text import read_object
from unfool.core.borders.reading import is_file, read_bytes
from unfool.core.errors import DataError
from unfool.core.files import write_json
from unfool.data.folders import cache_folder
from unfool.data.readers.columns import choose_columns, encoded_value, label_columns
from unfool.data.sources import Columns, Encoded, Rows, Source, same_split, split_of

PROBE_SECONDS = 5.0
"""How long the hub may take to answer before it counts as unreachable."""


def hub_reachable(repository: str) -> str | None:
    """None if the hub answers for this data set, else one line that says why it does not."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        HfApi().dataset_info(repository, timeout=PROBE_SECONDS)
    except GatedRepoError:
        return "it is gated; accept its terms on its page and log in with `hf auth login`"
    except RepositoryNotFoundError:
        return "the hub has no public data set of that name"
    except Exception as error:  # whatever the HTTP client of the day raises without a network
        return f"the hub cannot be reached ({type(error).__name__})"
    return None


def hub_splits(repository: str, names: Mapping[str, str] | None = None) -> Mapping[str, Source]:
    """The splits of a hub set, read from the hub only where no store exists; ``names`` are its own names by ours.

    Without ``names`` the hub is queried once and its answer stored, so that a finished store needs no network. A
    store of a hub set is pinned: it holds what the hub had when it was built.
    """
    called = {ours: [theirs] for ours, theirs in names.items()} if names else _split_names(repository)
    every = [name for theirs in called.values() for name in theirs]

    def source(ours: str, name: str, *others: str) -> Source:
        def read(columns: Columns) -> Rows:
            if others:  # Nobody else on the hub need choose, and the other splits are clear.
                raise same_split(f"{repository} on the Hugging Face hub", ours, name, others[0])
            return _read(repository, name, every, columns)

        return Source(fingerprint=f"hub:{repository}", read=lambda: read(Columns()), read_columns=read)

    return {ours: source(ours, *theirs) for ours, theirs in called.items()}


def _split_names(repository: str) -> dict[str, list[str]]:
    """What the hub calls the splits, by our names; more than one name where several stand for one split."""
    import datasets

    kept = cache_folder() / "hub" / f"{repository.replace('/', '--')}.json"
    try:
        # Earlier versions kept one name as a text.
        stored = read_object(kept, "delete it").items()
        return {ours: theirs if isinstance(theirs, list) else [str(theirs)] for ours, theirs in stored}
    except DataError:
        pass
    _reachable(repository)
    try:
        theirs = datasets.get_dataset_split_names(repository)
    except Exception as error:
        raise _unreadable(repository, error) from error
    names: dict[str, list[str]] = {}
    for name in map(str, theirs):
        if (ours := split_of(name)) is not None:
            names.setdefault(ours, []).append(name)
    write_json(kept, names)
    return names


def _reachable(repository: str) -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return  # the user's own statement that the set lies in the Hugging Face cache; `datasets` then looks only there
    if (reason := hub_reachable(repository)) is not None:
        raise DataError(
            f"cannot get {repository} from the Hugging Face hub: {reason}; put its parquet files into "
            f"DIR/{repository.split('/')[-1]} and set UNFOOL_DATA_DIR=DIR or --data-dir DIR"
        )


def _unreadable(repository: str, error: Exception) -> DataError:
    line = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return DataError(
        f"cannot read {repository} from the Hugging Face hub: {line}; put its parquet files into "
        f"DIR/{repository.split('/')[-1]} and set UNFOOL_DATA_DIR=DIR or --data-dir DIR"
    )


def _read(repository: str, split: str, splits: Sequence[str], columns: Columns) -> Rows:
    _reachable(repository)
    load = lambda split: _loaded(repository, split)  # noqa: E731
    others = [theirs for theirs in splits if theirs != split]  # a list: each column of text goes through it
    return rows_of(load(split), repository, columns, every_split=lambda: map(load, others))


def _loaded(repository: str, split: str) -> Any:
    import datasets

    try:
        loaded = datasets.load_dataset(repository, split=split)
    except Exception as error:
        raise _unreadable(repository, error) from error
    if not isinstance(loaded, datasets.Dataset):
        raise DataError(f"{repository} is not a plain data set; give one with a single configuration")
    return loaded


def rows_of(
    dataset: Any,
    where: str,
    columns: Columns = Columns(),  # noqa: B008 - frozen
    every_split: Callable[[], Iterable[Any]] = lambda: (),
) -> Rows:
    """The rows of a ``datasets.Dataset`` with an image column.

    ``every_split`` gives the set's other splits, which are looked at for the classes of text labels.
    """
    import datasets

    features: Mapping[str, Any] = dataset.features
    chosen = choose_columns(features, features.arrow_schema, where, columns)  # type: ignore[attr-defined]
    image = chosen.image
    if type(features[image]).__name__ == "Image":
        dataset = dataset.cast_column(image, datasets.Image(decode=False))
    arrow = dataset.with_format("arrow")
    labels, classes = label_columns(
        {name: _column(dataset, name) for name in chosen.labels},
        features,
        lambda name: (_column(other, name) for other in every_split()),
    )
    images = _encoded(arrow.select_columns([image]))
    return Rows(images=images, count=len(dataset), columns=labels, classes=classes, others=chosen.others)


def _column(dataset: Any, name: str) -> pa.ChunkedArray:
    return _chunked(dataset.with_format("arrow").select_columns([name])[:].column(0))


def _chunked(column: Any) -> pa.ChunkedArray:
    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])


def _encoded(arrow: Any) -> Iterator[Encoded]:
    for batch in arrow.iter(batch_size=512):
        for value in batch.column(0).to_pylist():
            path = value["path"] if isinstance(value, dict) and value["bytes"] is None else None
            # a file that `datasets` itself put into its cache
            yield read_bytes(path, "fetch the set again") if path and is_file(path) else encoded_value(value)
