"""Image sets: a catalog of names, readers for where they lie, a decode-once store, tables and batched augmentation.

``open_table(name, split)`` opens a set by name, `Table.from_tensors` and `Table.from_dataset` make a table of what is
in memory, and `as_table` takes any of these.
"""
