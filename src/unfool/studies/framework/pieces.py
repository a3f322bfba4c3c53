"""What a study consists of: pieces that are made once and found again, some of which are measurements with rows."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.evaluation import Records
from unfool.evaluation.results.rows import Row
from unfool.studies.framework.workspace import Piece, Workspace


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One row of a study, and the records that it was computed from (None for figures that are no accuracy)."""

    row: Row
    records: Records | None = None


class Measurement(Piece, Protocol):
    """A piece that gives rows of the study's table. A study adds a kind of its own by writing these methods."""

    @abstractmethod
    def measured(self, result: Any, work: Workspace) -> Iterable[Measured]:
        """The rows of what `make` returned, each with its records."""
        ...


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images of a data set, opened when they are needed: a ``split`` of it (``size`` in pixels a side, 0: its own),
    then one draw after the other."""

    data: str
    split: str = "test"
    size: int = 0
    draws: tuple[tuple[Literal["sample", "cut", "rest"], int, str], ...] = ()

    def sample(self, count: int, purpose: str = "attacked images") -> Images:
        """So many of them, or all if there are fewer; equal for equal ``purpose``, and fewer lie inside more."""
        return replace(self, draws=(*self.draws, ("sample", count, purpose)))

    def cut(self, count: int, purpose: str) -> tuple[Images, Images]:
        """The rest, and so many images cut from them with every class in proportion."""
        rest, part = ((*self.draws, (kind, count, purpose)) for kind in ("rest", "cut"))
        return replace(self, draws=rest), replace(self, draws=part)

    def table(self, work: Workspace) -> Table:
        """The images themselves."""
        table = work.table(self.data, self.split, self.size)
        for kind, count, purpose in self.draws:
            count, streams = min(count, len(table)), Streams(0).named(purpose)
            table = table.sample(count, streams) if kind == "sample" else table.cut(count, streams)[kind == "cut"]
        return table


def slug(word: object) -> str:
    """A word as a part of a path."""
    return re.sub(r"[^a-z0-9.]+", "-", str(word).lower()).strip("-.") or "none"


def path_of(*words: object) -> str:
    """Words as a path; empty ones are left out."""
    return "/".join(slug(word) for word in words if word not in ("", None))


def with_needs(pieces: Iterable[Piece]) -> dict[str, Piece]:
    """The pieces and all that they need, by path, each after its needs. Raises ValueError for one that needs itself."""
    ordered: dict[str, Piece] = {}

    def add(piece: Piece, above: tuple[str, ...]) -> None:
        if piece.path in above:
            raise ValueError(f"piece {piece.path} needs itself: {' → '.join((*above, piece.path))}")
        if piece.path not in ordered:
            for need in piece.needs():
                add(need, (*above, piece.path))
            ordered[piece.path] = piece
        elif ordered[piece.path] != piece:
            raise ValueError(f"two different pieces are called {piece.path}; give one of them another word in its key")

    for piece in pieces:
        add(piece, ())
    return ordered
