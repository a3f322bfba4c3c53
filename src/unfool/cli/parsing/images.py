"""The images that a command's options and a run's configuration name, opened as a table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from unfool.core.errors import DataError, SpecError
from unfool.data.catalog import open_described
from unfool.data.classes.label_sets import label_sets, merged_sets
from unfool.data.classes.names_file import read_class_names
from unfool.data.table import Table
from unfool.models.foreign import ForeignClassifier
from unfool.training import RunConfig
from unfool.training.config import label_columns


class ReadingOptions(Protocol):
    """Options of a command that say which images it reads, and how."""

    @property
    def data(self) -> str | None: ...
    @property
    def data_dir(self) -> Path | None: ...
    @property
    def size(self) -> int | None: ...
    @property
    def crop(self) -> float | None: ...
    @property
    def image(self) -> str | None: ...
    @property
    def column(self) -> str | None: ...


def named_set(options: ReadingOptions, config: RunConfig | None) -> str | None:
    """The name of the set: what the options say, else the run's."""
    return options.data or (config.data if config is not None else None)


def open_images(
    options: ReadingOptions,
    split: str,
    config: RunConfig | None,
    *,
    columns: Iterable[str | None] = (),
    system: str,
    own_size: int | None = None,
) -> Table:
    """A split of the set that the options name (default: the run's), framed as they say (default: as the run's).

    ``columns`` are label columns that the command needs, whatever their names; ``system`` is what messages call the
    classifier, ``own_size`` the size of one without a run. Raises SpecError where neither the options nor the run name
    a set, and as `open_table` does.
    """
    name = named_set(options, config)
    if name is None:
        raise SpecError(f"{system} does not say what it was trained on; give --data")
    own = config is not None and name == config.data
    return open_described(
        name,
        split,
        data_dir=options.data_dir,
        size=options.size or (config.size if config is not None else own_size) or None,
        crop=options.crop if options.crop is not None else config.crop if config is not None else 1.0,
        image=options.image or (config.image if config is not None and own else None),
        columns=[*columns, *(label_columns(config) if config is not None and own else ())],
    )


def by_label_sets(table: Table, classifier: ForeignClassifier, classes: Path | None, column: str | None) -> Table:
    """The table with a class for each set of labels, of which a multi-label classifier is told here.

    ``classes`` is a file with the names of its outputs in order; without one labels are numbers of outputs. The
    classifier of a run knows its sets.
    """
    table = merged_sets(table, column)
    names = table.classes[column or table.label_column or ""]
    if classifier.label_sets is not None and classes is None:
        if len(classifier.label_sets) != len(names):
            raise DataError(
                f"{table.name} has {len(names)} sets of labels, and the classifier was trained on "
                f"{len(classifier.label_sets)}; give --classes FILE with the names of its outputs"
            )
        return table
    outputs = read_class_names(classes) if classes is not None else None
    classifier.set_label_sets(label_sets(names, outputs, table.name))
    return table
