"""The first chart of a page: the accuracy of every system, clean, on borrowed examples and attacked itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from unfool.evaluation.results.ladder import LadderSection
from unfool.evaluation.results.rows import CURVE, Row
from unfool.evaluation.results.study_result import StudyResult
from unfool.report.accuracy_table import Cell, Table, TableRow, attack_title
from unfool.report.plots.figures import Interval, IntervalRow, Intervals
from unfool.report.plots.scale import in_percent, nice_scale
from unfool.report.tables import interval, percent, seeds

_AT_ONCE = 10
"""Systems shown at once; the others on demand."""
_FULL = nice_scale([0.0, 1.0], in_percent)
WORDS = {
    "clean": "clean",
    "transfer": "borrowed examples",
    "white-box": "attacked itself",
    "adaptive": "attacker knows the defense",
    "score-based": "attacked by its scores",
    "unverified": "attacked, unverified",
}
"""What each protocol is called beside the chart."""


def overview(result: StudyResult, tables: Sequence[Table]) -> Intervals | None:
    """The rows of a ladder's rungs, of an evaluation's attacks, or of a study's systems; None where there are none."""
    if not result.study and result.ladders:
        return _chart(
            [_rung(section, number) for section in result.ladders[:1] for number in range(len(section.rungs))]
        )
    if not result.study:
        return _chart([_attack(row) for row in result.rows if CURVE not in row.settings])
    groups = [
        (table, list(rows))
        for table in tables
        for _, rows in groupby(table.rows, key=lambda row: (*row.group, row.threat))
    ]
    several = any(cell.seeds > 1 for table in tables for row in table.rows for cell in row.cells.values())
    bars = "95 % intervals, or lowest to highest seed where several were trained" if several else "95 % intervals"
    return _chart([_system(table, rows, len(tables) > 1) for table, rows in groups], bars)


def worst_cell(row: TableRow) -> Cell | None:
    """The lowest accuracy of a line of the table under attack; None where nothing attacked it."""
    attacked = [cell for attack, cell in row.cells.items() if attack != "none"]
    return min(attacked, key=lambda cell: cell.accuracy, default=None)


def _chart(rows: Sequence[IntervalRow], bars: str = "95 % intervals") -> Intervals | None:
    if not rows:
        return None
    looks = tuple(look for look in WORDS if any(each.look == look for row in rows for each in row.intervals))
    text = f"Dots: accuracy under the attack that leaves the least; bars: {bars}."
    return Intervals(
        x="accuracy",
        ticks=_FULL.ticks,
        rows=tuple(rows[:_AT_ONCE]),
        more=tuple(rows[_AT_ONCE:]),
        looks=looks,
        caption=text,
    )


def _system(table: Table, rows: Sequence[TableRow], several: bool) -> IntervalRow:
    first = rows[0]
    clean = next((row.cells["none"] for row in rows if "none" in row.cells), None)
    every = [("clean", clean), *((row.protocol, worst_cell(row)) for row in rows if row.protocol != "clean")]
    cells = sorted(((look, cell) for look, cell in every if cell), key=lambda pair: list(WORDS).index(pair[0]))
    intervals = [_interval(cell.accuracy, cell.low, cell.high, look, _words(cell)) for look, cell in cells]
    detail = [first.variant, table.data if several else "", first.threat]
    return IntervalRow(
        name=first.model,
        detail=", ".join(filter(None, detail)),
        intervals=tuple(intervals),
        words=" · ".join(f"{100 * cell.accuracy:.1f}" for _, cell in cells),
    )


def _attack(row: Row) -> IntervalRow:
    settings = ", ".join(f"{key} {value}" for key, value in row.settings.items())
    name = "clean" if row.attack == "none" else f"{attack_title(row.attack)} at {row.threat}"
    return _single(name, settings, row.protocol, row.accuracy, row.low, row.high)


def _rung(section: LadderSection, number: int) -> IntervalRow:
    rung = section.rungs[number]
    letter = "" if rung.key == "worst" else f"({rung.key}) "
    share = rung.common
    return _single(f"{letter}{rung.title}", "", rung.protocol, share.accuracy, share.low, share.high)


def _single(name: str, detail: str, look: str, accuracy: float, low: float, high: float) -> IntervalRow:
    words = f"{100 * accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    spread = f": {100 * accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    return IntervalRow(name=name, detail=detail, intervals=(_interval(accuracy, low, high, look, spread),), words=words)


def _words(cell: Cell) -> str:
    """What stands behind a protocol's name where a cell is pointed at."""
    under = f" ({attack_title(cell.attack)})" if cell.attack != "none" else ""
    return " ".join(filter(None, [f"{under}: {percent(cell.accuracy)} %", interval(cell), seeds(cell)]))


def _interval(accuracy: float, low: float, high: float, look: str, words: str) -> Interval:
    at, low, high = (_FULL.place(share) for share in (accuracy, low, high))
    return Interval(at=at, low=low, high=high, look=look, words=f"{WORDS[look]}{words}")
