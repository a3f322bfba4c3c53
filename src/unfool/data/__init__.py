"""Image sets: a catalog of names, readers for where they lie, a decode-once store, tables and batched augmentation.

``open_table(name, split)`` opens a set by name, `Table.from_tensors` and `Table.from_dataset` make a table of what is
in memory, and `as_table` takes any of these.
"""

from unfool.data.as_table import TableLike, as_table
from unfool.data.catalog import open_table
from unfool.data.table import Table

__all__ = ["Table", "TableLike", "as_table", "open_table"]
