"""The tables of a study in words, and as rich tables for a terminal of 100 columns."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from unfool.evaluation.results.study_result import StudyResult
from unfool.report.accuracy_table import Cell, Column, Table, TableRow, attack_title
from unfool.report.pivot import study_tables

__all__ = ["Table", "attack_title", "caption", "interval", "loss", "percent", "rich_tables", "seeds", "study_tables"]

WIDTH = 100
_COLUMNS_ACROSS = 5


def percent(share: float, decimals: int = 1) -> str:
    """A share in [0,1] as a percentage without its sign: ``0.5861`` gives ``58.6``."""
    return f"{100.0 * share:.{decimals}f}"


def interval(cell: Cell) -> str:
    """The interval of a cell in percent, ``[56.2, 60.0]``; empty where its seeds agree, which is no interval."""
    return "" if _seeds_agree(cell) else f"[{percent(cell.low)}, {percent(cell.high)}]"


def loss(value: float | None) -> str:
    """A mean loss with the sources' four decimals; a dash where there is none."""
    return "–" if value is None else f"{value:.4f}"


def seeds(cell: Cell) -> str:
    """How many training seeds a cell is of, ``3 seeds``, and whether they agree; empty for one seed."""
    if cell.seeds == 1:
        return ""
    return f"{cell.seeds} seeds{' agree' if _seeds_agree(cell) else ''}"


def _seeds_agree(cell: Cell) -> bool:
    """Whether several seeds have the same accuracy in the decimals that tables print."""
    return cell.seeds > 1 and percent(cell.low) == percent(cell.high)


def caption(table: Table) -> str:
    """What every figure of the table shares, in one sentence."""
    clean = [column.images for column in table.columns if column.attack == "none"]
    attacked = list(dict.fromkeys(column.images for column in table.columns if column.attack != "none"))
    counts = [f"{clean[0]} clean"] if clean else []
    counts += [f"{' or '.join(attacked)} attacked"] if attacked else []
    parts = [f"Accuracy in % on {' and '.join(counts) or 'no'} images of the {table.split} split"]
    parts += [f"attacks within {table.threat}"] if table.threat else []
    parts += [f"all rows: {table.settings}"] if table.settings else []
    parts += ["losses are mean cross-entropies"] if any(column.has_loss for column in table.columns) else []
    if table.seeds > 1:
        agree = any(_seeds_agree(cell) for row in table.rows for cell in row.cells.values())
        spread = f"[lowest seed, highest seed] where a cell says so{', no bracket where they agree' if agree else ''}"
        parts.append(f"mean over training seeds {spread}, else [95 % interval]")
    else:
        parts.append("[95 % interval]")
    return "; ".join(parts) + "."


def rich_tables(result: StudyResult) -> list[RichTable]:
    """The tables for a terminal, each at most 100 columns wide: more than five attacks continue in a second table."""
    tables = []
    for table in study_tables(result):
        for number, columns in enumerate(_chunks(table.columns)):
            title = f"{table.data}{' (continued)' if number else ''}"
            shown = RichTable(title=escape(title), caption=escape(caption(table)), box=box.SIMPLE_HEAD, show_lines=True)
            shown.width = WIDTH
            shown.title_justify = shown.caption_justify = "left"
            shown.add_column("model", overflow="fold", ratio=1)
            for column in columns:
                shown.add_column(escape(column.title), justify="right", no_wrap=True, min_width=13)
            for row in table.rows:
                if number and not any(column.attack in row.cells for column in columns):
                    continue
                shown.add_row(_rich_name(row), *(_rich_cell(table, c, row.cells.get(c.attack)) for c in columns))
            tables.append(shown)
    return tables


def _chunks(columns: tuple[Column, ...]) -> Iterator[tuple[Column, ...]]:
    for start in range(0, len(columns), _COLUMNS_ACROSS):
        yield columns[start : start + _COLUMNS_ACROSS]


def _rich_name(row: TableRow) -> Text:
    style = {"white-box": "dim", "clean": "dim", "adaptive": "magenta"}.get(row.protocol, "italic yellow")
    text = Text(printable(row.model), style="bold")
    if row.variant:
        text.append(f"\n{printable(row.variant)}", style="not bold")
    return text.append(f"\n{printable(row.provenance)}", style=f"not bold {style}")


def _rich_cell(table: Table, column: Column, cell: Cell | None) -> Text:
    if cell is None:
        return Text("–", style="dim")
    transfer = cell.protocol == "transfer"
    text = Text(percent(cell.accuracy), style="italic yellow" if transfer else "bold")
    for words in filter(None, (interval(cell), seeds(cell))):
        text.append(f"\n{words}", style="not bold dim")
    if cell.source_value is not None:
        text.append(f"\nsource {percent(cell.source_value, table.source_decimals)}", style="not bold cyan")
    if column.has_loss:
        text.append(f"\nloss {loss(cell.loss)}", style="not bold dim")
    if cell.source_loss is not None:
        text.append(f"\nsource {loss(cell.source_loss)}", style="not bold cyan")
    return text.append("\ntransfer", style="italic yellow") if transfer else text


def printable(text: str) -> str:
    """The text on one line, with a space for every character that cannot be shown."""
    return "".join(character if character.isprintable() else " " for character in text)
