"""The cost table of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from unfool.report.accuracy_table import Cell, Table, TableRow


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The cost table: ``rows`` with their cells by attack, and the ``titles`` of attacks whose cost any row knows."""

    rows: list[tuple[Table, TableRow, dict[str, Cell]]]
    titles: dict[str, str]


def cost_table(tables: Sequence[Table]) -> Costs | None:
    """What each row cost; None where nothing was counted."""
    titles: dict[str, str] = {}
    rows: list[tuple[Table, TableRow, dict[str, Cell]]] = []
    for table in tables:
        for number, row in ((n, row) for group in systems(table) for n, row in enumerate(group)):
            # the clean cell belongs to the model: shown once, not under each protocol
            own = {a: c for a, c in row.cells.items() if (a != "none" or number == 0) and c.cpu_seconds is not None}
            if own:
                rows.append((table, row, own))
        titles |= {c.attack: c.title for c in table.columns if any(c.attack in own for _, _, own in rows)}
    return Costs(rows=rows, titles=titles) if rows else None


def systems(table: Table) -> list[list[TableRow]]:
    """The rows of a table by system, one after the other."""
    return [list(rows) for _, rows in groupby(table.rows, key=lambda row: row.group)]
