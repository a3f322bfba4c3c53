"""What `unfool evaluate` prints for a person: the table, the verdicts, and every reason for doubt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from unfool.cli.printing import WIDTH, stdout

if TYPE_CHECKING:
    from unfool.evaluation.adaptive.ladder_result import LadderResult
    from unfool.evaluation.evaluation import Evaluation
    from unfool.evaluation.records import Records
    from unfool.evaluation.rows import Row


def print_evaluation(found: Evaluation) -> None:
    """The rows as one table, what else was asked for, and a line for each reason not to believe the figures."""
    results = found.result()
    console = stdout()
    console.print(_table(found.name, found.rows, bool(found.doubts)))
    for claim in results.claims:
        console.print(f"[bold]{claim.verdict.upper()}[/bold]: {escape(' '.join(claim.sentences))}")
    if "corruptions" in results.details:
        console.print(_corruptions(results.details["corruptions"]))
    for test in found.binarization_tests.values():
        if test.passed:
            console.print(escape(test.text))
    attacked = [row for row in found.rows if row.protocol == "white-box"]
    if attacked:
        same = [row for row in attacked if row.threat == attacked[-1].threat]
        worst = min(reversed(same), key=lambda row: row.accuracy)
        share = f"{100 * worst.accuracy:.1f} % [{100 * worst.low:.1f}, {100 * worst.high:.1f}]"
        told = f"{share} of {worst.n} images stand under {worst.attack} at {worst.threat}"
        console.print(escape(told) + (", [bold red]not to be believed[/bold red]:" if found.doubts else "."))
    elif found.doubts:
        console.print("[bold red]not to be believed[/bold red]:")
    for doubt in found.doubts:
        console.print(f"  [red]![/red] {escape(doubt)}")
    if found.reliability is not None and found.reliability.trustworthy:
        checks, images = len(found.reliability.checked), found.reliability.images
        console.print(f"[dim]{checks} checks on {images} images gave no reason for doubt.[/dim]")


def print_ladder(found: LadderResult) -> None:
    """The rungs as one table, the verdict and its sentences, and a line for each rung that does not apply."""
    section = found.section()
    console = stdout()
    table = Table(box=box.SIMPLE_HEAD, title=escape(f"{found.defense} before {found.model}"), title_justify="left")
    table.add_column("rung", overflow="fold")
    for title in ("protocol", "accuracy %", "95 % interval", "n", "on common", "cost: CPU s", "images"):
        table.add_column(title, justify="left" if title == "protocol" else "right", no_wrap=True)
    for name, records in zip(("network", "defense"), found.clean, strict=True):
        table.add_row(f"clean, {name}", "clean", *_figures(records), "", *_cost(records))
    for rung in section["rungs"]:
        worst = rung["rung"] == "worst"
        letter = "" if worst else f"({rung['rung']}) "
        records = found.worst if worst else found.records[rung["rung"]]
        table.add_row(
            escape(f"{letter}{rung['title']}\n  {rung['attack']} at {section['threat']}"),
            "[yellow]TRANSFER[/yellow]" if rung["protocol"] == "transfer" else rung["protocol"],
            *_figures(records),
            f"{100 * rung['common']['accuracy']:.1f}",
            *_cost(records),
        )
    console.print(table)
    colour = {"helps": "green", "fails": "red", "undecided": "yellow"}[section["verdict"]]
    console.print(f"[bold {colour}]{section['verdict'].upper()}[/bold {colour}]")
    for text in [*section["sentences"], *section["notes"]]:
        console.print(escape(text))
    for letter, reason in section["absent"].items():
        console.print(f"[dim]({letter}) was not run: {escape(reason)}.[/dim]")
    for doubt in found.doubts:
        console.print(f"  [red]![/red] {escape(doubt)}")


def _figures(records: Records) -> tuple[str, str, str]:
    low, high = records.interval()
    return f"{100 * records.accuracy:.1f}", f"[{100 * low:.1f}, {100 * high:.1f}]", str(records.count)


def _cost(records: Records) -> tuple[str, str]:
    return f"{records.cpu_seconds:.1f}", f"{records.model_images:,}"


def _table(name: str, rows: Sequence[Row], doubted: bool) -> Table:
    images = f"{rows[0].data} {rows[0].split}"
    table = Table(box=box.SIMPLE_HEAD, title=escape(f"{name} on {images}"), title_justify="left")
    table.add_column("attack", overflow="fold")
    for title in ("protocol", "accuracy %", "95 % interval", "n", "loss", "cost: CPU s", "images"):
        table.add_column(title, justify="left" if title == "protocol" else "right", no_wrap=True)
    for row in rows:
        said = row.attack if row.attack == "none" else f"{row.attack} at {row.threat}"
        if f"{row.data} {row.split}" != images:
            said += f" on {row.data} {row.split}"
        for key, value in row.settings.items():
            said += f"\n  {key}={value}"
        for part, count in (row.fooled_by or {}).items():
            said += f"\n  {part} fooled {count}"
        table.add_row(
            escape(said),
            "[yellow]TRANSFER[/yellow]" if row.protocol == "transfer" else row.protocol,
            f"{100 * row.accuracy:.1f}" + ("?" if row.zero_gradient or (doubted and row.attack != "none") else ""),
            f"[{100 * row.low:.1f}, {100 * row.high:.1f}]",
            str(row.n),
            f"{row.loss or 0.0:.3f}",
            f"{row.cost.cpu_seconds or 0.0:.1f}",
            f"{row.cost.model_images or 0:,}",
        )
    return table


def _corruptions(found: dict[str, Any]) -> Table:
    """Accuracy in % by corruption and severity, and the mean."""
    mean, low, high = (f"{100 * found[key]:.1f}" for key in ("accuracy", "low", "high"))
    caption = f"mean corruption accuracy {mean} % [{low}, {high}] on {found['n']} images"
    table = Table(box=box.SIMPLE_HEAD, caption=escape(caption), caption_justify="left", width=WIDTH)
    table.add_column("corruption")
    severities = list(dict.fromkeys(one["severity"] for one in found["under"]))
    for severity in severities:
        table.add_column(f"severity {severity}", justify="right")
    shares = {(one["corruption"], one["severity"]): one["accuracy"] for one in found["under"]}
    for name in dict.fromkeys(one["corruption"] for one in found["under"]):
        table.add_row(name, *(f"{100 * shares[name, severity]:.1f}" for severity in severities))
    return table
