"""What a study consists of: pieces that are made once and found again, some of which are measurements with rows."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from unfool.data.images import Images
from unfool.evaluation import Records
from unfool.evaluation.results.rows import Row
from unfool.studies.framework.workspace import Piece, Workspace

__all__ = ["Images", "Measured", "Measurement", "path_of", "slug", "with_needs"]


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
