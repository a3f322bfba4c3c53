"""Training curves as a run folder's ``metrics.csv`` holds them."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unfool.core.errors import DataError

_POINTS = 100


@dataclass(frozen=True)
class Curve:
    """One run: the name it is shown under, and its ``metrics.csv`` or the columns of one (lists of equal length).

    Known columns are step, epoch, images_seen, learning_rate, loss, ``loss/<task>`` and ``accuracy/<split>``; any of
    them may be missing, and any entry may be empty.
    """

    name: str
    source: str | Path | Mapping[str, Sequence[float]]

    def columns(self) -> dict[str, list[float]]:
        """The columns as numbers, NaN where an entry is empty; DataError if the file cannot be read."""
        if isinstance(self.source, Mapping):
            return {name: [float(value) for value in values] for name, values in self.source.items()}
        try:
            with open(self.source, encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file, restval="")
                lines = list(reader)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            message = f"cannot read the training curve {self.source}: {error}; give a run's metrics.csv"
            raise DataError(message) from error
        return {name: [_number(line[name]) for line in lines] for name in reader.fieldnames or [] if name}

    def last(self, column: str, lines: int) -> float | None:
        """The mean of the last finite entries of a column, so many of them; None without any."""
        values = [value for value in self.columns().get(column, []) if math.isfinite(value)][-lines:]
        return sum(values) / len(values) if values else None


def shared_axis(runs: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """The finest axis that every run has: epoch, else images_seen, else step, else the number of the line."""
    axes = ("epoch", "images_seen", "step")
    return next((name for name in axes if all(_rises(columns.get(name, [])) for columns in runs)), "line")


def series(columns: Mapping[str, Sequence[float]], name: str, axis: str) -> tuple[list[float], list[float]]:
    """The finite points of one column along an axis, averaged in at most 100 bins."""
    values = columns.get(name, [])
    places = columns.get(axis, range(1, len(values) + 1))
    points = [(x, y) for x, y in zip(places, values, strict=False) if math.isfinite(x) and math.isfinite(y)]
    size = max(1, math.ceil(len(points) / _POINTS))
    bins = [points[start : start + size] for start in range(0, len(points), size)]
    return (
        [math.fsum(x for x, _ in members) / len(members) for members in bins],
        [math.fsum(y for _, y in members) / len(members) for members in bins],
    )


def _rises(values: Sequence[float]) -> bool:
    """Whether an axis tells its lines apart: an epoch counted in whole numbers is too coarse for its steps."""
    finite = [value for value in values if math.isfinite(value)]
    return len(set(finite)) > max(1, len(finite) // 2)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
