"""What a study consists of: pieces that are made once and found again, some of which are measurements with rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from unfool.core.parallel.graph import path_of, slug, with_needs
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
