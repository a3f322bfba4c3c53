"""Images that are described before they are opened: a split of a data set, and what is drawn from it."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal, Protocol

from unfool.core.streams import Streams
from unfool.data.table import Table


class Tables(Protocol):
    """Opens data sets: a ``split`` by name, ``size`` in pixels a side, 0 for the set's own."""

    def table(self, data: str, split: str, size: int = 0) -> Table: ...


@dataclass(frozen=True)
class Images:
    """Images of a data set, opened when they are needed: a ``split`` of it (``size`` in pixels a side, 0: its own),
    then one draw after the other."""

    data: str
    split: str = "test"
    _: KW_ONLY
    size: int = 0
    draws: tuple[tuple[Literal["sample", "cut", "rest"], int, str], ...] = ()

    def sample(self, count: int, purpose: str = "attacked images") -> Images:
        """So many of them, or all if there are fewer; equal for equal ``purpose``, and fewer lie inside more."""
        return replace(self, draws=(*self.draws, ("sample", count, purpose)))

    def cut(self, count: int, purpose: str) -> tuple[Images, Images]:
        """The rest, and so many images cut from them with every class in proportion."""
        rest, part = ((*self.draws, (kind, count, purpose)) for kind in ("rest", "cut"))
        return replace(self, draws=rest), replace(self, draws=part)

    def table(self, tables: Tables) -> Table:
        """The images themselves."""
        table = tables.table(self.data, self.split, self.size)
        for kind, count, purpose in self.draws:
            count, streams = min(count, len(table)), Streams(0).named(purpose)
            table = table.sample(count, streams) if kind == "sample" else table.cut(count, streams)[kind == "cut"]
        return table
