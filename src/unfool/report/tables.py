"""The tables of a study as Markdown for a README and as rich tables for a terminal of 100 columns."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from rich import box
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from unfool.evaluation.results.study_result import StudyResult
from unfool.report.accuracy_table import Cell, Column, Table, TableRow, attack_title
from unfool.report.pivot import study_tables

__all__ = ["Table", "attack_title", "caption", "markdown", "percent", "rich_tables", "study_tables"]

WIDTH = 100
_COLUMNS_ACROSS = 5


def percent(share: float, decimals: int = 1) -> str:
    """A share in [0,1] as a percentage without its sign: ``0.5861`` gives ``58.6``."""
    return f"{100.0 * share:.{decimals}f}"


def interval(cell: Cell) -> str:
    """The interval of a cell in percent, ``[56.2, 60.0]``."""
    return f"[{percent(cell.low)}, {percent(cell.high)}]"


def caption(table: Table) -> str:
    """What every figure of the table shares, in one sentence."""
    clean = [column.images for column in table.columns if column.attack == "none"]
    attacked = list(dict.fromkeys(column.images for column in table.columns if column.attack != "none"))
    counts = [f"{clean[0]} clean"] if clean else []
    counts += [f"{' or '.join(attacked)} attacked"] if attacked else []
    parts = [f"Accuracy in % on {' and '.join(counts) or 'no'} images of the {table.split} split"]
    parts += [f"attacks within {table.threat}"] if table.threat else []
    parts += [f"all rows: {table.settings}"] if table.settings else []
    if table.seeds > 1:
        parts.append("mean over training seeds [lowest seed, highest seed] where a cell says so, else [95 % interval]")
    else:
        parts.append("[95 % interval]")
    return "; ".join(parts) + "."


def markdown(result: StudyResult) -> str:
    """The summary, tables and verdicts of a study in GitHub's Markdown, names escaped."""
    blocks = []
    for table in study_tables(result):
        lines = [f"**{_plain(table.data)}.** {_plain(caption(table))}", ""]
        natural, attacks = _split(table)
        titles = ["model", *(c.title for c in natural), "protocol", *(c.title for c in attacks)]
        lines.append("| " + " | ".join(_plain(title) for title in titles) + " |")
        lines.append("|---" + "|--:" * len(natural) + "|---" + "|--:" * len(attacks) + "|")
        for row in table.rows:
            name = _plain(row.model) + (f"<br>{_plain(row.variant)}" if row.variant else "")
            words = _plain(row.provenance)
            cells = [name, *(_markdown_cell(table, row, c) for c in natural)]
            cells.append(words.replace("transfer", "**transfer**", 1) if row.protocol == "transfer" else words)
            cells += [_markdown_cell(table, row, c) for c in attacks]
            lines.append("| " + " | ".join(cells) + " |")
        blocks.append("\n".join(lines))
    claims = [
        f"- **{claim.verdict}**: {_plain(claim.text)}" + "".join(f" *{_plain(text)}*" for text in claim.sentences)
        for claim in result.claims
    ]
    summary = [_plain(result.summary)] if result.summary else []
    return "\n\n".join([*summary, *blocks, *(["\n".join(claims)] if claims else [])]) + "\n"


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
                shown.add_row(_rich_name(row), *(_rich_cell(table, row.cells.get(c.attack)) for c in columns))
            tables.append(shown)
    return tables


def _split(table: Table) -> tuple[list[Column], list[Column]]:
    natural = [column for column in table.columns if column.attack == "none"]
    return natural, [column for column in table.columns if column.attack != "none"]


def _chunks(columns: tuple[Column, ...]) -> Iterator[tuple[Column, ...]]:
    for start in range(0, len(columns), _COLUMNS_ACROSS):
        yield columns[start : start + _COLUMNS_ACROSS]


def _markdown_cell(table: Table, row: TableRow, column: Column) -> str:
    cell = row.cells.get(column.attack)
    if cell is None:
        return "–"
    label = "*transfer* " if cell.protocol == "transfer" else ""
    text = f"{label}{percent(cell.accuracy)} {interval(cell)}"
    if cell.seeds > 1:
        text += f" over {cell.seeds} seeds"
    if cell.source_value is not None:
        text += f"<br>source {percent(cell.source_value, table.source_decimals)}"
    return text


def _rich_name(row: TableRow) -> Text:
    style = {"white-box": "dim", "clean": "dim", "adaptive": "magenta"}.get(row.protocol, "italic yellow")
    text = Text(_printable(row.model), style="bold")
    if row.variant:
        text.append(f"\n{_printable(row.variant)}", style="not bold")
    return text.append(f"\n{_printable(row.provenance)}", style=f"not bold {style}")


def _rich_cell(table: Table, cell: Cell | None) -> Text:
    if cell is None:
        return Text("–", style="dim")
    transfer = cell.protocol == "transfer"
    text = Text(percent(cell.accuracy), style="italic yellow" if transfer else "bold")
    text.append(f"\n{interval(cell)}", style="not bold dim")
    if cell.seeds > 1:
        text.append(f"\n{cell.seeds} seeds", style="not bold dim")
    if cell.source_value is not None:
        text.append(f"\nsource {percent(cell.source_value, table.source_decimals)}", style="not bold cyan")
    return text.append("\ntransfer", style="italic yellow") if transfer else text


def _plain(text: str) -> str:
    """Text that neither Markdown nor the HTML inside it can mistake for markup, on one line."""
    escaped = html.escape(_printable(text), quote=False)
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", escaped)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
