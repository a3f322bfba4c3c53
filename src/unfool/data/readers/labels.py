# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Labels of any type as class numbers from 0 and class names: integers, whole floats, booleans and text.

Legend: N rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from unfool.core.errors import DataError

MISSING = -1
"""The class number of a row without a label."""

_NUMBER = re.compile(r"[+-]?(0|[1-9]\d{0,17})(\.0*)?|nan", re.IGNORECASE)

MOST_CLASSES = 100_000
"""A column with more classes than this holds numbers of something else, such as ids or prices."""


def class_numbers(values: Any, column: str, names: Sequence[str] | None = None) -> tuple[np.ndarray, list[str]]:
    """Class numbers (N,) int64, `MISSING` where there is no label, and the class names.

    ``values`` are a tensor, an array or a sequence of (N,) integers of any width, floats that are whole numbers (NaN:
    no label), booleans, or text (None: no label). ``names`` are the class names, if they are known; without them those
    of text are its distinct values in alphabetical order, and those of numbers, also as text, the numbers.

    Raises DataError for values of another kind or shape, for text that is none of ``names``, and for more than
    `MOST_CLASSES` classes. Numbers outside of ``names`` are left to the caller.
    """
    array = _array(values, column)
    if array.dtype.kind in "US":
        if names is not None or not are_numbers(array.ravel().tolist()):
            return _of_text(array, column, names)
        texts = [str(text) for text in array.ravel().tolist()]
        array = np.array([float(text or "nan") for text in texts]).reshape(array.shape)
    numbers, known = _whole(array, column), ["False", "True"] if array.dtype.kind == "b" else None
    highest = int(numbers.max(initial=MISSING))
    if highest >= MOST_CLASSES:
        raise DataError(
            f"column {column!r} has label {highest}, more than the {MOST_CLASSES:,} classes that are allowed; give a "
            "column of class numbers"
        )
    return numbers, [str(name) for name in names or known or range(highest + 1)]


def are_numbers(texts: Iterable[object]) -> bool:
    """Whether texts spell whole numbers, without zeros in front; an empty one and NaN are no label."""
    present = [str(text) for text in set(texts) if text]
    return any(text[-1] != "n" and text[-1] != "N" for text in present) and all(map(_NUMBER.fullmatch, present))


def _array(values: Any, column: str) -> np.ndarray:
    """The values as an array of numbers, booleans or text; None among text becomes the empty string."""
    try:
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    except (TypeError, ValueError) as error:
        raise DataError(f"labels of column {column!r} are a {type(values).__name__}; give one label a row") from error
    if array.dtype.kind == "O":
        items = array.ravel().tolist()
        present = [item for item in items if item is not None]
        if present and all(isinstance(item, str) for item in present):
            array = np.array(["" if item is None else item for item in items], dtype=str).reshape(array.shape)
        elif all(isinstance(item, (bool, int, float, np.number, np.bool_)) for item in present):
            array = np.array([np.nan if item is None else float(item) for item in items]).reshape(array.shape)
    if array.ndim == 2 and array.size == len(array):
        array = array.ravel()
    if array.dtype.kind not in "biufUS":
        kinds = sorted({type(item).__name__ for item in array.ravel().tolist()}) if array.dtype.kind == "O" else []
        raise DataError(
            f"labels of column {column!r} are {', '.join(kinds) or array.dtype}; give class numbers, text or booleans"
        )
    return array


def _whole(array: np.ndarray, column: str) -> np.ndarray:
    """Numbers as int64; DataError for fractions and for numbers beyond int64."""
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
        present = ~np.isnan(array)
        wrong = array[present & ((array != np.round(array)) | (np.abs(array) >= 2.0**53))]
        if len(wrong):
            raise DataError(f"column {column!r} has label {wrong[0]:g}; give whole class numbers")
        return np.where(present, array, MISSING).astype(np.int64)
    if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise DataError(f"column {column!r} has label {int(array.max())}; number the classes from 0")
    return array.astype(np.int64)


def _of_text(array: np.ndarray, column: str, names: Sequence[str] | None) -> tuple[np.ndarray, list[str]]:
    texts = array.astype(str)
    classes = [str(name) for name in names] if names is not None else [str(name) for name in np.unique(texts) if name]
    if len(classes) > MOST_CLASSES:
        raise DataError(f"column {column!r} has {len(classes):,} different texts; give a column of classes")
    numbers = {"": MISSING, **{name: number for number, name in enumerate(classes)}}
    if strange := sorted(set(texts.tolist()) - set(numbers)):
        raise DataError(f"column {column!r} has label {strange[0][:60]!r}, which is none of its {len(classes)} classes")
    return np.array([numbers[text] for text in texts.tolist()], dtype=np.int64), classes
