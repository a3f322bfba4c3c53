# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Which columns of an Arrow table hold images and which hold labels, and labels out of them.

A column of images is declared as such, or a struct with bytes, or bytes, or nested lists of whole numbers. Labels are
declared as classes, or have a usual name; others are read where a user names them. Several labels of an image, a list,
are one class: their set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from unfool.core.errors import DataError
from unfool.data.readers.label_text import text_of_labels
from unfool.data.readers.labels import MISSING, are_numbers, class_numbers
from unfool.data.sources import IMAGE_NAMES, LABEL_NAMES, Columns, Encoded


@dataclass(frozen=True, kw_only=True)
class ChosenColumns:
    """The column of images, the label columns (those that a user names first), and the others with their types."""

    image: str
    labels: tuple[str, ...]
    others: dict[str, str]


def choose_columns(features: Mapping[str, Any], schema: pa.Schema, where: str, columns: Columns) -> ChosenColumns:
    """Choose by what the user names, else by declaration and usual names.

    Raises DataError that lists the columns with their types for a name that is not there, for a table without images,
    and for several columns that may be the images.
    """
    types = {field.name: _type(features[field.name], field.type) for field in schema}
    if len(types) < len(schema):
        name = next(name for name in schema.names if schema.names.count(name) > 1)
        raise DataError(f"{where} has several columns {name!r}; rename or drop all but one")
    for name in (*((columns.image,) if columns.image else ()), *columns.labels):
        if name not in types:
            raise DataError(f"{where} has no column {name!r}; its columns are {listed(types)}")
    image = columns.image or _image_column(types, where)
    if image not in _candidates(types) and types[image] != "lists of pixels":
        raise DataError(f"column {image!r} of {where} holds {types[image]} and no images; columns: {listed(types)}")
    usual = (name for name in types if name not in columns.labels and _is_label(features[name], name))
    labels = (*columns.labels, *usual)
    if image in labels:
        raise DataError(f"column {image!r} of {where} is both the images and a label; name another label column")
    others = {name: kind for name, kind in types.items() if name != image and name not in labels}
    return ChosenColumns(image=image, labels=labels, others=others)


def listed(types: Mapping[str, str]) -> str:
    """Columns with their types as a message shows them."""
    shown = [f"{name} ({kind})" for name, kind in types.items()]
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")


def _type(feature: Any, kind: pa.DataType) -> str:
    name = type(feature).__name__
    declared = {"Image": "image", "ClassLabel": "classes"}.get(name)
    if declared is not None:
        return declared
    if pa.types.is_struct(kind) and "bytes" in {kind.field(index).name for index in range(kind.num_fields)}:
        return "struct with bytes"
    depth, leaf = 0, getattr(kind, "storage_type", kind)
    while pa.types.is_list(leaf) or pa.types.is_large_list(leaf) or pa.types.is_fixed_size_list(leaf):
        depth, leaf = depth + 1, leaf.value_type
    if depth in (2, 3) and pa.types.is_integer(leaf):
        return "lists of pixels"
    if depth in (2, 3) and pa.types.is_floating(leaf):
        return "lists of floats"
    return "bytes" if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else str(kind)[:60]


def _candidates(types: Mapping[str, str]) -> list[str]:
    pixels = (name for name, kind in types.items() if kind == "lists of pixels")
    usual = [name for name in pixels if name.lower() in IMAGE_NAMES]
    return [name for name, kind in types.items() if kind in ("image", "struct with bytes", "bytes") or name in usual]


def _image_column(types: Mapping[str, str], where: str) -> str:
    """The column of images: the only one that is declared, else the only one with a usual name, else the only one."""
    candidates = _candidates(types)
    declared = [name for name in candidates if types[name] == "image"]
    usual = [name for name in candidates if name.lower() in IMAGE_NAMES]
    if not candidates:
        hints = {
            "string": "paths are read from a CSV file with columns path and label",
            "lists of floats": "floats, which may be normalised, are read by Table.from_tensors",
        }
        texts = [kind for name, kind in types.items() if name.lower() in (*IMAGE_NAMES, "path", "pixel_values")]
        hint = next((f"; {hints[kind]}" for kind in texts if kind in hints), "")
        raise DataError(f"{where} has no image column; its columns are {listed(types)}{hint}")
    for names in ([name for name in declared if name in usual], usual, declared, candidates):
        if len(names) == 1:
            return names[0]
    raise DataError(
        f"{where} has several columns that may be the images, {', '.join(candidates)}; name one with --image NAME on "
        "the command line or image=NAME in Python"
    )


def _is_label(feature: Any, name: str) -> bool:
    """Whether a column holds class labels: declared as such, or numbers, booleans or text under a usual name."""
    if type(feature).__name__ == "ClassLabel":
        return True
    item = _item(feature)
    kind = "int64" if type(item).__name__ == "ClassLabel" else str(getattr(item, "dtype", ""))
    readable = kind.startswith(("int", "uint", "string", "large_string"))
    readable = readable or (item is feature and kind.startswith(("float", "bool")))
    return readable and (name.lower() in LABEL_NAMES or name.lower().endswith("_label"))


def _item(feature: Any) -> Any:
    """What a list holds, for a column of lists; else the column itself."""
    return getattr(feature, "feature", feature)


def encoded_value(value: Any) -> Encoded:
    """One value of an image column as the store takes it; a path beside bytes that are missing is not followed."""
    if isinstance(value, dict):
        return value["bytes"]
    if isinstance(value, (list, np.ndarray)):
        return np.asarray(value)
    return value


def label_columns(
    values: Mapping[str, pa.ChunkedArray],
    features: Mapping[str, Any],
    every_text: Callable[[str], Iterable[pa.ChunkedArray]] = lambda name: (),
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Labels (N,) int64 and class names by column; a column without any label (all -1 or null) is left out.

    ``every_text`` gives a text column in all splits of the set, so that its classes are numbered alike in each.
    DataError for a column that labels only some rows, or has labels without a class.
    """
    columns: dict[str, np.ndarray] = {}
    classes: dict[str, list[str]] = {}
    for name, array in values.items():
        declared = getattr(_item(features[name]), "names", None)
        plain = _sets(array, name, declared) if _is_list(array) else _plain(array, name)
        known = list(declared) if declared is not None and not _is_list(array) else None
        if known is None and _holds_text(plain):
            others = (_text(part, name, declared) for part in every_text(name))
            texts = {text for part in (plain, *others) for text in part.unique().to_pylist()}
            known = None if are_numbers(texts) else sorted(text for text in texts if text)
        labels, names = class_numbers(plain.to_numpy(), name, known)
        if labels.max(initial=MISSING) < 0:
            continue
        wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
        if len(wrong):
            first = "no label" if labels[wrong[0]] == MISSING else f"label {labels[wrong[0]]}"
            raise DataError(
                f"column {name!r} has {len(wrong)} labels outside its {len(names)} classes, first in row {wrong[0]} "
                f"({first}); repair those rows or drop the column"
            )
        columns[name], classes[name] = labels, names
    return columns, classes


def _plain(array: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """The column as numbers or text without a dictionary; whole numbers and booleans have -1 where there is none."""
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    kind = array.type
    if pa.types.is_uint64(kind):
        return array
    if pa.types.is_integer(kind):
        return array.cast(pa.int64()).fill_null(MISSING)
    if pa.types.is_boolean(kind):
        return array.cast(pa.int8()).fill_null(MISSING) if array.null_count else array
    if pa.types.is_floating(kind) or _holds_text(array):
        return array
    raise DataError(f"column {name!r} is {str(kind)[:60]}; labels are class numbers, booleans or text")


def _holds_text(array: pa.ChunkedArray) -> bool:
    return pa.types.is_string(array.type) or pa.types.is_large_string(array.type)


def _text(array: pa.ChunkedArray, name: str, declared: Sequence[str] | None) -> pa.ChunkedArray:
    if _is_list(array):
        return _sets(array, name, declared)
    return array.cast(array.type.value_type) if pa.types.is_dictionary(array.type) else array


def _is_list(array: pa.ChunkedArray) -> bool:
    kind = array.type
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _sets(array: pa.ChunkedArray, name: str, declared: Sequence[str] | None) -> pa.ChunkedArray:
    """Lists of labels as text, one for each set."""
    texts = [None if labels is None else text_of_labels(labels, name, declared) for labels in array.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.string())])
