"""Image sets: a catalog of names, readers for where they lie, a decode-once store, tables and batched augmentation.

``open_table(name, split)`` is the way in; what it gives back is an :class:`~unfool.data.table.Table`.
"""
