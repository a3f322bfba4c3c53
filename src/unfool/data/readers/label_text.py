"""The set of an image's labels as text: ``cat;dog``, or ``none`` for no label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from unfool.core.errors import DataError

BETWEEN = ";"
"""What stands between the labels in the name of a set."""
NOTHING = "none"
"""The name of the set without labels."""


def text_of_labels(labels: Iterable[Any], column: str, names: Sequence[str] | None = None) -> str:
    """The name of a set of labels, class numbers or texts, whatever their order; DataError for labels of another kind.

    ``names`` are those of class numbers, where they are known.
    """
    words: list[str] = []
    for label in labels:
        if isinstance(label, int) and names is not None and 0 <= label < len(names):
            words.append(names[label])
        elif isinstance(label, (str, int)) and not isinstance(label, bool):
            words.append(str(label))
        else:
            raise DataError(f"column {column!r} has lists of {type(label).__name__}; give class numbers or texts")
    if strange := [word for word in words if BETWEEN in word or not word.strip()]:
        raise DataError(f"column {column!r} has the label {strange[0][:60]!r}; give names without {BETWEEN!r}")
    return BETWEEN.join(sorted(set(words))) or NOTHING
