"""The results of a study as Markdown, for the pages of a documentation: names escaped, on GitHub as in MyST."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from unfool.evaluation.results.claims import ClaimResult, tally
from unfool.evaluation.results.study_result import StudyResult
from unfool.report.accuracy_table import Cell, Column, Table, TableRow
from unfool.report.pivot import study_tables
from unfool.report.tables import caption, interval, loss, percent, printable, seeds


def markdown(result: StudyResult) -> str:
    """The summary, tables and verdicts of a study."""
    summary = [plain(result.summary)] if result.summary else []
    blocks = [*summary, *map(_whole_table, study_tables(result)), *_verdicts(result.claims)]
    return "\n\n".join(blocks) + "\n"


def results_section(result: StudyResult) -> str:
    """The results of one scale as a section: first the source's figures beside these, then verdicts, rows and notes.

    What is long is folded into ``<details>``.
    """
    tables = study_tables(result)
    blocks = [f"## Results at scale {plain(result.scale)}", plain(result.summary), _origin(result)]
    published = _beside_the_source(tables)
    if published:
        blocks += ["### The paper beside this", *published]
    if result.claims:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in tally(result.claims))
        blocks += ["### Verdicts", _folded(f"{len(result.claims)} claims: {counts}", _verdicts(result.claims))]
    if tables:
        blocks += ["### Rows", _folded("All rows of the tables", map(_whole_table, tables))]
    for title, texts in (("What this scale cuts", result.cuts), ("Notes and deviations", result.notes)):
        if texts:
            blocks.append(_folded(title, ["\n".join(f"- {plain(text)}" for text in texts)]))
    return "\n\n".join(block for block in blocks if block) + "\n"


def plain(text: str) -> str:
    """Text that neither Markdown nor the HTML inside it can mistake for markup, on one line."""
    escaped = html.escape(printable(text), quote=False)
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", escaped)


def _origin(result: StudyResult) -> str:
    """When it was made and with what, in one line."""
    seeds = sorted({row.seed for row in result.rows if row.seed is not None})
    parts = [", ".join(f"{name} {version}" for name, version in result.versions.items())]
    parts += [f"training seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"] if seeds else []
    parts += [f"{result.seconds / 3600:.1f} hours"] if result.seconds else []
    return plain("; ".join(part for part in parts if part))


def _beside_the_source(tables: Sequence[Table]) -> list[str]:
    """A table for each data set with every figure that the source states; none where it states none."""
    blocks: list[str] = []
    for table in tables:
        lines: list[str] = []
        losses = any(column.has_loss for column in table.columns)
        for row in table.rows:
            for column in table.columns:
                cell = row.cells.get(column.attack)
                line = None if cell is None else _compared(table, row, column, cell, losses)
                if line is not None and line not in lines:
                    lines.append(line)
        if lines:
            titles = ["system", "attack", "protocol", "paper %", "this %", "difference"]
            titles += ["paper loss", "this loss"] if losses else []
            head = f"| {' | '.join(titles)} |\n|---|---|---{'|--:' * (len(titles) - 3)}|"
            blocks.append(f"**{plain(table.data)}**")
            blocks.append("\n".join([head, *lines]))
    return blocks


def _compared(table: Table, row: TableRow, column: Column, cell: Cell, losses: bool) -> str | None:
    """The line of one figure, with ``losses`` also the source's loss and ours; None where the source has no figure."""
    if cell.source_value is None:
        return None
    protocol = "clean" if column.attack == "none" else _emphasised(row)
    paper = percent(cell.source_value, table.source_decimals)
    difference = f"{100 * (cell.accuracy - cell.source_value):+.1f}"
    figures = [_name(row), plain(column.title), protocol, paper, _figure(cell), difference]
    figures += [loss(cell.source_loss), loss(cell.loss)] if losses else []
    return f"| {' | '.join(figures)} |"


def _whole_table(table: Table) -> str:
    clean = [column for column in table.columns if column.attack == "none"]
    attacks = [column for column in table.columns if column.attack != "none"]
    before, after = ([title for c in columns for title in _titles(c)] for columns in (clean, attacks))
    lines = [
        f"**{plain(table.data)}.** {plain(caption(table))}",
        "",
        "| " + " | ".join(plain(title) for title in ["model", *before, "protocol", *after]) + " |",
        "|---" + "|--:" * len(before) + "|---" + "|--:" * len(after) + "|",
    ]
    for row in table.rows:
        first, last = ([cell for c in columns for cell in _cells(table, row, c)] for columns in (clean, attacks))
        lines.append("| " + " | ".join([_name(row), *first, _emphasised(row), *last]) + " |")
    return "\n".join(lines)


def _titles(column: Column) -> list[str]:
    return [column.title, *(["loss"] if column.has_loss else [])]


def _verdicts(claims: Sequence[ClaimResult]) -> list[str]:
    lines = [
        f"- **{claim.verdict}**: {plain(claim.text)}" + "".join(f" *{plain(text)}*" for text in claim.sentences)
        for claim in claims
    ]
    return ["\n".join(lines)] if lines else []


def _name(row: TableRow) -> str:
    return plain(row.model) + (f"<br>{plain(row.variant)}" if row.variant else "")


def _emphasised(row: TableRow) -> str:
    """The protocol in words; a transfer stands out."""
    words = plain(row.provenance)
    return words.replace("transfer", "**transfer**", 1) if row.protocol == "transfer" else words


def _cells(table: Table, row: TableRow, column: Column) -> list[str]:
    """The accuracy of a row under an attack and, where the column has it, the loss."""
    cell = row.cells.get(column.attack)
    if cell is None:
        return ["–"] * len(_titles(column))
    mark = "*transfer* " if cell.protocol == "transfer" else ""
    source = "" if cell.source_value is None else f"<br>source {percent(cell.source_value, table.source_decimals)}"
    theirs = "" if cell.source_loss is None else f"<br>source {loss(cell.source_loss)}"
    return [f"{mark}{_figure(cell)}{source}", f"{mark}{loss(cell.loss)}{theirs}"][: len(_titles(column))]


def _figure(cell: Cell) -> str:
    spread, number = interval(cell), seeds(cell)
    words = f"{percent(cell.accuracy)} {spread}" if spread else percent(cell.accuracy)
    if not number:
        return words
    return f"{words} over {number}" if spread else f"{words} ({number})"


def _folded(title: str, blocks: Iterable[str]) -> str:
    return "\n\n".join([f"<details>\n<summary>{title}</summary>", *blocks, "</details>"])
