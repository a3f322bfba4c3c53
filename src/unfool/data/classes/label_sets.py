"""Several labels of one image: a class for each set of labels, whose name lists them, as in ``cat;dog``.

Such classes come from a column of lists, or from text that is written so; ``none`` is the set without labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from unfool.core.errors import DataError
from unfool.core.spec import nearest
from unfool.data.readers.label_text import BETWEEN, NOTHING, text_of_labels
from unfool.data.table import Table


def label_sets(classes: Sequence[str], outputs: Sequence[str] | None, where: str) -> list[list[int]]:
    """The outputs that each class of a multi-label network stands for.

    Args:
        classes: Names of sets of labels, such as "cat;dog", "3;7" or "none".
        outputs: Names of the network's outputs in order; None: labels are their numbers.
        where: What messages call the data.

    Raises:
        DataError: A name that is none of the outputs, or names without ``outputs`` to number them by.
    """
    numbers = {name: number for number, name in enumerate(outputs or ())}
    sets: list[list[int]] = []
    for name in classes:
        words = [] if name == NOTHING else _words(name)
        for word in words:
            if outputs is not None and word not in numbers:
                raise DataError(
                    f"{where} has the label {word[:60]!r}, and no output is named so; {_near(word, numbers)}"
                )
            if outputs is None and not word.isdecimal():
                raise DataError(
                    f"{where} has the label {word[:60]!r}; give --classes FILE with the names of the outputs in order, "
                    "or labels that are their numbers"
                )
        sets.append(sorted({numbers[word] if outputs is not None else int(word) for word in words}))
    return sets


def merged_sets(table: Table, column: str | None) -> Table:
    """The table with one class for each set of labels, however it was written: ``b;a`` and ``a; b`` are one."""
    name = column or table.label_column or ""
    labels, written = table.labels(column), table.classes[name]
    texts = [NOTHING if text == NOTHING else text_of_labels(_words(text), name) for text in written]
    classes = sorted(set(texts))
    return table.relabelled(name, torch.tensor([classes.index(text) for text in texts])[labels], classes)


def _words(text: str) -> list[str]:
    """The labels in the name of a set."""
    return [word.strip() for word in text.split(BETWEEN) if word.strip()]


def _near(word: str, names: Iterable[str]) -> str:
    near = nearest(word, list(names))
    return f"did you mean {near!r}?" if near is not None else "name each label as --classes does"
