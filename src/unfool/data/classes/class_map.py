"""Which output of a network belongs to which class of a data set, by the classes' names.

A network with more outputs than a data set has classes is evaluated on that set by renumbering the labels: the network
still chooses among all of its outputs.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch

from unfool.core.errors import DataError, UnfoolWarning
from unfool.data.classes.names_file import read_class_names
from unfool.data.table import Table

_WORDNET = re.compile(r"n\d{8}\b")


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 classes of ImageNet (ILSVRC 2012) in the order of networks' outputs: WordNet id, then its names."""
    text = files("unfool.data.classes").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def map_classes(table: Table, outputs: Sequence[str], column: str | None = None) -> Table:
    """Renumber the labels of a table by the names of a network's outputs.

    A class belongs to the output of the same WordNet id (n01440764), or else of the same name; names that are lists
    ("chain saw, chainsaw") agree if one of their parts does, and case, underscores and hyphens do not count.

    Args:
        table: Images with labels.
        outputs: Name of each output, in order.
        column: The label column; None for the primary one.

    Returns:
        The table with labels that are numbers of outputs, and ``outputs`` as their class names.

    Raises:
        DataError: A class that belongs to no output or to several, with the names that were looked for.

    Example:
        >>> import torch
        >>> from unfool import Table
        >>> from unfool.data.classes.class_map import imagenet_classes, map_classes
        >>> table = Table.from_tensors(torch.zeros(3, 3, 8, 8), [0, 1, 1], classes=["chain saw", "tench"])
        >>> map_classes(table, imagenet_classes()).labels().tolist()
        [491, 0, 0]
    """
    name = column or table.label_column or ""
    labels, classes = table.labels(column), table.classes[name]
    outputs_of: defaultdict[str, set[int]] = defaultdict(set)
    for number, output in enumerate(outputs):
        for word in _words(output):
            outputs_of[word].add(number)
    numbers = [_output(known, outputs_of, outputs, table.name) for known in classes]
    return table.relabelled(name, torch.tensor(numbers)[labels], outputs)


def names_of_outputs(table: Table, count: int, column: str | None = None) -> tuple[str, ...] | None:
    """ImageNet's classes if a network has 1,000 outputs and all classes of a table are among them; else None."""
    name = column or table.label_column
    if name is None or count != len(imagenet_classes()) or len(table.classes[name]) >= count:
        return None
    try:
        map_classes(table, imagenet_classes(), column)
    except DataError:
        return None
    return imagenet_classes()


def by_outputs(
    table: Table, outputs: int, classes: str | Path | Sequence[str] | None = None, column: str | None = None
) -> Table:
    """The table with labels that are numbers of a classifier's outputs, where it has more of them than the set classes.

    ``classes`` are the outputs' names in order, or a file with them; without, ImageNet's are tried for 1,000
    ``outputs`` (0: not known), and an UnfoolWarning says so. Raises DataError for another number of names, and as
    `map_classes` does.
    """
    if classes is not None:
        file = isinstance(classes, (str, Path))
        names: Sequence[str] | None = read_class_names(classes) if file else list(classes)
        if outputs and len(names) != outputs:
            where = str(classes) if file else "classes"
            raise DataError(
                f"{where} names {len(names):,} outputs and the classifier has {outputs:,}; name each of them"
            )
    else:
        names = names_of_outputs(table, outputs, column)
        if names is not None:
            words = "its classes are taken for those of ImageNet, by their names"
            warnings.warn(
                f"{table.name}: {words}; --classes FILE, or classes= in Python, names others",
                UnfoolWarning,
                stacklevel=2,
            )
    if names is None:
        tell_outputs(table, outputs, column)
        return table
    return map_classes(table, names, column)


def tell_outputs(table: Table, outputs: int, column: str | None = None) -> None:
    """Warn of a network with more outputs than a table has classes with names: a prediction may be none of them."""
    name = column or table.label_column
    classes = table.classes.get(name or "", [])
    if not classes or outputs <= len(classes) or classes == list(map(str, range(len(classes)))):
        return
    words = f"the model has {outputs:,} outputs and {table.name} {len(classes):,} classes, of which label 0 is output 0"
    remedy = "name the outputs with --classes FILE, or classes= in Python"
    warnings.warn(f"{words}; if that is wrong, {remedy}", UnfoolWarning, stacklevel=4)


def _output(known: str, outputs_of: Mapping[str, set[int]], outputs: Sequence[str], where: str) -> int:
    """The one output of a class: by its WordNet id, its whole name, or the part of its name that decides."""
    words = _words(known)
    for word in words[:2]:
        if len(outputs_of.get(word, ())) == 1:
            return next(iter(outputs_of[word]))
    candidates = set[int]().union(*(outputs_of.get(word, set()) for word in words))
    if len(candidates) == 1:
        return candidates.pop()
    if candidates:
        several = ", ".join(outputs[number] for number in sorted(candidates)[:3])
        raise DataError(f"class {known!r} of {where} may be several outputs ({several}); name it as one of them is")
    raise DataError(
        f"class {known!r} of {where} is none of the {len(outputs):,} outputs ({', '.join(outputs[:3])}, …); give a "
        "file that names each output in order, with the data set's names"
    )


def _words(name: str) -> list[str]:
    """What a class may be called: its WordNet id, its whole name, its parts; lower case, with spaces alone."""
    plain = " ".join(re.sub("[_-]", " ", name).lower().split())
    match = _WORDNET.match(plain)
    rest = plain[match.end() :].strip(" ,:") if match else plain
    parts = [part.strip() for part in rest.split(",")]
    return [*([match[0]] if match else []), *dict.fromkeys(part for part in (rest, *parts) if part)]
