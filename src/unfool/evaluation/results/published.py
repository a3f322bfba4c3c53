"""A source's figures beside the rows that they belong to, and the words that tell rows apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unfool.core.borders.yaml_text import read_yaml
from unfool.core.errors import DataError
from unfool.evaluation.results.rows import Row

_FIELDS = ("model", "seed", "data", "split", "attack", "threat", "protocol", "defense", "n", "panel", "rung")
"""Fields of a row that rows are selected by, beside the ``norm`` of its threat; other words are its settings."""


def word_of(row: Row, name: str) -> Any:
    """A field of a row, its norm, or else one of its settings (None if it has no such setting)."""
    if name == "norm":
        return (row.threat or "").partition(":")[0]
    return getattr(row, name) if name in _FIELDS else row.settings.get(name)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A source's figures in %: the words of a row that they belong to (``names``, fields or settings of it), and the
    figures by the values of these words.

    ``losses`` are its mean losses by the same words. ``applies`` says which rows are of the source's own protocol:
    nothing stands beside others.
    """

    names: tuple[str, ...]
    figures: Mapping[tuple[Any, ...], float]
    losses: Mapping[tuple[Any, ...], float] = field(default_factory=dict[tuple[Any, ...], float])
    applies: Callable[[Row], bool] = lambda row: True

    @classmethod
    def beside(cls, module: str, applies: Callable[[Row], bool] = lambda row: True) -> Published:
        """Read ``published.yaml`` beside a module's file: ``names``, and a list for each of the ``figures`` with the
        words of its row, the figure, and the loss if the source gives one. Raises DataError for another form."""
        file = Path(module).with_name("published.yaml")
        try:
            held: Any = read_yaml(file, "no published figures are in it", malformed=DataError)
            names, rows = tuple(held["names"]), [tuple(row) for row in held["figures"]]
        except (KeyError, TypeError) as error:
            raise DataError(f"{file} has no published figures: {error}; give it names and figures") from error
        count = len(names)
        if wrong := [row for row in rows if len(row) not in (count + 1, count + 2)]:
            raise DataError(f"{file}: {list(wrong[0])} is no row of {count} words, a figure and perhaps a loss")
        losses = {row[:count]: row[-1] for row in rows if len(row) == count + 2}
        return cls(names=names, figures={row[:count]: row[count] for row in rows}, losses=losses, applies=applies)

    def of(self, row: Row) -> float | None:
        """The source's figure for a row, a share."""
        value = self._lookup(self.figures, row)
        return None if value is None else round(value / 100, 6)

    def loss_of(self, row: Row) -> float | None:
        """The source's mean loss for a row."""
        return self._lookup(self.losses, row)

    def _lookup(self, figures: Mapping[tuple[Any, ...], float], row: Row) -> float | None:
        words = tuple(word_of(row, name) for name in self.names)
        return figures.get(words) if self.applies(row) else None

    def gain(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> float:
        """One figure less another, a share."""
        return (self.figures[a] - self.figures[b]) / 100


def table(columns: Sequence[str], rows: Mapping[Any, Sequence[float]]) -> dict[tuple[Any, ...], float]:
    """Figures of a table: rows by their name (one word or a tuple of words), then columns."""
    named: dict[tuple[Any, ...], Sequence[float]] = {
        name if isinstance(name, tuple) else (name,): values for name, values in rows.items()
    }
    return {
        (*name, column): value for name, values in named.items() for column, value in zip(columns, values, strict=True)
    }
