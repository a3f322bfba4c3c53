"""What `unfool evaluate` prints for a person: a table, verdicts, and every reason for doubt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from unfool.cli.printing import WIDTH, stdout
from unfool.evaluation.corruptions import mean_corruption_accuracy
from unfool.evaluation.records import CLEAN, OWN
from unfool.evaluation.reliability.over_draws import RecordsOverDraws

if TYPE_CHECKING:
    from unfool.evaluation.adaptive.ladder_result import LadderResult
    from unfool.evaluation.evaluation import Evaluation
    from unfool.evaluation.records import Records
    from unfool.evaluation.results.rows import Row


def print_evaluation(evaluation: Evaluation) -> None:
    """Print the rows as one table, claims and corruptions if there are any, and each reason for doubt on a line."""
    console = stdout()
    console.print(_table(evaluation.name, evaluation.rows, bool(evaluation.doubts)))
    for row in evaluation.rows:
        if row.remark is not None:
            console.print(escape(f"{row.attack}: {row.remark}."))
    for claim in evaluation.result().claims:
        console.print(f"[bold]{claim.verdict.upper()}[/bold]: {escape(' '.join(claim.sentences))}")
    if evaluation.corrupted:
        console.print(_corruptions(evaluation.corrupted))
    for test in evaluation.binarization_tests.values():
        if test.passed:
            console.print(escape(test.text))
    attacked = [row for row in evaluation.rows if row.protocol in OWN]
    if attacked:
        same = [row for row in attacked if row.threat == attacked[-1].threat]
        worst = min(reversed(same), key=lambda row: row.accuracy)
        share = f"{100 * worst.accuracy:.1f} % [{100 * worst.low:.1f}, {100 * worst.high:.1f}]"
        if worst.every_draw is not None:
            share += f" on average over draws, {worst.every_draw.words} in every draw,"
        summary = f"Robust accuracy {share} on {worst.n} images under {worst.attack} at {worst.threat}"
        console.print(escape(summary) + (", [bold red]not to be believed[/bold red]:" if evaluation.doubts else "."))
    else:
        if all(row.protocol == CLEAN for row in evaluation.rows):
            console.print("No attack was given, so this says nothing about robustness.")
        else:
            console.print(
                "All examples were crafted on other systems, and no attack on this one was given, so a high accuracy "
                "says nothing about robustness."
            )
        if evaluation.doubts:
            console.print("[bold red]not to be believed[/bold red]:")
    for doubt in evaluation.doubts:
        console.print(f"  [red]![/red] {escape(doubt)}")
    if evaluation.reliability is not None and evaluation.reliability.trustworthy:
        console.print(f"[dim]{evaluation.reliability.no_doubt}.[/dim]")


def print_ladder(result: LadderResult) -> None:
    """Print the rungs as one table, the verdict and its sentences, and a line for each rung that does not apply."""
    section = result.section()
    console = stdout()
    table = Table(box=box.SIMPLE_HEAD, title=escape(f"{result.defense} before {result.model}"), title_justify="left")
    table.add_column("rung", overflow="fold")
    for title in ("protocol", "accuracy %", "95 % interval", "n", "on common", "cost: CPU s", "images"):
        table.add_column(title, justify="left" if title == "protocol" else "right", no_wrap=True)
    for name, records in zip(("network", "defense"), result.clean, strict=True):
        table.add_row(f"clean, {name}{_every_draw(records)}", "clean", *_figures(records), "", *_cost(records))
    for rung in section.rungs:
        worst = rung.key == "worst"
        letter = "" if worst else f"({rung.key}) "
        records = result.worst if worst else result.records[rung.key]
        table.add_row(
            escape(f"{letter}{rung.title}\n  {rung.attack} at {section.threat}{_every_draw(records)}"),
            protocol_word(rung.protocol),
            *_figures(records),
            f"{100 * rung.common.accuracy:.1f}",
            *_cost(records),
        )
    console.print(table)
    colour = {"helps": "green", "fails": "red", "undecided": "yellow"}[section.verdict]
    console.print(f"[bold {colour}]{section.verdict.upper()}[/bold {colour}]")
    for text in [*section.sentences, *section.notes]:
        console.print(escape(text))
    for letter, reason in section.absent.items():
        console.print(f"[dim]({letter}) was not run: {escape(reason)}.[/dim]")
    for doubt in result.doubts:
        console.print(f"  [red]![/red] {escape(doubt)}")


def protocol_word(protocol: str) -> str:
    """A protocol as tables print it; what is no white-box result stands out."""
    return f"[yellow]{protocol.upper()}[/yellow]" if protocol in ("transfer", "unverified", "score-based") else protocol


def _figures(records: Records) -> tuple[str, str, str]:
    low, high = records.interval()
    return f"{100 * records.accuracy:.1f}", f"[{100 * low:.1f}, {100 * high:.1f}]", str(records.count)


def _every_draw(records: Records) -> str:
    """A line on how many images are right in every draw of a random system; empty for other systems."""
    random = isinstance(records, RecordsOverDraws)
    return f"\n  {100 * records.over_draws.worst:.1f} % in every draw" if random else ""


def _cost(records: Records) -> tuple[str, str]:
    return f"{records.cpu_seconds:.1f}", f"{records.model_images:,}"


def _table(name: str, rows: Sequence[Row], doubted: bool) -> Table:
    images = f"{rows[0].data} {rows[0].split}"
    table = Table(box=box.SIMPLE_HEAD, title=escape(f"{name} on {images}"), title_justify="left")
    table.add_column("attack", overflow="fold")
    for title in ("protocol", "accuracy %", "95 % interval", "n", "loss", "cost: CPU s", "images"):
        table.add_column(title, justify="left" if title == "protocol" else "right", no_wrap=True)
    for row in rows:
        words = row.attack if row.attack == "none" else f"{row.attack} at {row.threat}"
        if f"{row.data} {row.split}" != images:
            words += f" on {row.data} {row.split}"
        for key, value in row.settings.items():
            words += f"\n  {key}={value}"
        for part, count in (row.fooled_by or {}).items():
            words += f"\n  {part} fooled {count}"
        table.add_row(
            escape(words),
            protocol_word(row.protocol),
            f"{100 * row.accuracy:.1f}" + ("?" if row.zero_gradient or (doubted and row.attack != "none") else ""),
            f"[{100 * row.low:.1f}, {100 * row.high:.1f}]",
            str(row.n),
            f"{row.loss or 0.0:.3f}",
            f"{row.cost.cpu_seconds or 0.0:.1f}",
            f"{row.cost.model_images or 0:,}",
        )
    return table


def _corruptions(records: Sequence[Records]) -> Table:
    """Accuracy in % by corruption and severity, and the mean."""
    mean, low, high = (f"{100 * share:.1f}" for share in mean_corruption_accuracy(records))
    caption = f"mean corruption accuracy {mean} % [{low}, {high}] on {records[0].count} images"
    table = Table(box=box.SIMPLE_HEAD, caption=escape(caption), caption_justify="left", width=WIDTH)
    table.add_column("corruption")
    accuracies: dict[str, dict[int, float]] = {}
    for each in records:
        accuracies.setdefault(each.settings["corruption"], {})[each.settings["severity"]] = each.accuracy
    severities = list(dict.fromkeys(each.settings["severity"] for each in records))
    for severity in severities:
        table.add_column(f"severity {severity}", justify="right")
    for name, by_severity in accuracies.items():
        table.add_row(name, *(f"{100 * by_severity[severity]:.1f}" for severity in severities))
    return table
